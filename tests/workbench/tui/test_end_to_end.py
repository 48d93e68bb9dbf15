"""From the keys of the Plan screen through a real warden and engine to a row in Results."""

from __future__ import annotations

from pathlib import Path

from results.records import store
from tests.workbench.tui.conftest import screen_text, until
from workbench.suites import suite, warden_file
from workbench.tui.app import WorkbenchApp
from workbench.tui.screens.dialogs import ChoiceDialog, ConfirmDialog
from workbench.tui.screens.live.screen import LiveScreen
from workbench.tui.screens.plan.screen import PlanScreen
from workbench.tui.widgets.form import SettingsForm
from workbench.tui.widgets.grid import Grid


async def choose_probe(pilot, app: WorkbenchApp) -> PlanScreen:
    """An empty plan with the probe engine: no data, no torch."""
    screen = app.screen
    assert isinstance(screen, PlanScreen)
    await until(pilot, lambda: screen.preview is not None)
    await pilot.press("p")
    await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
    await pilot.press("end", "enter")
    await until(pilot, lambda: app.screen is screen)
    await pilot.press("e")
    await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
    grid = app.screen.query_one(Grid)
    while grid.key != "probe":
        await pilot.press("down")
    await pilot.press("enter")
    await until(pilot, lambda: screen.preview is not None and len(screen.preview.runs) == 1)
    return screen


async def edit(pilot, screen: PlanScreen, name: str, value: str) -> None:
    """Type a setting."""
    grid = screen.query_one("#settings-grid", Grid)
    grid.focus()
    screen.query_one(SettingsForm).reveal(name)
    await pilot.press("enter", "end", *["backspace"] * 12, *value, "enter")


async def start(pilot, app: WorkbenchApp) -> LiveScreen:
    """F5, yes, and wait for the suite on Live."""
    await pilot.press("f5")
    await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
    await pilot.press("y")
    await until(pilot, lambda: isinstance(app.screen, LiveScreen), 60)
    live = app.screen
    assert isinstance(live, LiveScreen)
    await until(pilot, lambda: live.snapshot is not None)
    return live


async def test_a_suite_from_keys_to_results(app: WorkbenchApp, log_root: Path) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await choose_probe(pilot, app)
        await edit(pilot, screen, "seeds", "1, 2")
        await edit(pilot, screen, "steps", "5")
        await until(pilot, lambda: screen.preview is not None and len(screen.preview.runs) == 2)
        planned = [run.run_id for run in screen.preview.runs] if screen.preview else []
        await start(pilot, app)
        await until(pilot, lambda: "ended · 2 of 2 runs completed" in screen_text(pilot), 60)
        await pilot.press("3")
        await until(pilot, lambda: "2 runs" in screen_text(pilot))
        assert screen_text(pilot).count("completed") == 2
    records = list(store.read_records(log_root / "results.jsonl"))
    assert [r.identity.seed for r in records] == [1, 2]
    assert [r.identity.run_id for r in records] == planned, "the file gives the runs of the screen"
    assert {r.exit.cause for r in records} == {"completed"}


async def test_stop_from_the_screen_ends_suite_and_run(app: WorkbenchApp, log_root: Path) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await choose_probe(pilot, app)
        await edit(pilot, screen, "repeats", "2")
        await edit(pilot, screen, "steps", "100000")
        await until(pilot, lambda: screen.preview is not None and len(screen.preview.runs) == 2)
        live = await start(pilot, app)
        await until(pilot, lambda: "train" in screen_text(pilot), 60)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("y")
        await until(pilot, lambda: live.snapshot is not None and live.snapshot.suite.ended, 60)
        await until(pilot, lambda: "stopped" in screen_text(pilot))
        (folder,) = suite.list_suites(log_root)
        await until(
            pilot, lambda: (w := warden_file.read_warden(folder)) and not warden_file.is_alive(w)
        )
