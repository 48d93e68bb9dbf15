"""The table of a followed suite in any width."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import protocol
from workbench.headless import renderers
from workbench.headless.renderers import COLUMN_GAP, fit_columns
from workbench.suites.run_summary import NUMBER_TITLES
from workbench.suites.state import PhaseSpan, RunState, RunView, SuiteState

HEADER = (("run", False), ("state", False), *((t, True) for t in NUMBER_TITLES.values()))
NUMBERS = ["1,000", "1.528", "0.8600", "86.4 ms", "12:06", "3.00 GiB", "5.00 GiB"]
NAME = "challenge_train qwen2.5-vl-7b-instruct fold {} of 3"


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_no_column_is_squeezed_and_alike_names_stay_distinct(width: int) -> None:
    rows = [[NAME.format(fold), "train 700/1000 70%", *NUMBERS] for fold in (1, 2)]
    header, shown = fit_columns(HEADER, rows, width)
    assert [title for title, _ in header][:2] == ["run", "state"]
    assert shown[0][0] != shown[1][0]
    cells = sum(max(map(len, column)) + COLUMN_GAP for column in zip(*shown, strict=True))
    assert cells <= width
    assert all(len(row) == len(header) for row in shown)
    assert (len(header) == len(HEADER)) is (width == 200)
    if width >= 80:
        assert shown[0][1] == "train 700/1000 70%"


def test_lines_come_at_each_phase_and_then_at_growing_intervals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    now = [0.0]
    monkeypatch.setattr(renderers.time, "monotonic", lambda: now[0])
    spec = protocol.RunSpec.model_validate({
        "suite": "s", "run_id": "r", "engine": "e", "subset": "a", "model": "m", "params": {},
        "cache_root": "c",
    })  # fmt: skip

    def count_lines(renderer: renderers.LineRenderer, seconds: int, phase: str) -> int:
        for _ in range(2 * seconds):
            run = RunState(status="running", phases=(PhaseSpan(phase, 0.0),), step=int(now[0] * 2))
            renderer.show(SuiteState("s", warden="running", runs=(RunView(spec, "f", run),)))
            now[0] += 0.5
        return len(capsys.readouterr().err.splitlines())

    monkeypatch.setattr(renderers, "progress_line", lambda view, *_: f"step {view.state.step}")
    growing = renderers.LineRenderer(tmp_path)
    assert count_lines(growing, 41, "train") == 3  # at 0, 1 and 11 s; the next at 41 s
    assert count_lines(growing, 1, "eval") == 1
    assert count_lines(renderers.LineRenderer(tmp_path, (5.0,)), 20, "train") == 4
