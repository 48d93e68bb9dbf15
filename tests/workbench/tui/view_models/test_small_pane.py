"""Lines of a pane below 80×24."""

from __future__ import annotations

from pathlib import Path

from tests.workbench.tui import sample_suites
from workbench.tui.view_models import small_pane


def test_the_run_at_work_comes_first_with_percent_loss_and_time_left(log_root: Path) -> None:
    sample_suites.busy_root(log_root)
    folder = next(p.parent for p in log_root.glob("*/plan.toml"))
    feed = small_pane.SmallPaneFeed()
    lines = feed.poll(folder)
    assert feed.poll(folder) == lines
    assert "%" in lines[1]
    assert lines[1].endswith(" left")
    assert lines[2].startswith("loss ")
    assert folder.name in lines[3]
    assert lines[-1] == small_pane.HINT


def test_without_a_suite_or_with_a_broken_one_there_is_a_sentence(tmp_path: Path) -> None:
    feed = small_pane.SmallPaneFeed()
    assert feed.poll(None)[0] == "No suite yet."
    assert str(tmp_path) in feed.poll(tmp_path)[0]
