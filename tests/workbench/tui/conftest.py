"""The screen on folders of its own: no user configuration, no user cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from textual.pilot import Pilot

from workbench.tui.app import WorkbenchApp
from workbench.tui.screens.live.screen import LiveScreen
from workbench.tui.screens.plan.screen import PlanScreen

SIZES = ((80, 24), (120, 36))

sizes = pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and user TOML under the test's folder; colours as a plain terminal has them."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WORKBENCH_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("WORKBENCH_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def log_root(tmp_path: Path) -> Path:
    """An empty log root."""
    root = tmp_path / "bench_logs"
    root.mkdir()
    return root


@pytest.fixture
def app(log_root: Path, tmp_path: Path) -> WorkbenchApp:
    """The app, not started."""
    return WorkbenchApp(log_root, tmp_path / "cache")


async def until(pilot: Pilot[None], true: Callable[[], object], seconds: float = 90.0) -> None:
    """Let the app work until something is true."""
    deadline = monotonic() + seconds
    while not true():
        assert monotonic() < deadline, f"not within {seconds} s; the screen:\n{screen_text(pilot)}"
        await pilot.pause(0.02)


def screen_text(pilot: Pilot[None]) -> str:
    """What is on screen, line by line, without styles."""
    compositor = pilot.app.screen._compositor
    strips = compositor.render_strips(pilot.app.size)
    return "\n".join(strip.text.rstrip() for strip in strips)


def plan_of(app: WorkbenchApp) -> PlanScreen:
    """The screen, which is Plan."""
    assert isinstance(app.screen, PlanScreen)
    return app.screen


def live_of(app: WorkbenchApp) -> LiveScreen:
    """The screen, which is Live."""
    assert isinstance(app.screen, LiveScreen)
    return app.screen


async def ready(pilot: Pilot[None], app: WorkbenchApp) -> PlanScreen:
    """The catalogs are there and the first plan was expanded."""
    screen = plan_of(app)
    await until(pilot, lambda: screen.preview is not None)
    return screen
