"""Rows, series and sentences of the Live screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engines import protocol
from engines.gpu_readings import Gpu
from engines.messages import Attempt, Hello, Notice, Phase, Plan, Sample, Step
from tests.workbench.tui import sample_suites
from workbench import output_language
from workbench.suites import run_summary
from workbench.suites.state import PhaseSpan, RunState, RunView, SuiteState, reduce_entries
from workbench.tui.system import cli_commands
from workbench.tui.view_models.live import charts as live_charts
from workbench.tui.view_models.live import lines as live_lines
from workbench.tui.view_models.live import rows as live_rows
from workbench.tui.widgets import run_header


def test_charts_show_the_gpu_that_the_run_has() -> None:
    gpu = Gpu(index=3, used=5 << 30, process=4 << 30, utilisation=70.0)
    sample = Sample(t=1.0, gpus=(gpu,))
    run = reduce_entries([protocol.Entry(seq=0, wall=0.0, src="warden", msg=sample)], RunState())
    shown = live_charts.chart_series(run, live_charts.ChartOptions())
    assert shown["gpu"].last == 70.0
    assert (shown["memory"].title, shown["memory"].last) == ("VRAM, GPU 3", 4 << 30)
    assert live_charts.chart_series(RunState(), live_charts.ChartOptions())["gpu"].last is None


def test_gauges_have_limits_and_phases_their_seconds() -> None:
    gpu = Gpu(index=0, used=5 << 30, total=10 << 30, utilisation=50.0, power=200.0)
    messages = (
        Attempt(number=1, pid=1, environment={"cores": 2, "ram_bytes": 8 << 30}),
        Hello(engine="retrieval", pid=1),
        Phase(t=1.0, name="load"),
        Phase(t=5.0, name="train"),
        Notice(t=9.0, code="x", text="cut"),
        Sample(t=95.0, rss_tree=4 << 30, cpu_percent=100.0, gpus=(gpu,)),
    )
    run = reduce_entries(
        protocol.Entry(seq=number, wall=0.0, src="warden", msg=message)
        for number, message in enumerate(messages)
    )
    assert live_lines.gauge_line(run) == (
        "cpu ▕█████░░░░░▏ 100 % of 2 cores   RSS ▕█████░░░░░▏ 4.00 GiB of 8.00 GiB   "
        "VRAM 0 ▕█████░░░░░▏ 5.00 GiB of 10.0 GiB   use ▕█████░░░░░▏ 50 %   200 W"
    )
    assert live_lines.phase_line(run) == "load 4 s ▏ train 1:30 …"
    spans = (PhaseSpan("load", 1.0, 5.0), PhaseSpan("eval", 5.0, 8.0), PhaseSpan("save", 8.0, 9.0))
    ended = replace(run, status="ended", phases=spans)
    assert live_lines.phase_line(ended, 24) == "… ▏ eval 3 s ▏ save 1 s"
    assert live_lines.phase_line(ended, 40).startswith("load 4 s ▏ eval")
    assert live_lines.event_lines(run) == ("    0:01 load", "    0:05 train", "    0:09 ! cut")
    assert live_lines.gauge_line(RunState()) == live_lines.phase_line(RunState()) == ""


def test_options_of_charts_change_and_come_back() -> None:
    options = live_charts.ChartOptions()
    assert options.change("log").log
    assert options.change("log").change("log") == options
    assert options.change("smooth").smoothing == 0.6
    assert options.change("smooth").change("smooth").change("smooth") == options
    moved = options.change("left").change("left").change("right")
    assert moved.cursor == pytest.approx(0.98)
    assert options.change("right").cursor == 1.0
    assert moved.change("plain") == options


def test_a_growing_search_counts_the_trials_that_were_asked_for() -> None:
    state = sample_suites.search_state("completed", "pruned", "failed")
    assert live_rows.suite_line(state, 1.0)[0] == (
        "ended, r goes on · 1 of 20 trials completed · 1 failed · 1 pruned"
    )
    rows, keys = live_rows.queue_rows(state)
    assert keys == ["t1", "t2", "t3"]
    assert [row[1].text for row in rows] == [
        "lr=0.0003 layers=[3, 7]", "lr=0.00015 layers=[3, 7]", "lr=0.0001 layers=[3, 7]",
    ]  # fmt: skip
    assert rows[1][0].text == "✂"
    assert (rows[1][4].tone, rows[2][4].tone) == ("dim", "error")
    assert live_rows.format_failure(state.runs[1].state) == ""


def test_the_screen_and_a_progress_line_show_the_same_numbers() -> None:
    gpu = Gpu(index=0, used=5 << 30)
    messages = (
        Attempt(number=1, pid=1),
        Hello(engine="retrieval", pid=1),
        Phase(t=1.0, name="train"),
        Plan(t=1.0, steps=2000, samples=128_000, effective_batch=64, micro_batch=64),
        Step(
            t=100.0, step=1000, count=1000, samples=64_000, seconds=86.4, warmup=False,
            data_wait=0.0, loss=1.5284, lr=1e-4, epoch=0.5, metrics={"r@1": 0.86},
        ),
        Sample(t=100.0, rss_tree=3 << 30, gpus=(gpu,)),
    )  # fmt: skip
    entries = [
        protocol.Entry(seq=number, wall=0.0, src="engine", msg=message)
        for number, message in enumerate(messages)
    ]
    spec = protocol.RunSpec(
        suite="s", run_id="r", engine="retrieval", subset="oven_train", model="m", cache_root="c"
    )
    view = RunView(spec, "r", reduce_entries(entries))
    line = run_summary.progress_line(view, 1, 1)
    numbers = "loss 1.528 · r@1 0.8600 · step time 86.4 ms · RSS 3.00 GiB · VRAM 5.00 GiB"
    assert numbers in line
    ((row,), _) = live_rows.queue_rows(SuiteState("s", runs=(view,)))
    shown = dict(zip((column.key for column in live_rows.QUEUE), row, strict=True))
    assert (shown["step"], shown["rate"]) == ("1,000", "740.7")
    keys = {"loss": "loss", "r1": "r@1", "time": "step time", "rss": "RSS", "vram": "VRAM"}
    assert " · ".join(f"{title} {shown[key]}" for key, title in keys.items()) == numbers
    assert line.endswith(f"{str(shown['left']).removeprefix('-')} left")


def test_in_korean_notices_and_reports_are_korean(tmp_path: Path) -> None:
    output_language.set_language("ko")
    notice = Notice(code="stalled", text="no progress for 30 s in phase load")
    run = reduce_entries([protocol.Entry(seq=0, wall=0.0, src="warden", msg=notice)], RunState())
    assert "30초 동안 진행이 없음" in live_rows.newest_notice(run)
    arguments = cli_commands.report_arguments(["s"], tmp_path, tmp_path / "report", "ko", "")
    assert arguments[-2:] == ["--lang", "ko"]


def test_a_run_of_a_cluster_is_shown_where_it_is() -> None:
    spec = protocol.RunSpec(
        suite="s", run_id="r", engine="e", subset="a", model="m", cache_root="c"
    )
    waiting = RunView(spec, "r", RunState(), "slurm 7_2 · PENDING (Priority)")
    working = RunView(spec, "q", RunState(status="running"), "slurm 7_1 · gpu07")
    state = SuiteState(
        "s", "running", detail="slurm: 1 at work, 1 PENDING", runs=(working, waiting)
    )
    rows, _ = live_rows.queue_rows(state)
    assert rows[1][4] == live_rows.GridCell("PENDING (Priority)", "dim")
    assert live_rows.format_title(working).endswith("slurm 7_1 · gpu07")
    assert run_header.header_lines(waiting, "", 80)[1][-1][0] == "slurm 7_2 · PENDING (Priority)"
    assert "slurm: 1 at work, 1 PENDING" in live_rows.suite_line(state, 1.0)[0]
    header, table = run_summary.suite_rows(state)
    assert header[-1] == ("location", False)
    assert [row[-1] for row in table] == [working.location, waiting.location]
    assert "slurm 7_1 · gpu07" in run_summary.progress_line(working, 1, 2)


def test_a_silent_warden_elsewhere_is_told_with_its_age() -> None:
    silent = SuiteState("s", "lost", detail="no news from gpu07 for 12:03")
    assert live_rows.format_trouble(silent, 0).startswith("No news from gpu07 for 12:03: ")


@pytest.mark.parametrize("warden", ["running", "ended", "lost"])
def test_a_run_that_an_ended_suite_has_not_begun_waits_for_nothing(warden) -> None:
    state = replace(sample_suites.search_state("completed", trials=1), warden=warden)
    view = replace(state.runs[0], state=RunState())
    pending = live_rows.describe_pending(state, view)
    assert ("r goes on with it" in pending) == (warden != "running")
    assert "wait" not in " ".join(map(str, live_rows.format_progress(view.state)))
