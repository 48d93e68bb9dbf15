"""The Textual app, opened by `workbench` without a command.

Of slow modules only Textual is imported at module scope: the first frame is painted before
pydantic, the protocol or a catalog is loaded. The app holds the modes and the state that several
screens share.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final
from weakref import WeakKeyDictionary

from textual import events, on, work
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widget import Widget

from results.text.sanitize import clean
from workbench import paths
from workbench.tui.screens.app_commands import AppCommands
from workbench.tui.screens.plan.screen import PlanScreen
from workbench.tui.system import idle_loop
from workbench.tui.system.terminal_driver import TerminalDriver
from workbench.tui.widgets.top_bar import ModeChosen, TopBar

if TYPE_CHECKING:
    from textual.await_complete import AwaitComplete
    from textual.notifications import SeverityLevel
    from textual.widget import AwaitMount

    from workbench.tui.view_models.suite_feed import SuiteEntry

MIN_SIZE: Final = (80, 24)
"""Columns and rows that the screens need."""
SERVED: Final = "TEXTUAL_DRIVER"
"""Set by textual-serve, whose driver then paints a page instead of a terminal."""
RESIZE_SECONDS: Final = 0.1
"""From a resize to the check of the focus."""


def is_displayed(widget: Widget) -> bool:
    """Whether neither the widget nor what holds it is hidden."""
    nodes = (node for node in widget.ancestors_with_self if isinstance(node, Widget))
    return all(node.display for node in nodes)


class SuitesRead(Message):
    """The list of suites has changed."""

    def __init__(self, suites: tuple[SuiteEntry, ...]) -> None:
        super().__init__()
        self.suites = suites


class SmallPaneRead(Message):
    """What a small pane shows was read."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__()
        self.lines = lines


def _make_live_screen() -> Screen[None]:
    from workbench.tui.screens.live.screen import LiveScreen

    return LiveScreen()


def _make_results_screen() -> Screen[None]:
    from workbench.tui.screens.results.screen import ResultsScreen

    return ResultsScreen()


def _make_data_screen() -> Screen[None]:
    from workbench.tui.screens.data import DataScreen

    return DataScreen()


