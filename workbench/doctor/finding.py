"""One line of the doctor: what was looked at, how it stands, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Standing = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`note`: works, but somebody should know; `problem`: runs will fail or mislead."""

    name: str
    standing: Standing
    text: str
    remedy: str = ""
    """One sentence; empty where nothing needs to be done."""


def ok(name: str, text: str) -> Finding:
    """All is well."""
    return Finding(name, "ok", text)


def note(name: str, text: str, remedy: str) -> Finding:
    """Works, but somebody should know."""
    return Finding(name, "note", text, remedy)


def problem(name: str, text: str, remedy: str) -> Finding:
    """Runs will fail, or their figures will mislead."""
    return Finding(name, "problem", text, remedy)
