"""Preview of the plan file and of the command that starts it."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static


class PlanFileView(VerticalScroll):
    """Command and TOML, read-only."""

    def compose(self) -> ComposeResult:
        """Command first, since it is short and gets copied."""
        yield Static("", id="plan-command")
        yield Static("", id="plan-toml")

    def show(self, toml: str, command: str) -> None:
        """Show a plan; the texts must be sanitized."""
        self.query_one("#plan-command", Static).update(Text(command))
        self.query_one("#plan-toml", Static).update(Text(toml or "No plan yet."))
