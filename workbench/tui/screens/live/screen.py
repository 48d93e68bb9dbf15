"""Live screen: state of one suite, and control actions on it.

A thread polls the suite (`suite_feed`) and posts one frozen snapshot at a time, every three
seconds; the widgets repaint what differs. Control actions append a command to control.jsonl.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Static

from results.text.sanitize import clean_line
from workbench.tui.screens.dialogs import ChoiceDialog, MessageDialog
from workbench.tui.screens.live import dialogs as live_dialogs
from workbench.tui.screens.live import footers
from workbench.tui.screens.live.run_panels import RunPanels
from workbench.tui.system import cli_commands, idle_loop
from workbench.tui.view_models import control_actions, suite_feed
from workbench.tui.view_models.live import rows as live_rows
from workbench.tui.widgets.charts.chart_panel import ChartPanel
from workbench.tui.widgets.footer import Footer
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.log_pane import LogPane
from workbench.tui.widgets.log_tail import LogTail
from workbench.tui.widgets.run_header import RunHeader
from workbench.tui.widgets.top_bar import Heading, TopBar

CLOCK_SECONDS = 3.0
"""Interval of the suite's clock if nothing else changes."""


class SnapshotTaken(Message):
    """A new snapshot of the suite."""

    def __init__(self, snapshot: suite_feed.SuiteSnapshot) -> None:
        super().__init__()
        self.snapshot = snapshot


