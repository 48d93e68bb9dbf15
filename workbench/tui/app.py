"""The screen of the workbench: what `workbench` without a command opens.

At module scope this imports Textual and nothing else that is slow: the first frame is painted
before pydantic, the protocol or a catalogue is loaded. The app holds the modes and the few facts
that more than one screen needs; everything else belongs to the screens.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from textual import on, work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.theme import Theme

from results.text.sanitize import clean
from workbench.tui.screens.plan import PlanScreen
from workbench.tui.system.terminal_driver import TerminalDriver
from workbench.tui.widgets.top_bar import ModeChosen, TopBar

if TYPE_CHECKING:
    from textual.notifications import SeverityLevel
    from textual.screen import Screen

    from workbench.tui.view_models.suite_feed import SuiteEntry

THEME: Final = Theme(
    name="workbench",
    # Colours of xterm's 256, so that tmux without true colour shows the same picture.
    primary="#5fd7af",
    accent="#5fd7af",
    secondary="#8a8a8a",
    foreground="#d0d0d0",
    background="#121212",
    surface="#1c1c1c",
    panel="#262626",
    error="#ff8787",
    warning="#d0d0d0",
    success="#d0d0d0",
    dark=True,
    variables={
        "footer-background": "#121212",
        "footer-key-foreground": "#5fd7af",
        "footer-description-foreground": "#8a8a8a",
        "input-selection-background": "#5fd7af 30%",
        "scrollbar": "#303030",
        "scrollbar-background": "#121212",
        "scrollbar-corner-color": "#121212",
    },
)


class SuitesRead(Message):
    """The list of suites is another one."""

    def __init__(self, suites: tuple[SuiteEntry, ...]) -> None:
        super().__init__()
        self.suites = suites


def _live() -> Screen[None]:
    from workbench.tui.screens.live import LiveScreen

    return LiveScreen()


def _results() -> Screen[None]:
    from workbench.tui.screens.results import ResultsScreen

    return ResultsScreen()


def _data() -> Screen[None]:
    from workbench.tui.screens.data import DataScreen

    return DataScreen()


class WorkbenchApp(App[None]):
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
        "live": _live,
        "results": _results,
        "data": _data,
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
        super().__init__(driver_class=TerminalDriver, ansi_color=own_colors)
        self.register_theme(THEME)
        # Before the first style is computed: set later, everything would be styled twice.
        self.set_reactive(App.theme, THEME.name)
        self.log_root, self.cache_root = log_root, cache_root
        self.suites: tuple[SuiteEntry, ...] | None = None
        """None until they were read for the first time."""
        self.chosen_suite: Path | None = None
        """What Live shows; None: the first of `suites`."""
        self._over = threading.Event()

    def on_resize(self) -> None:
        """Paint everything: a window that changed and changed back has lost what it showed.

        Textual compares sizes only, and would leave it as it is.
        """
        self.screen.refresh()

    def on_mount(self) -> None:
        """Signals end the app as `q` does: otherwise the terminal would stay in raw mode."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.exit)
        self.call_after_refresh(self._watch_suites)

    @work(thread=True, exclusive=True, group="suites")
    def _watch_suites(self) -> None:
        """The list of suites, read again every few seconds while the app lives."""
        from workbench.tui.view_models import suite_feed

        while True:
            found = suite_feed.suites(self.log_root)
            if found != self.suites:
                self.post_message(SuitesRead(found))
            if self._over.wait(suite_feed.SUITES_SECONDS):
                return

    @on(SuitesRead)
    def _take_suites(self, event: SuitesRead) -> None:
        self.suites = event.suites
        self.say_work()
        self._tell_live()

    def show_suite(self, folder: Path) -> None:
        """Look at a suite on the Live screen."""
        self.chosen_suite = folder
        self.switch_mode("live")
        self._tell_live()

    def _tell_live(self) -> None:
        from workbench.tui.screens.live import LiveScreen

        if isinstance(self.screen, LiveScreen):
            self.screen.suites_changed()

    def on_unmount(self) -> None:
        """Let the thread go."""
        self._over.set()

    def say_work(self) -> None:
        """Show at the top what is at work."""
        busy = [s for s in self.suites or () if s.busy]
        text = f"● {busy[0].name}" if len(busy) == 1 else f"● {len(busy)} suites at work"
        for bar in self.screen.query(TopBar):
            bar.say(text if busy else "")

    @on(ModeChosen)
    def _mode_chosen(self, event: ModeChosen) -> None:
        self.switch_mode(event.mode)

    def action_help(self) -> None:
        """All keys."""
        from workbench.tui.screens.dialogs import Help

        self.push_screen(Help())

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,  # noqa: ARG002 - a path or an error is no markup, whoever asks
    ) -> None:
        """A message in the corner, cleaned and taken literally."""
        text, above = clean(message), clean(title)
        super().notify(text, title=above, severity=severity, timeout=timeout, markup=False)

    def _handle_exception(self, error: Exception) -> None:
        """While the app ends, a screen that was just opening fails for want of its widgets."""
        if not self._exit:
            super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """A fault of ours, told without the values of variables: they may be anybody's text."""
        from rich.text import Text

        from results.text.secrets import mask_secrets

        told = mask_secrets("".join(traceback.format_exception(self._exception)))
        remedy = "This is a fault of the screen; suites go on. Please report what stands above."
        self.panic(Text(clean(f"{told}\n{remedy}")))

    def action_picture(self) -> None:
        """Save what is on screen as an SVG in the log root."""
        try:
            path = self.save_screenshot(path=str(self.log_root))
        except OSError as error:
            self.notify(f"{self.log_root}: {error.strerror}", title="Not saved", severity="error")
            return
        self.notify(path, title="Screenshot saved")

    async def action_quit(self) -> None:
        """Leave. Suites have wardens of their own and go on."""
        self.exit()


def refusal(term: str, *, is_terminal: bool) -> str:
    """Why no screen can be opened here, and what to do instead; empty: it can."""
    instead = "use `workbench run PLAN.toml --headless`, `workbench attach`, or `workbench --help`"
    if not is_terminal:
        return f"the screen needs a terminal on stdin and stderr; {instead}"
    if term in ("", "dumb", "unknown"):
        shown = f"TERM={term}" if term else "TERM is not set"
        return f"this terminal cannot place a cursor ({shown}); {instead}"
    return ""


def main(log_root: Path) -> int:
    """Open the screen and return the exit code of the process."""
    is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if reason := refusal(os.environ.get("TERM", ""), is_terminal=is_terminal):
        print(f"workbench: {reason}", file=sys.stderr)  # noqa: T201 - talk goes to stderr
        return 2
    from workbench import paths

    app = WorkbenchApp(log_root, paths.cache_root())
    app.run()
    return app.return_code or 0
