"""Pane of engine.log: heading, lines, and a field to find words."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from workbench.tui.widgets.log_tail import LogTail
from workbench.tui.widgets.top_bar import Heading


class LogPane(Vertical):
    """The log of one run, one attempt at a time."""

    def compose(self) -> ComposeResult:
        """Heading, lines, search field."""
        yield Heading("Log", id="log-heading")
        yield LogTail(id="log")
        yield Input(placeholder="find (regular expression)", compact=True, id="log-find")

    def show(self, lines: tuple[str, ...], empty: str) -> None:
        """Set the lines, which must be sanitized."""
        self.query_one(LogTail).show(lines, empty)

    def show_moment(self, clock: str) -> None:
        """Say that the lines are the events up to a moment; empty: the log is shown."""
        self.query_one(Heading).title = f"Events up to {clock}, Esc: now" if clock else "Log"

    def show_attempt(self, number: int, attempts: int) -> None:
        """Say whose output it is."""
        remark = f"attempt {number} of {attempts}, a: another" if attempts > 1 else ""
        self.query_one(Heading).remark = remark

    def change(self, action: str) -> None:
        """`wrap` or truncate long lines; `find` words; go to the `next` or `previous` match."""
        log = self.query_one(LogTail)
        match action:
            case "wrap":
                log.toggle_wrap()
            case "find":
                self.add_class("finding")
                self.query_one(Input).focus()
            case "next" | "previous":
                log.jump(1 if action == "next" else -1)

    def leave_search(self) -> bool:
        """Close the search field; False: it was not open."""
        if not self.has_class("finding"):
            return False
        self.remove_class("finding")
        self.query_one(LogTail).focus()
        return True

    @on(Input.Submitted)
    def _find_words(self, event: Input.Submitted) -> None:
        event.stop()
        self.leave_search()
        count = self.query_one(LogTail).search(event.value)
        lines = "1 line" if count == 1 else f"{count} lines"
        self.query_one(Heading).remark = f"/{event.value}: {lines}, n N" if event.value else ""
