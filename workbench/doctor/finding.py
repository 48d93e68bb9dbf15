"""One finding of the doctor: the subject, its standing, and a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Standing = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`ok`: nothing to do; `note`: works with a restriction; `problem`: runs fail or mislead."""

    name: str
    standing: Standing
    text: str
    remedy: str = ""
    """One sentence; empty: nothing to do."""


def ok(name: str, text: str) -> Finding:
    """A finding with nothing to do."""
    return Finding(name, "ok", text)


def note(name: str, text: str, remedy: str) -> Finding:
    """A finding about something that works with a restriction."""
    return Finding(name, "note", text, remedy)


def problem(name: str, text: str, remedy: str) -> Finding:
    """A finding that makes runs fail or their figures mislead."""
    return Finding(name, "problem", text, remedy)