class WorkbenchApp(AppCommands):
    """Four screens over one log root."""

    CSS_PATH = "workbench.tcss"
    TITLE = "workbench"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - Textual declares it
        (0, "-tiny"), (80, "-narrow"), (110, "-medium"), (160, "-wide"),
    ]  # fmt: skip
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012 - Textual declares it
        (0, "-low"), (24, "-usual"), (40, "-tall"),
    ]  # fmt: skip
    MODES = {  # noqa: RUF012 - Textual declares it
        "plan": PlanScreen,
        "live": _make_live_screen,
        "results": _make_results_screen,
        "data": _make_data_screen,
    }
    DEFAULT_MODE = "plan"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "switch_mode('plan')", "Plan", show=False),
        Binding("2", "switch_mode('live')", "Live", show=False),
        Binding("3", "switch_mode('results')", "Results", show=False),
        Binding("4", "switch_mode('data')", "Data", show=False),
        Binding("f1", "switch_mode('plan')", show=False, priority=True),
        Binding("f2", "switch_mode('live')", show=False, priority=True),
        Binding("f3", "switch_mode('results')", show=False, priority=True),
        Binding("f4", "switch_mode('data')", show=False, priority=True),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+s", "picture", show=False, priority=True),
        Binding("ctrl+q,ctrl+c", "quit", show=False, priority=True),
    ]

    def __init__(self, log_root: Path, cache_root: Path) -> None:
        # Under NO_COLOR the terminal's own two colours are used: Textual then sends none at all.
        own_colors = True if "NO_COLOR" in os.environ else None
        driver = None if SERVED in os.environ else TerminalDriver
        super().__init__(log_root, cache_root, driver_class=driver, ansi_color=own_colors)
        self.suites: tuple[SuiteEntry, ...] | None = None
        """None before they are read for the first time."""
        self.chosen_suite: Path | None = None
        """Suite of the Live screen; None: the first of `suites`."""
        self._stop_event = threading.Event()
        self._wake_event = threading.Event()
        """Lets the thread read at once."""
        self._focus_memory: WeakKeyDictionary[Screen[Any], Widget] = WeakKeyDictionary()

    @property
    def views_file(self) -> Path:
        """File of the saved views of the Results screen."""
        return paths.config_root() / "views.json"

    def on_resize(self) -> None:
        """Repaint everything.

        A window that changed its size and back has lost its content, and Textual, which compares
        sizes only, would not repaint it.
        """
        self.screen.refresh()
        # The screen takes its classes of the new size, which hide and show, after this event.
        self.set_timer(RESIZE_SECONDS, self.restore_focus)
        if self.is_small:
            self._wake_event.set()

    def switch_mode(self, mode: str) -> AwaitMount:
        """Open a screen; a hidden widget of it gets no focus."""
        mounted = super().switch_mode(mode)
        self.call_after_refresh(self.restore_focus)
        if self.is_small:
            self.call_after_refresh(self._wake_event.set)
        return mounted

    async def on_event(self, event: events.Event) -> None:
        """Before a key: see that no hidden widget gets it."""
        if isinstance(event, events.Key):
            self.restore_focus()
            self.translate_key(event)
        await super().on_event(event)

    @work(exclusive=True, group="subset")
    async def show_subset(self, name: str) -> None:
        """Show a subset on the Data screen."""
        from workbench.tui.screens.data import DataScreen

        await self.switch_mode("data")
        if isinstance(self.screen, DataScreen):
            self.screen.show_subset(name)

    @work(exclusive=True, group="subset")
    async def show_record(self, subset: str, item: str) -> None:
        """Show the record of a subset that an item of a score file is, on the Data screen."""
        from workbench.tui.screens.data import DataScreen
        from workbench.tui.screens.record_browser import RecordBrowser

        await self.switch_mode("data")
        if isinstance(self.screen, DataScreen):
            self.screen.show_subset(subset)
            await self.push_screen(RecordBrowser(subset, (item,)))

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Remember where the focus of a screen is."""
        if is_displayed(event.widget):
            self._focus_memory[event.widget.screen] = event.widget  # it may come late

    def restore_focus(self) -> None:
        """Give the focus to what had it on this screen, if a hidden widget or nothing has it.

        Textual also focuses what is not displayed, which then swallows all keys.
        """
        screen = self.screen
        if screen.focused is not None and is_displayed(screen.focused):
            return
        before = self._focus_memory.get(screen)
        shown = before if before is not None and is_displayed(before) else None
        screen.set_focus(shown or next(filter(is_displayed, screen.focus_chain), None))

    def on_load(self) -> None:
        """Make signals end the app as `q` does, before the terminal is put into raw mode."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.exit)

    def on_mount(self) -> None:
        """Watch the suites, and name what is wrong with the screen's configuration."""
        self.call_after_refresh(self._watch_suites)
        self.tell_config_problems()

    @work(thread=True, exclusive=True, group="suites")
    def _watch_suites(self) -> None:
        """Read the list of suites every `suite_feed.SUITES_SECONDS` until the app ends."""
        from workbench.tui.view_models import small_pane, suite_feed

        pane = small_pane.SmallPaneFeed(idle_loop.give_way)
        while True:
            entries = suite_feed.read_suites(self.log_root)
            if entries != self.suites:
                self.post_message(SuitesRead(entries))
            if self.is_small:
                folder = self.chosen_suite or (entries[0].folder if entries else None)
                self.post_message(SmallPaneRead(pane.poll(folder)))
            self._wake_event.wait(suite_feed.SUITES_SECONDS)
            self._wake_event.clear()
            if self._stop_event.is_set():
                return

    @property
    def is_small(self) -> bool:
        """Whether the window is below 80×24."""
        return self.size.width < MIN_SIZE[0] or self.size.height < MIN_SIZE[1]

    @on(SmallPaneRead)
    def _show_small_pane(self, event: SmallPaneRead) -> None:
        for bar in self.screen.query(TopBar):
            bar.show_small_pane(event.lines)

    @on(SuitesRead)
    def _store_suites(self, event: SuitesRead) -> None:
        self.suites = event.suites
        self.show_busy_suites()
        self._notify_live()

    def show_suite(self, folder: Path) -> None:
        """Show a suite on the Live screen."""
        self.chosen_suite = folder
        self.switch_mode("live")
        self._notify_live()

    @work(exclusive=True, group="log-root")
    async def open_log_root(self, root: Path) -> None:
        """Show the suites, records and drafts of another log root: all screens anew."""
        self.log_root, self.suites, self.chosen_suite = root, None, None
        self.add_mode("empty", Screen)
        await self.switch_mode("empty")
        for mode, make in self.MODES.items():
            await self.remove_mode(mode)
            self.add_mode(mode, make)
        await self.switch_mode(self.DEFAULT_MODE)
        await self.remove_mode("empty")
        self._wake_event.set()

    def _notify_live(self) -> None:
        from workbench.tui.screens.live.screen import LiveScreen

        if isinstance(self.screen, LiveScreen):
            self.screen.suites_changed()

    def pop_screen(self) -> AwaitComplete:
        """Leave the screen; what it still reads is cancelled before its widgets go."""
        for worker in list(self.workers):
            if self.screen in worker.node.ancestors_with_self:
                worker.cancel()
        return super().pop_screen()

    async def on_unmount(self) -> None:
        """Stop the thread, and wait for workers: a cancelled one ends its child process."""
        self._stop_event.set()
        self._wake_event.set()
        ending = [worker.wait() for worker in self.workers if worker.is_running]
        await asyncio.gather(*ending, return_exceptions=True)

    def show_busy_suites(self) -> None:
        """Show the running suites in the top bar."""
        busy = [s for s in self.suites or () if s.busy]
        text = f"● {busy[0].name}" if len(busy) == 1 else f"● {len(busy)} suites at work"
        for bar in self.screen.query(TopBar):
            bar.show_status(text if busy else "", self.shown_root)

    @on(ModeChosen)
    def _mode_chosen(self, event: ModeChosen) -> None:
        self.switch_mode(event.mode)

    def action_help(self) -> None:
        """Show the keys of all screens."""
        from workbench.tui.screens.dialogs import HelpDialog

        self.push_screen(HelpDialog())

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,  # noqa: ARG002 - paths and errors are no markup
    ) -> None:
        """Show a toast; the text is sanitized and never read as markup."""
        text, above = clean(message), clean(title)
        super().notify(text, title=above, severity=severity, timeout=timeout, markup=False)

    def _handle_exception(self, error: Exception) -> None:
        """Ignore exceptions while the app ends: its screens lack their widgets."""
        if self.is_running and not self._exit:
            super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """Print the traceback of an internal error without values of variables (foreign text)."""
        from rich.text import Text

        from results.text.secrets import mask_secrets

        report = mask_secrets("".join(traceback.format_exception(self._exception)))
        remedy = "This is a fault of the screen; suites go on. Please report what stands above."
        self.panic(Text(clean(f"{report}\n{remedy}")))

    def action_picture(self) -> None:
        """Save a screenshot as SVG in the log root."""
        try:
            path = self.save_screenshot(path=str(self.log_root))
        except OSError as error:
            self.notify(f"{self.log_root}: {error.strerror}", title="Not saved", severity="error")
            return
        self.notify(path, title="Screenshot saved")

    async def action_quit(self) -> None:
        """Quit; suites continue under their wardens."""
        self.exit()


def find_refusal(term: str, *, is_terminal: bool) -> str:
    """Why the app cannot run in this terminal, with the remedy; empty: it can."""
    instead = "use `workbench run PLAN.toml --headless`, `workbench attach`, or `workbench --help`"
    if not is_terminal:
        return f"the screen needs a terminal on stdin and stderr; {instead}"
    if term in ("", "dumb", "unknown"):
        shown = f"TERM={term}" if term else "TERM is not set"
        return f"this terminal cannot place a cursor ({shown}); {instead}"
    return ""


def main(log_root: Path) -> int:
    """Run the app; returns the exit code of the process."""
    is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    reason = find_refusal(os.environ.get("TERM", ""), is_terminal=is_terminal)
    if reason and SERVED not in os.environ:
        print(f"workbench: {reason}", file=sys.stderr)  # noqa: T201 - talk goes to stderr
        return 2
    app = WorkbenchApp(log_root, paths.cache_root())
    sys.setswitchinterval(idle_loop.SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=idle_loop.make_loop) as runner:
        runner.run(app.run_async())
    return app.return_code or 0