class FeedFailed(Message):
    """The suite cannot be read."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__()
        self.folder, self.reason = folder, reason


class LiveScreen(RunPanels):
    """Shows the queue of a suite and charts, log and metrics of one run."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "suites", "Suites"),
        Binding("left_square_bracket", "step(1)", show=False),
        Binding("right_square_bracket", "step(-1)", show=False),
        Binding("f", "follow", show=False),
        Binding("s", "steer('stop')", "Stop"),
        Binding("k", "steer('skip')", "Skip"),
        Binding("c", "steer('cancel')", "Cancel"),
        Binding("u", "steer('restore')", show=False),
        Binding("p", "steer('pause')", "Pause"),
        Binding("r", "steer('resume')", show=False),
        Binding("v", "view", "Metrics"),
        Binding("L", "full_log", show=False),
        Binding("a", "attempt", show=False),
        Binding("A", "audit", show=False),
        Binding("E", "experiment", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(classes="view-log")
        self._feed: suite_feed.SuiteFeed | None = None
        self._watched: str | None = None
        """Run id chosen by hand; None: follow the current run."""
        self._recovered: set[Path] = set()
        """Suites without a warden for which `workbench ps` was run."""
        self._queued = -1
        self._trouble = ""
        self._suite_ended = False
        """Whether the shown suite has ended; then only `resume` is offered."""
        self._painted_event = threading.Event()
        self._stop_event = threading.Event()
        self._wake_event = threading.Event()
        """Set: the next snapshot is read at once."""

    def footer_titles(self) -> Mapping[str, str]:
        """What can be ordered now, then keys of the run under the cursor."""
        suite = None if self._is_reading_ended or not self.snapshot else self.snapshot.suite
        return footers.list_titles(suite, self.view if self.is_mounted else None)

    @property
    def _is_reading_ended(self) -> bool:
        """Whether the suite has ended, and what became of its runs is still being read."""
        return self.snapshot is not None and self.snapshot.behind and self.snapshot.suite.ended

    def compose(self) -> ComposeResult:
        """Suite, queue, run, charts, log and metrics."""
        yield TopBar("live")
        yield Heading("", id="suite-line")
        with Vertical(id="live-body"):
            yield Grid(live_rows.QUEUE, notice="Loading suites …", id="queue")
            yield RunHeader()
            yield ChartPanel(id="charts")
            with Horizontal(id="live-bottom"):
                yield LogPane(id="live-log")
                with Vertical(id="live-metrics"):
                    yield Heading("Metrics", id="metrics-heading")
                    yield Grid(
                        live_rows.METRICS, header=False, notice="No metrics yet.", id="metrics"
                    )
        yield Static("", id="live-trouble")
        yield Footer()

    def on_mount(self) -> None:
        """Open the chosen suite, or the first one; charts are as they were left."""
        self.restore_charts()
        self.query_one("#queue", Grid).focus()
        self.suites_changed()
        self.set_interval(CLOCK_SECONDS, self.show_time)

    def on_screen_resume(self) -> None:
        """Open another suite if another screen has chosen one."""
        self.bench.show_busy_suites()
        self.suites_changed()

    def on_unmount(self) -> None:
        """Stop the thread."""
        self._stop_event.set()
        self._wake_event.set()

    # -- which suite -----------------------------------------------------------------------

    def suites_changed(self) -> None:
        """Open the chosen suite after a change of the list or of the choice."""
        if not self.is_mounted:
            return  # `on_mount` calls it again
        suites = self.bench.suites
        folder = self.bench.chosen_suite
        if folder is None and suites:
            folder = self.folder or suites[0].folder
        if folder is None:
            if suites is not None:
                self._show_empty()
            return
        if folder != self.folder:
            self._open(folder)

    def _show_empty(self) -> None:
        self.query_one("#queue", Grid).show_notice(
            "No suite yet. Press 1, choose what to run, and F5 starts it."
        )
        self.add_class("empty")

    def _open(self, folder: Path) -> None:
        self._stop_event.set()
        self._wake_event.set()
        self._stop_event, self._painted_event = threading.Event(), threading.Event()
        self._wake_event = threading.Event()
        self.folder, self.snapshot, self._watched = folder, None, None
        self.forget_run()
        self.remove_class("empty", "failed")
        self.query_one("#suite-line", Heading).title = live_rows.short_name(folder.name)
        self.query_one("#queue", Grid).show_notice("Reading the suite …")
        self._feed_snapshots(folder, self._stop_event, self._painted_event, self._wake_event)

    @work(thread=True, group="feed")
    def _feed_snapshots(
        self,
        folder: Path,
        stopped: threading.Event,
        painted: threading.Event,
        wake: threading.Event,
    ) -> None:
        painted.set()
        idle_loop.freeze_objects()

        def wait(seconds: float) -> bool:
            wake.wait(seconds)
            wake.clear()
            return stopped.is_set()

        def deliver(snapshot: suite_feed.SuiteSnapshot) -> bool:
            if not painted.is_set() or not self.is_running:
                return False  # the previous snapshot is not painted yet
            painted.clear()
            self.post_message(SnapshotTaken(snapshot))
            return True

        try:
            source = self._feed = suite_feed.SuiteFeed(folder, idle_loop.give_way)
            suite_feed.poll_feed(source, lambda: self._watched, deliver, wait)
        except (OSError, ValueError) as error:
            self.post_message(FeedFailed(folder, str(error)))

    @on(FeedFailed)
    def _failed(self, event: FeedFailed) -> None:
        if event.folder == self.folder:
            self.add_class("failed")
            reason = clean_line(event.reason)
            self.query_one("#queue", Grid).show_notice(
                f"This suite cannot be read: {reason}", failed=True
            )

    # -- painting --------------------------------------------------------------------------

    @on(SnapshotTaken)
    def _show(self, event: SnapshotTaken) -> None:
        self._painted_event.set()
        if event.snapshot.folder != self.folder:
            return
        self.snapshot = event.snapshot
        if self.snapshot.suite.ended != self._suite_ended:
            self._suite_ended = self.snapshot.suite.ended
            self.refresh_bindings()
        rows, keys = live_rows.queue_rows(self.snapshot.suite, self.letters)
        grid = self.query_one("#queue", Grid)
        if len(rows) != self._queued:  # setting a height lays out the whole screen again
            self._queued = len(rows)
            grid.styles.height = len(rows) + 1
        if rows:
            grid.show(rows, keys)
        else:
            grid.show_notice("This suite has no runs.")
        if self._watched is None and self.snapshot.watched in keys:
            grid.cursor = keys.index(self.snapshot.watched)
        self.paint_run()
        self.show_time()
        self.update_footer()

    def show_time(self) -> None:
        """Show the clock of the suite, and its trouble if there is any."""
        if self.snapshot is None:
            return
        suite = self.snapshot.suite
        line = self.query_one("#suite-line", Heading)
        words = live_rows.suite_line(suite, time.time()) if not self._is_reading_ended else ()
        behind = self.query_one(ChartPanel).options.reference_title
        line.title = live_rows.short_name(suite.name) + (f"  behind: {behind}" if behind else "")
        reading = "reading on …" if self.snapshot.behind else ""
        line.remark = " · ".join(filter(None, (reading, *words)))
        if suite.warden == "lost":
            self._end_dead_runs(self.snapshot)
        trouble = live_rows.format_trouble(suite, self.snapshot.bad_lines)
        if trouble != self._trouble:  # as above
            self._trouble = trouble
            self.set_class(bool(trouble), "trouble")
            self.query_one("#live-trouble", Static).update(Text(trouble))

    def _end_dead_runs(self, snapshot: suite_feed.SuiteSnapshot) -> None:
        """Run `workbench ps` once for a lost suite, which writes the ends of its runs."""
        open_runs = any(r.state.status != "ended" for r in snapshot.suite.runs)
        if open_runs and snapshot.folder not in self._recovered:
            self._recovered.add(snapshot.folder)
            self._run_ps()

    @work(group="ps")
    async def _run_ps(self) -> None:
        await cli_commands.run_workbench(cli_commands.ps_arguments(self.bench.log_root))

    @on(Grid.Moved, "#queue")
    def _moved(self, event: Grid.Moved) -> None:
        if event.by_hand:
            self._watched = event.grid.key
            self._wake_event.set()
            self.paint_run()
            self.update_footer()

    def on_descendant_focus(self) -> None:
        """Show the keys of the part that has the focus."""
        self.update_footer()

    # -- actions --------------------------------------------------------------------------

    @on(Grid.Chosen, "#queue")
    def _open_run(self) -> None:
        """Show all that is known of how the run goes: failure, order, notices."""
        if (view := self.view) is not None and self.snapshot is not None:
            title, text = live_rows.describe_run(self.snapshot.suite, view)
            self.app.push_screen(MessageDialog(title, text))

    def action_follow(self) -> None:
        """Follow the current run."""
        self._watched = None
        if self.snapshot is not None:
            run_id = suite_feed.default_run(self.snapshot.suite)
            grid = self.query_one("#queue", Grid)
            if run_id in grid.keys:
                grid.cursor = list(grid.keys).index(run_id)
            self.paint_run()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable `v` on narrow screens only, and only `resume` for an ended suite."""
        if action == "steer" and self._suite_ended:
            return parameters in (("resume",), ("restore",))
        return action != "view" or self.has_class("-narrow")

    def action_view(self) -> None:
        """Toggle log and metrics on a narrow screen."""
        self.toggle_class("view-log", "view-metrics")

    def action_full_log(self) -> None:
        """Show the log alone, with its last MiB, or everything again."""
        self.toggle_class("full-log")
        if self._feed is not None:
            self._feed.read_more(full=self.has_class("full-log"))
        self._wake_event.set()
        self.query_one(LogTail).focus()

    def action_attempt(self) -> None:
        """Show the log of the attempt before; after the first the last one again."""
        if self._feed is not None and self.view is not None:
            attempts = max(1, self.view.state.attempt)
            self.query_one(LogPane).show_attempt(self._feed.step_attempt(attempts), attempts)
            self._wake_event.set()

    def action_audit(self) -> None:
        """Show the faults of the run, with evidence and remedy."""
        if self.folder is not None and (view := self.view) is not None:
            live_dialogs.show_audit(self.bench, f"{self.folder.name}/{view.spec.run_id}")

    def action_experiment(self) -> None:
        """Choose a small experiment that tells what ails the run, and start it."""
        if self.folder is not None and (view := self.view) is not None:
            live_dialogs.ask_experiment(self.bench, f"{self.folder.name}/{view.spec.run_id}")

    def action_suites(self) -> None:
        """Choose a suite."""
        suites = self.bench.suites or ()
        here = self.folder.name if self.folder else ""

        def on_choice(chosen: str | None) -> None:
            if chosen is not None:
                self.bench.chosen_suite = self.bench.log_root / chosen
                self.suites_changed()

        keys = [s.name for s in suites]
        rows = live_rows.suite_rows(suites)
        empty = "Reading the suites …" if self.bench.suites is None else "No suite yet."
        dialog = ChoiceDialog("Suites", live_rows.SUITES, rows, keys, here=here, empty=empty)
        self.app.push_screen(dialog, on_choice)

    def action_step(self, by: int) -> None:
        """Open the previous or the next suite of the list."""
        folders = [s.folder for s in self.bench.suites or ()]
        if self.folder in folders:
            index = folders.index(self.folder) + by
            self.bench.chosen_suite = folders[max(0, min(index, len(folders) - 1))]
            self.suites_changed()

    def action_steer(self, do: control_actions.ControlAction) -> None:
        """Ask for confirmation, then send the command."""
        if self.snapshot is not None:
            wake = self._wake_event.set
            live_dialogs.ask_action(self.bench, do, self.snapshot, self.view, wake)
