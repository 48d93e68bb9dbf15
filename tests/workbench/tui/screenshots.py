"""Screenshots for the README, taken from a real log root: no picture shows an invented number.

cd FOLDER_WITH_bench_logs && python -m tests.workbench.tui.screenshots OUT [--log-root bench_logs]
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from tests.workbench.tui.conftest import until
from tests.workbench.tui.picture import portable
from workbench import paths
from workbench.tui.app import WorkbenchApp
from workbench.tui.screens.data import DataScreen
from workbench.tui.screens.live.screen import LiveScreen
from workbench.tui.screens.plan.screen import PlanScreen
from workbench.tui.screens.results.screen import ResultsScreen
from workbench.tui.widgets.form import SettingsForm
from workbench.tui.widgets.grid import Grid

SIZES = ((80, 24), (120, 36))


async def shoot(log_root: Path, size: tuple[int, int], out: Path) -> None:
    """The four screens at one size."""
    app = WorkbenchApp(log_root, paths.cache_root())
    suffix = f"{size[0]}x{size[1]}"
    async with app.run_test(size=size) as pilot:
        plan = app.screen
        assert isinstance(plan, PlanScreen)
        await until(pilot, lambda: plan.preview is not None)
        grid = plan.query_one("#settings-grid", Grid)
        grid.focus()
        plan.query_one(SettingsForm).reveal("batch")
        plan.query_one("#subsets", Grid).focus()
        await pilot.pause(0.5)
        save(app, out / f"plan-{suffix}.svg")
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, LiveScreen))
        live = app.screen
        assert isinstance(live, LiveScreen)
        await until(pilot, lambda: live.snapshot is not None)
        await pilot.pause(0.5)
        save(app, out / f"live-{suffix}.svg")
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, ResultsScreen))
        await pilot.pause(1.0)
        save(app, out / f"results-{suffix}.svg")
        await pilot.press("down", "down", "space", "up", "up", "space", "C")
        await until(pilot, lambda: bool(app.screen.query("#cases")), 120)
        await until(pilot, lambda: bool(app.screen.query_one("#cases", Grid).rows), 120)
        save(app, out / f"compare-{suffix}.svg")
        await pilot.press("escape")
        await pilot.press("4")
        await until(pilot, lambda: isinstance(app.screen, DataScreen))
        subsets = app.screen.query_one("#data-subsets", Grid)
        await until(pilot, lambda: "emoji_train" in subsets.keys)
        subsets.cursor = list(subsets.keys).index("emoji_train")
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.screen.query_one("#profile", Grid).rows), 120)
        await pilot.pause(0.5)
        save(app, out / f"data-{suffix}.svg")


def save(app: WorkbenchApp, path: Path) -> None:
    """One picture."""
    path.write_text(portable(app.export_screenshot(title="workbench")), encoding="utf-8")


def main() -> None:
    """All pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--log-root", type=Path, default=Path("bench_logs"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for size in SIZES:
        asyncio.run(shoot(options.log_root.absolute(), size, options.out))


if __name__ == "__main__":
    main()
