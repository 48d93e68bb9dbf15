"""Results screen: the last record of every run, filtered, grouped, with columns of choice."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, Static

from results.listing.views import ResultView, parse_view
from workbench.tui.screens.copying import CopyChoice
from workbench.tui.screens.record import RecordScreen
from workbench.tui.screens.results import dialogs
from workbench.tui.screens.results.actions import RunActions
from workbench.tui.system import child_process, cli_commands
from workbench.tui.view_models.results import rows
from workbench.tui.widgets.footer import Footer
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.top_bar import Heading, TopBar

if TYPE_CHECKING:
    from results.listing.run_filter import ListedRun

REREAD_SECONDS = 3.0
"""Interval of checking the files (two stat calls) for new records and notes."""
FILTER_HINT = 'since:7d  end:ok  score>.3  model:clip  lr<1e-4  -label:old  "two words"'


class RunsRead(Message):
    """A batch of runs was read, or the file cannot be read (`failure`)."""

    def __init__(self, batch: rows.RunBatch, failure: str = "") -> None:
        super().__init__()
        self.batch, self.failure = batch, failure


class ResultsScreen(RunActions):
    """Table of runs; opens one, exports them, writes reports and notes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("C", "compare", "Compare"),
        Binding("b", "predictions", "Items"),
        Binding("c", "columns", "Columns"),
        Binding("m", "metric", "Metric", show=False),
        Binding("g", "group", "Group"),
        Binding("v", "view", "Saved views", show=False),
        Binding("greater_than_sign,full_stop", "sort(1)", show=False),
        Binding("less_than_sign,comma", "sort(-1)", show=False),
        Binding("r", "reverse", "Reverse the order", show=False),
        Binding("escape", "clear", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.view = ResultView()
        self._batch = rows.RunBatch()
        self._table = rows.make_table(self._batch, self.view)
        self._folded: frozenset[str] = frozenset()
        self._cursor_placed = False
        """Whether the cursor was moved by hand; otherwise it stays on the newest record."""
        self._marks: tuple[tuple[int, int], ...] = ()
        """Size and modification time (ns) of the files at the last reading."""

    @property
    def grid(self) -> Grid:
        """The table."""
        return self.query_one("#records", Grid)

    @property
    def current(self) -> ListedRun | None:
        """See `RunActions`."""
        cursor, entries = self.grid.cursor, self._table.entries
        entry = entries[cursor] if 0 <= cursor < len(entries) else None
        return None if isinstance(entry, rows.GroupEntry) else entry

    def copy_choices(self) -> list[CopyChoice]:
        """Folder and commands of the run under the cursor, and of the marked ones."""
        if (run := self.current) is None:
            return []
        name, root = "/".join(run.summary.key), self.bench.log_root
        marked = ["/".join(key) for key in self.marked]
        commands = [cli_commands.show_arguments(name, root)]
        commands += [cli_commands.compare_arguments(marked, root)] if len(marked) > 1 else []
        return [
            *(CopyChoice("command", cli_commands.command_line(words)) for words in commands),
            CopyChoice("folder", str(root / run.summary.folder)),
            CopyChoice("name", name),
        ]

    def exported_table(self) -> rows.ResultTable:
        """The marked runs, else the shown ones."""
        if not self.marked:
            return self._table
        marked = [run for run in self._batch.runs if run.summary.key in self.marked]
        return self._table._replace(entries=list[rows.Entry](marked))

    def read_again(self) -> None:
        """See `RunActions`."""
        self._check_files()

    def footer_titles(self) -> Mapping[str, str]:
        """Keys of the row under the cursor and of the marks, then those of the list."""
        entries = self._table.entries
        if not entries:
            back = {"clear": "Show all"} if self.view.filter else {}
            return {**back, "filter": "Filter", "palette": "Commands", "log_root": "Log root"}
        run = self.current
        titles = {"choose": "Open" if run is not None else "Fold"}
        if run is not None:
            titles["mark_row"] = "Unmark" if run.summary.key in self.marked else "Mark"
        if len(self.marked) > 1:
            titles = {"compare": f"Compare {len(self.marked)}", **titles}
        if self.view.filter:
            titles["clear"] = "Show all"
        shown = {
            **titles, "filter": "Filter", "predictions": "Items", "columns": "Columns",
            "sort(1)": "Sort", "group": "Group", "metric": "Metric", "view": "Views",
            "report": "Report", "export": "Export", "compare": titles.get("compare", "Compare"),
            "copy": "Copy", "palette": "Commands", "note": "Note", "trash": "Trash",
            "jump": "Jump", "log_root": "Log root",
        }  # fmt: skip
        of_a_run = {"predictions", "note", "trash", *(() if self.marked else ("report",))}
        return shown if run is not None else {k: v for k, v in shown.items() if k not in of_a_run}

    def compose(self) -> ComposeResult:
        """Heading, filter, table, trouble line."""
        yield TopBar("results")
        yield Heading("Results", id="results-heading")
        with Vertical(id="results-body"):
            yield Input(placeholder=FILTER_HINT, compact=True, id="filter")
            yield Grid((rows.MARK,), notice="Reading records …", id="records")
        yield Static("", id="results-trouble")
        yield Footer()

    def on_mount(self) -> None:
        """Read the records; the last view is shown, without its filter."""
        self.grid.focus()
        self.view = replace(parse_view(self.bench.memory.get("results")), filter="")
        self._check_files()
        self.set_interval(REREAD_SECONDS, self._check_files)

    def on_screen_resume(self) -> None:
        """Update the top bar and the records."""
        self.bench.show_busy_suites()
        self._check_files()

    # -- reading ---------------------------------------------------------------------------

    def _check_files(self) -> None:
        marks = tuple(_stat_mark(self.path.with_name(n)) for n in ("results.jsonl", "notes.jsonl"))
        if marks != self._marks:
            self._marks = marks
            self._read()

    @work(exclusive=True, group="records")
    async def _read(self) -> None:
        from results.records.migrations import NewerSchemaError
        from workbench.reporting.run_listing import index_cache

        try:
            cache = await asyncio.to_thread(index_cache, self.path, self.bench.cache_root)
            if not await asyncio.to_thread(rows.is_indexed, self.path, cache):
                await self._index(cache)
            batch = await asyncio.to_thread(rows.read_all, self.path, cache)
            self.post_message(RunsRead(batch))
        except (NewerSchemaError, OSError) as error:
            self.post_message(RunsRead(rows.RunBatch(complete=True), str(error)))

    async def _index(self, cache: Path) -> None:
        """Show the newest runs while another process parses all: it would take this one's turns."""
        if (batch := await asyncio.to_thread(rows.read_newest, self.path)) is not None:
            self.post_message(RunsRead(batch))
        arguments = [sys.executable, "-m", "results.listing.index", str(self.path), str(cache)]
        with contextlib.suppress(child_process.ChildError):  # what is wrong shows when it is read
            async for _ in child_process.read_messages(arguments):
                pass

    @on(RunsRead)
    def _show_records(self, event: RunsRead) -> None:
        if event.failure:
            self._batch = event.batch
            self._show_trouble(event.failure)
            self.grid.show_notice("The records cannot be read; see below.", failed=True)
            return
        if not event.batch.complete and len(self._batch.runs) > len(event.batch.runs):
            return  # a second reading begins; the complete runs of the first one stay
        self._batch = event.batch
        self._paint()

    def _show_trouble(self, sentence: str) -> None:
        from results.text.sanitize import clean_line

        self.set_class(bool(sentence), "trouble")
        self.query_one("#results-trouble", Static).update(Text(clean_line(sentence)))

    # -- showing ---------------------------------------------------------------------------

    def show_view(self, view: ResultView) -> None:
        """Show the runs in another view."""
        self.view = view
        box = self.query_one("#filter", Input)
        if box.value != view.filter:
            with self.prevent(Input.Changed):
                box.value = view.filter
        self.set_class(bool(view.filter) or box.has_focus, "filtering")
        self.bench.remember("results", replace(view, filter="").as_table())
        self._paint()

    def _paint(self) -> None:
        self._table = table = rows.make_table(self._batch, self.view, self._folded)
        grid = self.grid
        grid.mark_sorted(self.view.sort, "▾" if self.view.descending else "▴")
        grid.set_columns((rows.MARK, *(column.grid for column in table.columns)))
        if table.entries:
            keys = [rows.entry_key(entry) for entry in table.entries]
            grid.show(rows.TableRows(table, self.marked, self.view.group), keys)
            if not self._cursor_placed:
                grid.cursor = 0
        elif self._batch.runs:
            grid.show_notice("No run fits this filter. Esc clears it; ? has its language.")
        elif self._batch.complete:
            grid.show_notice(
                "No records yet. They appear here as runs end: 1, then F5 starts some."
            )
        self._show_trouble(table.problem or self._batch.trouble)
        self.query_one(Heading).remark = self._describe()
        self.update_footer()

    def _describe(self) -> str:
        """`18 of 500 runs · newest first · 7 not started (end:never) · recall@1 on emoji_val`."""
        table, total = self._table, len(self._batch.runs)
        count = f"{table.shown:,} of {total:,}" if table.shown != total else f"{total:,}"
        parts = [f"{count} run" + ("" if total == 1 else "s"), self._sort_label()]
        if table.never_started:
            parts.append(f"{table.never_started:,} not started (end:never)")
        if self.marked:
            parts.append(f"{len(self.marked)} marked")
        if metric := self._table.scale.metric:
            name, _, split = metric.rpartition("@")
            parts.append(f"{name} on {split}")
        return " · ".join(parts) + ("" if self._batch.complete else " · reading the rest …")

    def _sort_label(self) -> str:
        if not self.view.sort:
            return "newest first"
        titles = {column.grid.key: column.grid.title for column in self._table.columns}
        title = {"interval": "score"}.get(self.view.sort) or titles.get(self.view.sort)
        return f"by {title or self.view.sort}, {'falling' if self.view.descending else 'rising'}"

    # -- actions --------------------------------------------------------------------------

    def action_sort(self, by: int) -> None:
        """Sort by the next or the previous visible column."""
        layout = self.grid.layout_columns(self.grid.size.width - 2)
        order = ["", *(column.key for _, column, _ in layout if column.key != "mark")]
        at = order.index(self.view.sort) if self.view.sort in order else 0
        self.show_view(replace(self.view, sort=order[(at + by) % len(order)]))

    def action_reverse(self) -> None:
        """Reverse the order."""
        turned = replace(self.view, descending=not self.view.descending)
        self.show_view(replace(turned, sort=turned.sort or "when"))

    @on(Grid.HeaderChosen)
    def _header(self, event: Grid.HeaderChosen) -> None:
        if event.key == self.view.sort:
            self.action_reverse()
        elif event.key != "mark":
            self.show_view(replace(self.view, sort=event.key))

    def action_filter(self) -> None:
        """Open the filter."""
        self.add_class("filtering")
        self.query_one("#filter", Input).focus()

    def action_clear(self) -> None:
        """Close and clear the filter; a second time, the marks."""
        if not self.view.filter and self.grid.has_focus:
            self.marked.clear()
        self.grid.focus()
        self.show_view(replace(self.view, filter=""))
        self.remove_class("filtering")

    @on(Input.Changed, "#filter")
    def _typed(self, event: Input.Changed) -> None:
        self.show_view(replace(self.view, filter=event.value))

    @on(Input.Submitted, "#filter")
    def _entered(self) -> None:
        self.grid.focus()

    def action_columns(self) -> None:
        """Choose the columns."""

        def on_choice(keys: tuple[str, ...] | None) -> None:
            if keys is not None:
                self.show_view(replace(self.view, columns=keys))

        shown = [column.grid.key for column in self._table.columns]
        self.app.push_screen(dialogs.ColumnsDialog(shown, list(self._batch.names)), on_choice)

    def action_metric(self) -> None:
        """Choose metric and split of the score."""
        dialogs.choose_metric(
            self.bench, self._batch, self.view.metric,
            lambda key: self.show_view(replace(self.view, metric=key)),
        )  # fmt: skip

    def action_group(self) -> None:
        """Group by the next thing: suite, label, subset, model, nothing."""
        self._folded = frozenset()
        self.show_view(self.view.turn_group())

    def action_view(self) -> None:
        """Choose or save a view."""
        dialogs.choose_view(self.bench, self.bench.views_file, self.view, self.show_view)

    @on(Grid.Moved, "#records")
    def _moved(self, event: Grid.Moved) -> None:
        if event.by_hand:
            self._cursor_placed = event.row > 0
        self.update_footer()

    def on_descendant_focus(self) -> None:
        """Show the keys of the part that has the focus."""
        self.update_footer()

    @on(Grid.Chosen, "#records")
    def _open(self, event: Grid.Chosen) -> None:
        entry = self._table.entries[event.row]
        if isinstance(entry, rows.GroupEntry):
            self._folded ^= {entry.name}
            self._paint()
        else:
            run = entry.summary
            self.app.push_screen(RecordScreen(self.path, run.key, run.offset))

    @on(Grid.Toggled, "#records")
    def _toggled(self) -> None:
        if (run := self.current) is None:
            return
        key = run.summary.key
        if key in self.marked:
            self.marked.remove(key)
        elif len(self.marked) == len(rows.LETTERS):
            self.notify(f"{len(rows.LETTERS)} runs are marked; Space on one of them frees it.")
            return
        else:
            self.marked.append(key)
        self._paint()

    def action_predictions(self) -> None:
        """Browse single items of the run under the cursor."""
        from workbench.tui.screens.results.predictions import PredictionsScreen

        if (run := self.current) is None:
            self.notify("There is no run under the cursor.")
        else:
            self.app.push_screen(PredictionsScreen("/".join(run.summary.key)))

    def action_compare(self) -> None:
        """Compare the marked runs with the first of them."""
        from workbench.tui.screens.results.compare import CompareScreen

        runs = {run.summary.key: run for run in self._batch.runs}
        marked = [runs[key] for key in self.marked if key in runs]
        if len(marked) < 2:
            self.notify("Mark two to four runs with Space, then press C.")
            return
        self.app.push_screen(CompareScreen(marked))


def _stat_mark(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns
