"""Input of words to find; the up and down keys bring back what was searched for before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Input


class FindInput(Input):
    """Input with earlier texts."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "recall(1)", "Earlier words", show=False),
        Binding("down", "recall(-1)", "Later words", show=False),
    ]

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(placeholder="words to find; ↑ earlier ones; Esc shows all", compact=True,
                         id=id)  # fmt: skip
        self._texts: tuple[str, ...] = ()
        self._at = -1

    def open(self, text: str, earlier: Sequence[str]) -> None:
        """Show a text and take the focus; `earlier`: texts, the newest first."""
        self._texts, self._at = tuple(earlier), -1
        self.value = text
        self.cursor_position = len(text)
        self.focus()

    def action_recall(self, by: int) -> None:
        """Show an earlier or a later text; after the latest an empty one."""
        self._at = max(-1, min(self._at + by, len(self._texts) - 1))
        self.value = self._texts[self._at] if self._at >= 0 else ""
        self.cursor_position = len(self.value)
