"""Jump mode: a letter over each part of the screen; the letter gives it the focus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

LETTERS: Final = "asdfghjklqwertzuiopyxcvbnm"


class JumpOverlay(ModalScreen[Widget | None]):
    """Letters over widgets; the result is the widget of the letter that was pressed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Back")]

    def __init__(self, widgets: Sequence[Widget]) -> None:
        super().__init__()
        self.targets = dict(zip(LETTERS, widgets, strict=False))

    def compose(self) -> ComposeResult:
        """One label a widget."""
        for letter, widget in self.targets.items():
            label = Static(Text(f" {letter} "), classes="jump-label")
            label.styles.offset = (widget.region.x, max(0, widget.region.y))
            yield label

    def on_key(self, event: events.Key) -> None:
        """Close with the widget of the letter; any other key closes without one."""
        event.stop()
        self.dismiss(self.targets.get(event.key))

    def action_leave(self) -> None:
        """Close without a jump."""
        self.dismiss(None)
