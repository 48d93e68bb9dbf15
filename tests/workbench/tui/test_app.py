"""The app: modes, help, mouse, footers, screenshots, terminals that cannot show it."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import pytest
from textual.app import ComposeResult
from textual.pilot import Pilot
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from tests.workbench.tui.conftest import ready, screen_text, until
from workbench.tui.app import WorkbenchApp, find_refusal
from workbench.tui.screens.data import DataScreen
from workbench.tui.screens.dialogs import HelpDialog
from workbench.tui.screens.live.screen import LiveScreen
from workbench.tui.screens.plan.screen import PlanScreen
from workbench.tui.screens.results.screen import ResultsScreen
from workbench.tui.system.child_process import read_messages
from workbench.tui.widgets.footer import Footer
from workbench.tui.widgets.grid import Grid


async def test_help_modes_and_a_screenshot(app: WorkbenchApp, log_root: Path) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        for key, kind in (("2", LiveScreen), ("3", ResultsScreen), ("4", DataScreen),
                          ("f3", ResultsScreen), ("f4", DataScreen), ("1", PlanScreen),
                          ("f2", LiveScreen), ("f1", PlanScreen)):  # fmt: skip
            await pilot.press(key)
            await until(pilot, lambda kind=kind: isinstance(app.screen, kind))
            await until(pilot, lambda: "q Quit" in screen_text(pilot).splitlines()[-1])
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpDialog))
        assert "leave; suites go on" in screen_text(pilot)
        await pilot.press("escape", "ctrl+s")
        await until(pilot, lambda: list(log_root.glob("*.svg")))
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)
    assert "<svg" in next(log_root.glob("*.svg")).read_text("utf-8")


async def test_a_hidden_widget_has_no_focus_and_clicks_do_what_keys_do(
    app: WorkbenchApp,
) -> None:
    """In a window that is too small nothing is shown; enlarged, the keys work as before."""
    async with app.run_test(size=(60, 20)) as pilot:
        for key, kind in (("3", ResultsScreen), ("4", DataScreen)):
            await pilot.press(key)
            await until(pilot, lambda kind=kind: isinstance(app.screen, kind))
        await pilot.resize_terminal(120, 36)
        await pilot.press("3")
        await until(pilot, lambda: app.screen.focused and app.screen.focused.id == "records")
        await pilot.press("1")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen))
        app.screen.query_one("#models", Grid).focus()
        await pilot.pause()
        for size in ((60, 20), (200, 60)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        await until(pilot, lambda: app.screen.has_class("-wide"))
        await pilot.press("down")
        assert app.screen.focused
        assert app.screen.focused.id == "models"
        await check_mouse(app, pilot)
        await pilot.press("ctrl+q")
        await until(pilot, lambda: not app.is_running)


async def check_mouse(app: WorkbenchApp, pilot: Pilot[None]) -> None:
    """Clicks do what keys do."""
    screen = await ready(pilot, app)
    grid = screen.query_one("#subsets", Grid)
    first = grid.keys[grid.scroll_offset.y]
    chosen = first in screen.draft.subsets
    await pilot.click("#subsets", offset=(1, 1))
    assert (first in screen.draft.subsets) is not chosen
    await pilot.click(list(screen.query("Tab"))[2])
    await until(pilot, lambda: isinstance(app.screen, ResultsScreen))


class ReadingScreen(ModalScreen[None]):
    """Shows what it reads, without an end."""

    def compose(self) -> ComposeResult:
        yield Static()

    def on_mount(self) -> None:
        self.run_worker(self._show())

    async def _show(self) -> None:
        while True:
            self.query_one(Static).update("read")
            await asyncio.sleep(0)


async def test_a_screen_that_is_left_while_it_reads_is_no_crash(app: WorkbenchApp) -> None:
    """Its worker ends before the widgets that it fills."""
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(ReadingScreen())
        await until(pilot, lambda: app.screen.query_one(Static).content == "read")
        await app.pop_screen()
        await pilot.pause()
        assert not [w for w in app.workers if isinstance(w.node, ReadingScreen)]


async def test_no_child_process_outlives_the_app(app: WorkbenchApp) -> None:
    """Quitting waits until the process that a screen reads from is ended, however slowly."""
    script = """if True:
        import json, os, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit()))
        print(json.dumps({"kind": "pid", "pid": os.getpid()}), flush=True)
        time.sleep(60)"""
    pids: list[int] = []

    async def read() -> None:
        async for message in read_messages([sys.executable, "-c", script]):
            pids.append(int(message["pid"]))  # noqa: PERF401 - needed before the end

    async with app.run_test(size=(80, 24)) as pilot:
        app.run_worker(read())
        await until(pilot, lambda: pids)
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)
    assert not Path(f"/proc/{pids[0]}").exists()


def count_widgets() -> int:
    """Widgets in memory, shown or not."""
    gc.collect()
    return sum(isinstance(item, Widget) for item in gc.get_objects())


async def test_no_widget_stays_in_memory(app: WorkbenchApp) -> None:
    """A screen that is open all day is as large as in the morning: no removed widget is kept."""
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot, app)
        counts = []
        for _ in range(3):
            for key in ("2", "tab", "3", "question_mark", "escape", "1"):
                await pilot.press(key)
                await pilot.pause()
            counts.append(count_widgets())
    assert counts[2] <= counts[1] + 3, counts


async def test_a_click_on_the_footer_presses_the_key(app: WorkbenchApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(pilot, app)
        line = screen_text(pilot).splitlines()[-1]
        await pilot.click(Footer, offset=(line.index("Help"), 0))
        await until(pilot, lambda: isinstance(app.screen, HelpDialog))
        await pilot.press("escape")
        await pilot.click(Footer, offset=(line.index("q Quit"), 0))
        await until(pilot, lambda: not app.is_running)


def test_no_line_is_wider_than_the_smallest_screen_needs() -> None:
    """The footers of all screens fit 80 columns, with `q Quit` in view."""
    from textual.binding import Binding

    for screen in (LiveScreen, ResultsScreen):  # the others leave out what does not fit
        classes = [*screen.__mro__, *WorkbenchApp.__mro__]
        listed = [b for c in classes if c.__module__.startswith("workbench.")
                  for b in c.__dict__.get("BINDINGS", ())]  # fmt: skip
        shown = [b for b in listed if isinstance(b, Binding) and b.show]
        names = {"question_mark": "?", "slash": "/", "escape": "esc"}
        keys = [b.key_display or names.get(b.key, b.key) for b in shown]
        width = sum(len(k) + len(b.description) + 3 for k, b in zip(keys, shown, strict=True))
        assert width <= 80, screen


@pytest.mark.parametrize("term", ["", "dumb", "unknown"])
def test_a_terminal_that_cannot_is_refused_with_a_way_out(term: str) -> None:
    assert "--headless" in find_refusal(term, is_terminal=True)


def test_terminals_that_can_are_not_refused() -> None:
    assert find_refusal("xterm-256color", is_terminal=True) == ""
    assert "terminal" in find_refusal("xterm-256color", is_terminal=False)
