"""Results screen: the last record of every run in a table, with sorting, filter and export."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Input, Static

from workbench.tui.screens.dialogs import ChoiceDialog
from workbench.tui.screens.record import RecordScreen
from workbench.tui.system import cli_commands
from workbench.tui.view_models import export, result_rows
from workbench.tui.view_models.cells import GridColumn
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.top_bar import Heading, TopBar

if TYPE_CHECKING:
    from workbench.tui.app import WorkbenchApp

REREAD_SECONDS = 3.0
"""Interval of checking the file (one stat call) for new records."""
EXPORTS = (("md", "Markdown table"), ("csv", "CSV"))


class RecordsRead(Message):
    """A batch of records was read, or the file cannot be read (`failure`)."""

    def __init__(self, batch: result_rows.RecordBatch, failure: str = "") -> None:
        super().__init__()
        self.batch, self.failure = batch, failure


class ResultsScreen(Screen[None]):
    """Table of records; opens one, exports them, writes reports and notes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("greater_than_sign,full_stop", "sort(1)", "Sort", key_display="< >"),
        Binding("less_than_sign,comma", "sort(-1)", show=False),
        Binding("r", "reverse", "Reverse"),
        Binding("x", "export", "Export"),
        Binding("w", "report", "Report"),
        Binding("n", "note", "Note"),
        Binding("escape", "clear", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._batch = result_rows.RecordBatch()
        self._shown: list[result_rows.ResultRow] = []
        self._column: int | None = None
        self._descending = True
        self._cursor_placed = False
        """Whether the cursor was moved by hand; otherwise it stays on the newest record."""
        self._mark: tuple[int, int] | None = None
        """Size and modification time (ns) of the file at the last reading."""

    @property
    def bench(self) -> WorkbenchApp:
        """The app, by its own type."""
        return cast("WorkbenchApp", self.app)

    @property
    def path(self) -> Path:
        """results.jsonl of the log root."""
        return self.bench.log_root / "results.jsonl"

    def compose(self) -> ComposeResult:
        """Heading, filter, table, trouble line."""
        yield TopBar("results")
        yield Heading("Results", id="results-heading")
        with Vertical(id="results-body"):
            yield Input(placeholder="words that a row must hold", compact=True, id="filter")
            yield Grid(result_rows.COLUMNS, notice="Reading records …", id="records")
        yield Static("", id="results-trouble")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Read the records."""
        self.query_one("#records", Grid).focus()
        self._check_file()
        self.set_interval(REREAD_SECONDS, self._check_file)

    def on_screen_resume(self) -> None:
        """Update the top bar and the records."""
        self.bench.show_busy_suites()
        self._check_file()

    # -- reading ---------------------------------------------------------------------------

    def _check_file(self) -> None:
        try:
            status = self.path.stat()
            mark = (status.st_size, status.st_mtime_ns)
        except OSError:
            mark = (-1, 0)
        if mark != self._mark:
            self._mark = mark
            self._read()

    @work(thread=True, exclusive=True, group="records")
    def _read(self) -> None:
        from results.records.migrations import NewerSchemaError

        try:
            for batch in result_rows.read_batches(self.path):
                self.post_message(RecordsRead(batch))
        except (NewerSchemaError, OSError) as error:
            self.post_message(RecordsRead(result_rows.RecordBatch(complete=True), str(error)))

    @on(RecordsRead)
    def _show_records(self, event: RecordsRead) -> None:
        from results.text.sanitize import clean_line

        grid, trouble = self.query_one("#records", Grid), event.failure or event.batch.trouble
        self.set_class(bool(trouble), "trouble")
        self.query_one("#results-trouble", Static).update(Text(clean_line(trouble)))
        if event.failure:
            self._batch = event.batch
            grid.show_notice("The records cannot be read; see below.", failed=True)
            return
        if not event.batch.complete and len(self._batch.rows) > len(event.batch.rows):
            return  # a second reading begins; the complete rows of the first one stay
        self._batch = event.batch
        self._paint()

    # -- showing ---------------------------------------------------------------------------

    def _paint(self) -> None:
        words = self.query_one("#filter", Input).value
        grid, heading = self.query_one("#records", Grid), self.query_one(Heading)
        self._shown = result_rows.select_rows(
            self._batch.rows, words, self._column, descending=self._descending
        )
        total, shown = len(self._batch.rows), len(self._shown)
        if self._shown:
            keys = ["/".join(r.key) for r in self._shown]
            grid.show(result_rows.distinguishing_cells(self._shown), keys)
            if not self._cursor_placed:
                grid.cursor = 0
        elif total:
            grid.show_notice("No record holds all these words. Esc clears the filter.")
        else:
            grid.show_notice("No records yet. They appear here as runs end.")
        sorted_by = "newest first" if self._column is None else self._sort_label()
        count = f"{shown:,} of {total:,}" if shown != total else f"{total:,}"
        more = "" if self._batch.complete else " · reading the rest …"
        unit = "run" if total == 1 else "runs"
        heading.remark = f"{count} {unit} · {sorted_by}{more}"

    def _sort_label(self) -> str:
        column = result_rows.COLUMNS[self._column or 0]
        return f"by {column.title}, {'falling' if self._descending else 'rising'}"

    def _sort_by(self, column: int | None) -> None:
        self._column = column
        key = "" if column is None else result_rows.COLUMNS[column].key
        self.query_one("#records", Grid).mark_sorted(key, "▾" if self._descending else "▴")
        self._paint()

    def _visible(self) -> list[int]:
        grid = self.query_one("#records", Grid)
        return [index for index, _, _ in grid.layout_columns(grid.size.width - 2)]

    # -- actions --------------------------------------------------------------------------

    def action_sort(self, by: int) -> None:
        """Sort by the next or the previous visible column."""
        order: list[int | None] = [None, *self._visible()]
        at = order.index(self._column) if self._column in order else 0
        self._sort_by(order[(at + by) % len(order)])

    def action_reverse(self) -> None:
        """Reverse the order."""
        self._descending = not self._descending
        self._sort_by(self._column if self._column is not None else 0)

    @on(Grid.HeaderChosen)
    def _header(self, event: Grid.HeaderChosen) -> None:
        index = next(i for i, c in enumerate(result_rows.COLUMNS) if c.key == event.key)
        if index == self._column:
            self._descending = not self._descending
        self._sort_by(index)

    def action_filter(self) -> None:
        """Open the filter."""
        self.add_class("filtering")
        self.query_one("#filter", Input).focus()

    def action_clear(self) -> None:
        """Close and clear the filter."""
        self.remove_class("filtering")
        self.query_one("#filter", Input).value = ""
        self.query_one("#records", Grid).focus()

    @on(Input.Changed, "#filter")
    def _typed(self) -> None:
        self._paint()

    @on(Input.Submitted, "#filter")
    def _entered(self) -> None:
        self.query_one("#records", Grid).focus()

    @on(Grid.Moved, "#records")
    def _moved(self, event: Grid.Moved) -> None:
        if event.by_hand:
            self._cursor_placed = event.row > 0

    @on(Grid.Chosen)
    def _open(self, event: Grid.Chosen) -> None:
        self.app.push_screen(RecordScreen(self.path, self._shown[event.row].key))

    def action_export(self) -> None:
        """Export the shown rows."""
        rows = list(self._shown)
        if not rows:
            self.notify("There is nothing to export.")
            return

        def on_choice(kind: str | None) -> None:
            if kind is not None:
                self._export(rows, kind)

        columns = (GridColumn("name", "", 30, grow=10),)
        names = [(name,) for _, name in EXPORTS]
        title = f"Export {len(rows):,} rows"
        self.app.push_screen(
            ChoiceDialog(title, columns, names, [key for key, _ in EXPORTS]), on_choice
        )

    @work(group="export")
    async def _export(self, rows: list[result_rows.ResultRow], kind: str) -> None:
        folder = self.bench.log_root / "exports"
        try:
            path = await asyncio.to_thread(export.write_export, rows, folder, kind)
        except OSError as error:
            self.notify(f"{folder}: {error.strerror}", title="Not written", severity="error")
            return
        self.notify(str(path), title=f"{len(rows):,} rows written")

    def action_note(self) -> None:
        """Add a note on the suite under the cursor."""
        from workbench.tui.screens import suite_notes

        cursor = self.query_one("#records", Grid).cursor
        if not 0 <= cursor < len(self._shown):
            self.notify("There is no run whose suite could take a note.")
            return
        suite_notes.add_suite_note(self.app, self.bench.log_root, self._shown[cursor].key[0])

    @work(exclusive=True, group="report")
    async def action_report(self) -> None:
        """Write the report of the suite under the cursor."""
        from results.text.sanitize import clean

        cursor = self.query_one("#records", Grid).cursor
        if not 0 <= cursor < len(self._shown):
            self.notify("There is no run whose suite could be reported.")
            return
        suite = self._shown[cursor].key[0]
        out = self.bench.log_root / suite / "report"
        self.notify(f"Writing the report of {suite} …")
        outcome = await cli_commands.run_workbench(
            cli_commands.report_arguments(suite, self.bench.log_root, out)
        )
        if outcome.code == 0:
            self.notify(str(out), title="Report written")
        else:
            reason = clean(outcome.error).strip() or f"it ended with code {outcome.code}"
            self.notify(reason, title="No report", severity="error", timeout=15)
