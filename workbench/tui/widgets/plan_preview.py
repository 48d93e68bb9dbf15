"""Preview of the plan file."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static


class PlanFileView(VerticalScroll):
    """TOML, read-only."""

    def compose(self) -> ComposeResult:
        """One text."""
        yield Static("", id="plan-toml")

    def show(self, toml: str) -> None:
        """Show a plan; the text must be sanitized."""
        self.query_one("#plan-toml", Static).update(Text(toml or "No plan yet."))
