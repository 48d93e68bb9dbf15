"""Panels of one run on the Live screen: charts, header, log and metrics, now or at a moment.

A cursor in the charts scrubs through the run: all panels show its state at that moment, reduced
from its journal. Marked runs are drawn beside it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, cast

from textual import on, work
from textual.binding import Binding, BindingType

from workbench.suites import quantities as q
from workbench.tui.screens.footer_keys import FooterKeys
from workbench.tui.screens.live import dialogs as live_dialogs
from workbench.tui.system import idle_loop
from workbench.tui.view_models.live import lines as live_lines
from workbench.tui.view_models.live import rows as live_rows
from workbench.tui.view_models.live.charts import parse_options
from workbench.tui.view_models.live.history import RunHistory, read_history
from workbench.tui.widgets.charts.chart_panel import ChartPanel
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.log_pane import LogPane
from workbench.tui.widgets.run_header import RunHeader
from workbench.tui.widgets.top_bar import Heading

if TYPE_CHECKING:
    from workbench.suites.state import RunView
    from workbench.tui.app import WorkbenchApp
    from workbench.tui.view_models.suite_feed import SuiteSnapshot

LETTERS: Final = "ABCD"
"""Runs that are drawn beside each other."""


class RunPanels(FooterKeys):
    """A screen with a queue of runs and panels of the one under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "chart('log')", show=False),
        Binding("e", "chart('smooth')", show=False),
        Binding("z", "chart('zoom')", show=False),
        Binding("x", "chart('x')", show=False),
        Binding("left", "chart('left')", show=False),
        Binding("right", "chart('right')", show=False),
        Binding("shift+left", "chart('back')", show=False),
        Binding("shift+right", "chart('ahead')", show=False),
        Binding("escape", "chart('plain')", show=False),
        Binding("m", "curve", show=False),
        Binding("plus", "reference", show=False),
        Binding("slash", "log('find')", show=False),
        Binding("n", "log('next')", show=False),
        Binding("N", "log('previous')", show=False),
        Binding("w", "log('wrap')", show=False),
    ]

    def __init__(self, *, classes: str) -> None:
        super().__init__(classes=classes)
        self.snapshot: SuiteSnapshot | None = None
        self.folder: Path | None = None
        self.marked: list[str] = []
        """Ids of the runs that are drawn beside each other, in the order of their marks."""
        self._history = RunHistory("")
        """States of the run through which the cursor of the charts moves."""
        self._wanted_history = ""
        """Id of the run whose history is being read."""

    @property
    def bench(self) -> WorkbenchApp:
        """The app, by its own type."""
        return cast("WorkbenchApp", self.app)

    @property
    def view(self) -> RunView | None:
        """The run under the cursor."""
        if self.snapshot is None:
            return None
        key = self.query_one("#queue", Grid).key
        return next((r for r in self.snapshot.suite.runs if r.spec.run_id == key), None)

    @property
    def letters(self) -> dict[str, str]:
        """Run id -> letter of the marked runs."""
        return dict(zip(self.marked, LETTERS, strict=False))

    def paint_run(self) -> None:
        """Show the run under the cursor, at the moment of the charts' cursor if there is one."""
        view = self.view
        suite = self.snapshot.suite if self.snapshot else None
        views = {run.spec.run_id: run for run in suite.runs} if suite else {}
        marked = {letter: views[key] for key, letter in self.letters.items() if key in views}
        panel = self.query_one(ChartPanel)
        panel.show(view, marked)
        order = live_rows.describe_pending(suite, view) if suite and view else ""
        scrubbed = self._scrub(view, panel.moment)
        self.query_one(RunHeader).show(scrubbed or view, "" if scrubbed else order)
        run = (scrubbed or view).state if view and (scrubbed or view) else None
        if self.snapshot is not None and view is not None:
            self._paint_log(view, scrubbed)
        rows, metrics = live_rows.metric_rows(run), self.query_one("#metrics", Grid)
        if rows:
            metrics.show(rows)
        elif metrics.rows or metrics.notice != live_rows.describe_no_metrics(run):
            metrics.show_notice(live_rows.describe_no_metrics(run))
        self.query_one("#metrics-heading", Heading).remark = str(len(rows)) if rows else ""

    def _paint_log(self, view: RunView, scrubbed: RunView | None) -> None:
        pane = self.query_one(LogPane)
        pane.show_moment(q.clock(scrubbed.state.t) if scrubbed else "")
        if scrubbed is not None:
            pane.show(live_lines.event_lines(scrubbed.state), "Nothing had happened yet.")
            return
        empty = "The run has not started." if view.state.status == "queued" else "No output."
        same = self.snapshot is not None and self.snapshot.watched == view.spec.run_id
        log = self.snapshot.log if same and self.snapshot else ()
        log = log or (live_lines.event_lines(view.state) if same else ())
        pane.show(log, empty if same else "Reading the log …")

    # -- scrubbing -------------------------------------------------------------------------

    def _scrub(self, view: RunView | None, moment: float | None) -> RunView | None:
        """The run at the moment of the cursor; None: without a cursor, or not read yet."""
        if view is None or moment is None:
            return None
        history, run_id = self._history, view.spec.run_id
        grown = view.state.status != "ended" and moment > history.end
        if (history.run_id != run_id or grown) and self._wanted_history != run_id:
            self._wanted_history = run_id
            self._read_history(run_id, view.folder)
        past = history.find_state(moment) if history.run_id == run_id else None
        return replace(view, state=past) if past else None

    @work(group="history")
    async def _read_history(self, run_id: str, name: str) -> None:
        if self.folder is None:
            return
        run, before = self.folder / "runs" / name, self._history
        try:
            history = await asyncio.to_thread(read_history, run, run_id, idle_loop.give_way)
        except OSError as error:
            self.notify(f"{run}: {error.strerror}", title="Not readable", severity="error")
            return
        if self._wanted_history != run_id:
            return  # another run is looked at meanwhile
        self._wanted_history = ""
        if (history.run_id, history.end) != (before.run_id, before.end):
            self._history = history
            self.paint_run()

    def show_time(self) -> None:
        """Show the suite's heading anew."""

    def forget_run(self) -> None:
        """Another suite is opened: no run is marked, none is scrubbed."""
        self.marked, self._history, self._wanted_history = [], RunHistory(""), ""

    def restore_charts(self) -> None:
        """Take the options of the charts that were left."""
        self.query_one(ChartPanel).options = parse_options(self.bench.memory.get("live"))

    # -- actions ---------------------------------------------------------------------------

    @on(Grid.Toggled, "#queue")
    def _mark(self, event: Grid.Toggled) -> None:
        key = event.grid.key
        if key is None or self.snapshot is None:
            return
        if key in self.marked:
            self.marked.remove(key)
        elif len(self.marked) == len(LETTERS):
            self.notify(f"{len(LETTERS)} runs are marked; Space on one of them frees it.")
            return
        else:
            self.marked.append(key)
        rows, keys = live_rows.queue_rows(self.snapshot.suite, self.letters)
        event.grid.show(rows, keys)
        self.paint_run()

    def action_chart(self, change: str) -> None:
        """Change the charts: log, smooth, zoom, x axis, or move the cursor."""
        if change == "plain" and self.query_one(LogPane).leave_search():
            return
        panel = self.query_one(ChartPanel)
        panel.change(change)
        self.paint_run()
        self._remember_charts()

    def _remember_charts(self) -> None:
        self.bench.remember("live", self.query_one(ChartPanel).options.as_table())

    def action_curve(self) -> None:
        """Choose the curve of the chart that is shown alone, else of the first one."""
        panel = self.query_one(ChartPanel)
        live_dialogs.ask_curve(self.bench, panel, self.view, self._remember_charts)

    def action_reference(self) -> None:
        """Choose an earlier run whose curves are drawn behind; the same key takes them away."""
        panel = self.query_one(ChartPanel)
        if panel.options.reference_title:
            panel.set_reference(None)
            self.show_time()
        elif (view := self.view) is not None and self.folder is not None:
            live_dialogs.ask_reference(self.bench, panel, self.folder, view, self.show_time)

    def action_log(self, change: str) -> None:
        """Wrap the log, find words in it, go to a match."""
        self.query_one(LogPane).change(change)
