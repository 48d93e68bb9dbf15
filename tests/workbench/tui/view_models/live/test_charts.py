"""Curves over steps, time and samples, of several runs, with a cursor at one moment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines import protocol
from engines.messages import Message, Phase, Sample, Step
from workbench.suites.state import RunState, reduce_entries
from workbench.tui.view_models.live import charts, lines


def make_run(steps: int = 10, seconds: float = 2.0, start: float = 5.0) -> RunState:
    """A training of `steps` steps of `seconds` and 32 samples, after `start` seconds."""
    messages: list[Message] = [Phase(t=start, name="train")]
    for step in range(1, steps + 1):
        t = start + step * seconds
        messages.append(
            Step(
                t=t, step=step, count=1, samples=32, seconds=seconds, loss=100.0 / step, lr=1e-3,
                data_wait=0.1 * seconds, forward=0.3 * seconds, backward=0.4 * seconds,
                optimizer=0.1 * seconds,
            )
        )  # fmt: skip
        messages.append(Sample(t=t, cpu_percent=float(step)))
    return reduce_entries(
        protocol.Entry(seq=number, wall=0.0, src="engine", msg=message)
        for number, message in enumerate(messages)
    )


@pytest.mark.parametrize(
    ("x", "last", "name"),
    [("step", 10, ""), ("time", 25, "over time"), ("samples", 320, "over samples")],
)
def test_curves_of_steps_go_over_the_chosen_axis(x: str, last: float, name: str) -> None:
    shown = charts.chart_series(make_run(), charts.ChartOptions(x=x))
    assert shown["loss"].points[-1] == (last, 10.0)
    assert shown["loss"].x_name == name
    assert shown["cpu"].points[-1] == (25.0, 10.0), "over seconds, whatever is chosen"


@pytest.mark.parametrize(("x", "place"), [("step", 5.5), ("time", 16.0), ("samples", 176.0)])
def test_the_cursor_of_all_charts_is_at_one_moment(x: str, place: float) -> None:
    run, options = make_run(), charts.ChartOptions(x=x, cursor=0.5)
    shown = charts.chart_series(run, options)
    assert shown["loss"].cursor == pytest.approx(place)
    assert shown["cpu"].cursor == pytest.approx(16.0)
    assert charts.cursor_moment(run, options) == pytest.approx(16.0)


def test_marked_runs_are_beside_and_stretch_the_axis() -> None:
    slow = charts.MarkedRun("B", make_run(steps=20, seconds=3.0))
    shown = charts.chart_series(make_run(), charts.ChartOptions(x="time"), [slow], "A")
    assert (shown["loss"].letter, shown["loss"].others[0].letter) == ("A", "B")
    assert shown["loss"].window == (7.0, 65.0)
    assert shown["gpu"].others == (), "without a curve a run is left out"


def test_a_run_that_has_not_begun_shows_the_marked_ones() -> None:
    beside = [charts.MarkedRun("A", make_run())]
    shown = charts.chart_series(RunState(), charts.ChartOptions(cursor=0.5), beside)
    assert shown["loss"].points == ()
    assert shown["loss"].others[0].last == 10.0


def test_a_reference_has_its_own_clock() -> None:
    earlier = make_run(seconds=4.0)
    shown = charts.chart_series(make_run(), charts.ChartOptions(x="time", reference=earlier))
    assert shown["loss"].reference[-1] == (45.0, 10.0)


def test_options_are_kept_as_plain_values_and_faulty_ones_ignored() -> None:
    options = charts.ChartOptions(log=True, smoothing=0.6, x="time", curves={"loss": "lr"})
    assert charts.parse_options(options.as_table()) == options
    assert replace(charts.parse_options({**options.as_table(), "x": "y"}), x="time") == options
    faulty = {"log": 1, "smoothing": 2, "x": [], "curves": {"loss": 3, "nothing": "lr"}}
    assert charts.parse_options(faulty) == charts.ChartOptions()
    assert charts.parse_options(None) == charts.ChartOptions()


def test_axis_curves_cannot_be_chosen() -> None:
    names = {name for name, _, _ in charts.curve_rows(make_run())}
    assert names == {"loss", "lr", "step_seconds", "cpu"}


def test_a_step_is_taken_apart_and_its_shares_add_up() -> None:
    line = lines.anatomy_line(make_run())
    assert line.startswith("step 2.00 s ▕")
    assert "█ forward 30.0 %" in line
    assert "· rest 10.0 %" in line
    bar = line.partition("▕")[2].partition("▏")[0]
    assert len(bar) == lines.BAR_CELLS
    assert bar.count("▓") == pytest.approx(0.4 * lines.BAR_CELLS, abs=1)
    assert lines.anatomy_line(RunState()) == ""
