"""Record screen: all fields of one record by group, and its notes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.console import Group, RenderableType
from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from results.text.sanitize import clean_line
from workbench.output_language import chosen_language
from workbench.tui.screens.dialogs import ChoiceDialog, TextDialog
from workbench.tui.view_models.cells import GridColumn
from workbench.tui.widgets.footer import Footer
from workbench.tui.widgets.name_table import make_name_table
from workbench.tui.widgets.top_bar import Heading

if TYPE_CHECKING:
    from pathlib import Path

    from results.records.notes import Kind, RunNotes
    from results.records.schema import RunRecord

NO_STATE = "none: as its last run ended"
OWN_WORDS = "own words …"


class RecordFound(Message):
    """The record was read; None: it was not found."""

    def __init__(
        self, record: RunRecord | None, trouble: str = "", noted: RunNotes | None = None
    ) -> None:
        super().__init__()
        self.record, self.trouble, self.noted = record, trouble, noted


class RecordScreen(ModalScreen[None]):
    """Shows one record and its notes, and adds notes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "finding", "Note a finding"),
        Binding("s", "state", "State"),
        Binding("b", "predictions", "Predictions"),
        Binding("escape,enter,q", "leave", "Back"),
    ]

    def __init__(self, path: Path, key: tuple[str, str], offset: int = -1) -> None:
        """`offset`: byte of `path` at which the record's line may begin."""
        super().__init__()
        self._path, self._key, self._offset = path, key, offset

    def compose(self) -> ComposeResult:
        """Title and text."""
        yield Heading(self._key[1], id="record-title")
        with VerticalScroll(id="record"):
            yield Static("Reading the record …", id="record-text")
        yield Footer()

    def on_mount(self) -> None:
        """Read the record."""
        self.query_one("#record").focus()
        self._read()

    @work(thread=True)
    def _read(self) -> None:
        from results.records.migrations import NewerSchemaError
        from workbench.reporting import note_writer
        from workbench.tui.view_models.results import rows

        try:
            record = rows.find_record(self._path, self._key, self._offset)
            noted = note_writer.read_standing(self._path.parent, self._key)
            self.post_message(RecordFound(record, noted=noted))
        except (OSError, NewerSchemaError) as error:
            self.post_message(RecordFound(None, str(error)))

    def on_record_found(self, event: RecordFound) -> None:
        """Show the record, or why it is missing."""
        text = self.query_one("#record-text", Static)
        if event.record is None:
            text.add_class("failed")
            trouble = clean_line(event.trouble)
            text.update(Text(f" This record cannot be found again. {trouble}"))
            return
        self.query_one("#record-title", Heading).remark = event.record.identity.suite
        notes = _notes_page(event.noted) if event.noted else []
        text.update(Group(*notes, *_record_page(event.record)))

    def action_finding(self) -> None:
        """Add a finding."""

        def on_text(text: str | None) -> None:
            if text:
                self._note("finding", text)

        placeholder = "such as: mode collapse; lower rates did not cure it"
        self.app.push_screen(TextDialog(f"A finding about {self._key[1]}", placeholder), on_text)

    def action_predictions(self) -> None:
        """Browse single items of the run."""
        from workbench.tui.screens.results.predictions import PredictionsScreen

        self.app.push_screen(PredictionsScreen("/".join(self._key)))

    def action_state(self) -> None:
        """Set the state of the experiment."""
        from workbench.reporting.note_writer import STATES

        def on_choice(state: str | None) -> None:
            if state == OWN_WORDS:
                self.app.push_screen(
                    TextDialog(f"State of {self._key[1]}", "such as: 기존 실험"), on_choice
                )
            elif state is not None:
                self._note("state", "" if state == NO_STATE else state)

        columns, keys = (GridColumn("name", "", 30, grow=10),), [OWN_WORDS, *STATES, NO_STATE]
        rows = [(key,) for key in keys]
        self.app.push_screen(
            ChoiceDialog(f"State of {self._key[1]}", columns, rows, keys), on_choice
        )

    def _note(self, kind: Kind, text: str) -> None:
        from workbench.reporting import note_writer

        try:
            note_writer.add_note(self._path.parent, self._key, kind, text)
        except (OSError, note_writer.NoteError) as error:
            self.notify(clean_line(str(error)), title="Not noted", severity="error")
            return
        self._read()

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)


def _notes_page(noted: RunNotes) -> list[RenderableType]:
    """The notes of a run; empty if there are none."""
    from workbench.reporting import note_writer

    lines = note_writer.standing_lines(noted)
    if not lines:
        return []
    cells = max(len(name) for name, _ in lines) + 4
    rows = [(Text(f"   {name}", "dim"), Text(clean_line(text, 4000))) for name, text in lines]
    return [Text("\n Notes", "bold"), make_name_table(rows, cells)]


def _record_page(record: RunRecord) -> list[RenderableType]:
    from results.records import message_translations
    from workbench.reporting import record_detail

    page: list[RenderableType] = []
    (localized,) = message_translations.localize_records([record], chosen_language())
    groups = record_detail.build_groups(localized)
    cells = max(len(line.name) for group in groups for line in group.lines) + 4
    for group in groups:
        rows = [
            (
                Text(f"   {line.name}", "dim"),
                Text(line.value, "bold" if line.failed else "").append(
                    f"   {line.remark}" if line.remark else "", "dim"
                ),
            )
            for line in group.lines
        ]
        page += [Text(f"\n {group.title}", "bold"), make_name_table(rows, cells)]
    return page
