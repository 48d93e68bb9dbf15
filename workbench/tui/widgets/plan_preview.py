"""The plan as the file and the command that will run: nothing happens that one could not type."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static


class PlanFile(VerticalScroll):
    """TOML and command, read only."""

    def compose(self) -> ComposeResult:
        """Command first: it is short, and what one copies."""
        yield Static("", id="plan-command")
        yield Static("", id="plan-toml")

    def show(self, toml: str, command: str) -> None:
        """Show this plan; texts have been cleaned."""
        self.query_one("#plan-command", Static).update(Text(command))
        self.query_one("#plan-toml", Static).update(Text(toml or "No plan yet."))
