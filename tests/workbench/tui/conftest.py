"""The screen on folders of its own: no user configuration, no user cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from PIL import Image
from textual.pilot import Pilot

from datasets_mm.building.build import build
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


RECIPE = """
schema = 1
name = "{name}"
title = "Made for a test: {name}"
[source]
adapter = "jsonl"
uri = "{name}.jsonl"
images = "."
"""


def build_subset(name: str, folder: Path, question: str = "What is\x1b[2J it?") -> None:
    """A subset of six records q0 to q5; their picture is there, that of the passages is not."""
    data, recipes = folder / "data", folder / "config" / "recipes"
    data.mkdir(exist_ok=True)
    recipes.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), "red").save(data / "red.png")
    lines = [
        {"data_id": f"q{n}", "dataset_id": "T", "question": question, "instruction": "i:",
         "image_path": "red.png", "passage_id": [f"p{n}", "p9"], "answer": ["a"],
         "passage_text": ["Some words.", "Other words."],
         "passage_image_path": ["gone.png", "NA"]}
        for n in range(6)
    ]  # fmt: skip
    (data / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (recipes / f"{name}.toml").write_text(RECIPE.format(name=name))
    build(name, folder / "cache", data)
