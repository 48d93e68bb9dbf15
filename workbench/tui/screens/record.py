"""One record, whole: every field in its group, unmeasured ones with their reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from results.text import clean_line
from workbench.tui.widgets.chrome import Heading

if TYPE_CHECKING:
    from pathlib import Path

    from results.schema import RunRecord

NAME_CELLS = 26


class RecordFound(Message):
    """The record was read; None: it is not there."""

    def __init__(self, record: RunRecord | None, trouble: str = "") -> None:
        super().__init__()
        self.record, self.trouble = record, trouble


class RecordScreen(ModalScreen[None]):
    """Scrolls; Esc goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "leave", "Back")]

    def __init__(self, path: Path, key: tuple[str, str]) -> None:
        super().__init__()
        self._path, self._key = path, key

    def compose(self) -> ComposeResult:
        """A title and one long text."""
        yield Heading(self._key[1], id="record-title")
        with VerticalScroll(id="record"):
            yield Static("Reading the record …", id="record-text")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Read it."""
        self.query_one("#record").focus()
        self._read()

    @work(thread=True)
    def _read(self) -> None:
        from workbench.tui import records

        try:
            self.post_message(RecordFound(records.find(self._path, self._key)))
        except OSError as error:
            self.post_message(RecordFound(None, str(error)))

    def on_record_found(self, event: RecordFound) -> None:
        """Show it."""
        text = self.query_one("#record-text", Static)
        if event.record is None:
            text.add_class("failed")
            trouble = clean_line(event.trouble)
            text.update(Text(f" This record cannot be found again. {trouble}"))
            return
        self.query_one("#record-title", Heading).remark = event.record.identity.suite
        text.update(_page(event.record))

    def action_leave(self) -> None:
        """Back."""
        self.dismiss(None)


def _page(record: RunRecord) -> Text:
    from workbench.tui import detail

    page = Text()
    for group in detail.groups(record):
        page.append(f"\n {group.title}\n", style="bold")
        for line in group.lines:
            page.append(f"   {line.name:<{NAME_CELLS}}", style="dim")
            page.append(line.value, style="bold" if line.failed else "")
            page.append(f"   {line.remark}\n" if line.remark else "\n", style="dim")
    return page
