"""Context of a step: its folder, its size, and its report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Size = TypeVar("Size")
Send = Callable[..., None]


class Skip(Exception):  # noqa: N818 - no error
    """The step cannot run here; the text says why."""


@dataclass
class Report:
    """Of one step."""

    send: Send
    scratch: Path
    small: bool
    cuda: bool
    failures: int = 0

    def figure(self, name: str, value: Any, remark: str = "") -> None:
        """A number, or a fact, as it is measured."""
        self.send("figure", name, value, remark)

    def check(self, name: str, holds: bool, remark: str = "") -> None:
        """Something that must hold; the step goes on where it does not, and is FAILED."""
        self.failures += not holds
        self.send("figure", name, "ok" if holds else "FAILED", remark)

    def size(self, full: Size, small: Size) -> Size:
        """One of the two."""
        return small if self.small else full
