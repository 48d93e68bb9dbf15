"""The Data screen over a small built subset: profiles by a child, differences, records."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from textual.widgets import Static

from tests.workbench.tui.conftest import build_subset, screen_text, until
from workbench.tui.app import WorkbenchApp
from workbench.tui.screens.data import DataScreen
from workbench.tui.screens.record_browser import RecordBrowser
from workbench.tui.view_models.cells import CellLike, GridCell
from workbench.tui.widgets import image
from workbench.tui.widgets.grid import Grid


@pytest.fixture
def built(tmp_path: Path) -> None:
    """Two subsets of six records, built; their picture is there, that of the passages is not."""
    build_subset("aa_first", tmp_path)
    build_subset("aa_second", tmp_path, "Which one?")


def cell_text(cell: CellLike) -> str:
    return cell.text if isinstance(cell, GridCell) else cell


def grid(app: WorkbenchApp, name: str) -> Grid:
    return app.screen.query_one(f"#{name}", Grid)


async def test_describe_mark_and_diff_by_keys_and_a_subset_without_data_says_why(
    app: WorkbenchApp, built: None
) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "aa_first" in screen_text(pilot))
        assert isinstance(app.screen, DataScreen)
        await pilot.press("d")  # nothing is marked yet: a hint, no scan
        await pilot.press("enter")
        await until(pilot, lambda: "scanned in" in screen_text(pilot))
        rows = [" ".join(map(str, row)) for row in grid(app, "profile").rows]
        assert any("2-3" in row and "6 (100.00 %)" in row for row in rows)
        await pilot.press("space", "down", "space", "d")
        await until(pilot, lambda: "difference" in screen_text(pilot))
        rows = [tuple(map(cell_text, row)) for row in grid(app, "profile").rows]
        assert rows[0][0].startswith("largest differences")
        assert ("  what", "6 (100.00 %)", "0 (0.00 %)", "-100.00", "▀" * 16) in rows[1:4]
        assert ("  which", "0 (0.00 %)", "6 (100.00 %)", "+100.00", "▄" * 16) in rows[1:4]
        listed = grid(app, "data-subsets")
        listed.focus()
        while listed.key != "okvqa_train":
            await pilot.press("down")
        await pilot.press("enter")
        await until(pilot, lambda: "needs a data folder" in screen_text(pilot))


@pytest.mark.filterwarnings("ignore:Image.Image.getdata is deprecated")  # by textual-image 0.12
async def test_records_are_browsed_with_their_pictures(
    app: WorkbenchApp, built: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORKBENCH_PICTURES", "half")
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(RecordBrowser("aa_first"))
        await until(pilot, lambda: "positive 2" in screen_text(pilot))
        shown = screen_text(pilot)
        assert "\x1b" not in shown
        assert "What is\\x1b[2J it?" in shown
        await until(pilot, lambda: len(app.screen.query("#sample-pictures > *")) >= 3)
        await until(pilot, lambda: "▀▀▀▀" in screen_text(pilot))
        assert "[missing]" in _words(app)  # the picture of the passage
        await pilot.press("n", "n")
        await until(pilot, lambda: "3 of 6" in screen_text(pilot))
        await pilot.press("escape")
        assert not isinstance(app.screen, RecordBrowser)


async def test_records_are_searched_and_shown_as_a_contact_sheet(
    app: WorkbenchApp, built: None, monkeypatch: pytest.MonkeyPatch, log_root: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORKBENCH_PICTURES", "words")
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("4", "slash", *"aa_", "enter")
        await until(
            pilot, lambda: list(grid(app, "data-subsets").keys) == ["aa_first", "aa_second"]
        )
        await pilot.press("b")
        await until(pilot, lambda: "1 of 6 drawn" in screen_text(pilot))
        await pilot.press("c")
        await until(pilot, lambda: len(app.screen.query(".sheet-cell")) == 6)
        await pilot.press("down", "right")
        await until(pilot, lambda: "6 of 6 drawn" in screen_text(pilot))
        await pilot.press("p")
        await until(pilot, lambda: "5 of 6 drawn" in screen_text(pilot))
        await pilot.press("n")
        here = app.screen.query(".sheet-cell.here")
        assert len(here) == 1
        await pilot.press("enter")
        await until(pilot, lambda: "positive 2" in screen_text(pilot))
        await until(pilot, lambda: "this terminal shows no pictures" in _words(app))
        await pilot.press("slash", *"WORDS id:q4", "enter")
        await until(pilot, lambda: "1 of 1 of 1 with: WORDS id:q4" in screen_text(pilot))
        assert "q4  (T)" in screen_text(pilot)
        await pilot.press("slash", "up", "down", "up", "end", *" nowhere", "enter")
        await until(
            pilot, lambda: "No record has all of: WORDS id:q4 nowhere" in screen_text(pilot)
        )
        await pilot.press("s")
        await until(pilot, lambda: "1 of 6 drawn (seed 1)" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, DataScreen))
        await pilot.press("escape")
        await until(pilot, lambda: len(grid(app, "data-subsets").keys) > 2)
        await pilot.press("i", *str(tmp_path / "data"), "enter")
        await until(pilot, lambda: app.memory.get("data_root") == str(tmp_path / "data"))
    again = WorkbenchApp(log_root, tmp_path / "cache")
    assert again.earlier_texts("records")[0] == "WORDS id:q4 nowhere"
    assert again.earlier_texts("subsets") == ("aa_",)


def _words(app: WorkbenchApp) -> str:
    return " ".join(
        str(one.render()) for one in app.screen.query("#sample-pictures Static").results(Static)
    )


@pytest.mark.parametrize(
    ("environment", "way"),
    [
        ({"TERM": "xterm-256color"}, "half"),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, "half"),
        ({"TERM": "xterm", "TMUX": "/tmp/x"}, "half"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm", "TERM_PROGRAM": "WezTerm"}, "sixel"),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "words"),
        ({"TERM": "linux"}, "words"),
        ({}, "words"),
        ({"TERM": "foot", "WORKBENCH_PICTURES": "half"}, "half"),
        ({"TERM": "foot", "WORKBENCH_PICTURES": "oil"}, "sixel"),
    ],
)
def test_what_a_terminal_can_is_concluded(environment: dict[str, str], way: str) -> None:
    assert image.choose_mode(environment) == way


def test_the_import_asks_the_terminal_nothing(tmp_path: Path) -> None:
    """On a pseudo-terminal that never answers: not a byte is written, and it takes no time-out."""
    code = (
        "import os, pty, sys, time, select\n"
        "pid, master = pty.fork()\n"
        "if pid == 0:\n"
        "    os.environ.update(TERM='xterm-256color', WORKBENCH_PICTURES='half')\n"
        "    from pathlib import Path\n"
        "    from workbench.tui.widgets import image as picture\n"
        "    made = picture.make_widget(Path(sys.argv[1]), '')\n"
        "    assert type(made).__name__ == 'HalfcellImage', made\n"
        "    assert sys.__stdout__.isatty()\n"
        "    os._exit(0)\n"
        "said = b''\n"
        "while True:\n"
        "    try: got = os.read(master, 1024)\n"
        "    except OSError: break\n"
        "    if not got: break\n"
        "    said += got\n"
        "print(repr(said), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    file = tmp_path / "red.png"
    Image.new("RGB", (4, 4), "red").save(file)
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        capture_output=True, text=True, check=True, timeout=180,
    )  # fmt: skip
    assert done.stdout.strip() == "b'' 0"


def test_the_screen_does_not_load_pictures_at_its_start() -> None:
    code = (
        "import sys, workbench.tui.app, workbench.tui.screens.data\n"
        "print(*(name in sys.modules for name in ('PIL', 'textual_image', 'pyarrow')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]
