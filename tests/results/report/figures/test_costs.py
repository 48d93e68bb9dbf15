"""Costs against quality, step times, forest plots: what is drawn of which runs."""

import itertools
import random

import pytest

from results.comparison import history
from results.comparison.document_view import DocumentView
from results.records.schema import Reading
from results.records.suite_view import RunCurves

costs = pytest.importorskip("results.report.figures.costs")
figures = pytest.importorskip("results.report.figures")
intervals = pytest.importorskip("results.report.figures.intervals")

TEXT = figures.FigureText()


def point(number, seconds, memory, value):
    return costs.CostPoint(number, str(number), seconds, memory, value, None, None)


def test_efficient_points_are_those_that_no_other_dominates():
    drawn = random.Random(5)
    for higher in (True, False):
        points = [point(n, *(drawn.randint(1, 4) for _ in range(3))) for n in range(12)]
        marked = costs.mark_efficient(points, higher=higher)
        for mine in marked:
            dominated = any(
                o.seconds <= mine.seconds
                and o.memory <= mine.memory
                and (o.value >= mine.value if higher else o.value <= mine.value)
                and (o.seconds, o.memory, o.value) != (mine.seconds, mine.memory, mine.value)
                for o in points
            )
            assert mine.efficient == (not dominated)


@pytest.fixture
def document(mixed):
    records = mixed.records[:2]
    ids = {(r.identity.suite, r.identity.run_id): r.identity.run_id for r in records}
    rankings = tuple(history.rank_runs(records, ids, None))
    return DocumentView(
        suite=mixed.model_copy(update={"records": records}), rankings=rankings, kind="study"
    )


def test_a_run_without_a_measured_memory_has_no_point(document, make):
    (ranking,) = document.rankings
    points, higher = costs.build_cost_points(document.suite, ranking, TEXT)
    assert (len(points), higher) == (2, True)
    first, second = document.suite.records
    unknown = second.model_copy(update={"memory": make.unknown_memory()})
    view = document.suite.model_copy(update={"records": (first, unknown)})
    points, _ = costs.build_cost_points(view, ranking, TEXT)
    assert [(p.name, p.efficient) for p in points] == [("clip-nano", True)]


def test_step_times_leave_out_the_warm_up_and_few_windows(document):
    first, second = document.suite.records
    slow = [(float(x), 9.0) for x in range(1, 20)]
    timed = [(float(x), 0.1) for x in range(30, 40)]
    view = document.suite.model_copy(update={"curves": {
        first.identity.run_id: RunCurves(curves={"step_seconds": slow + timed}),
        second.identity.run_id: RunCurves(curves={"step_seconds": timed[:3]}),
    }})  # fmt: skip
    (row,) = costs.list_step_times(view, TEXT)
    assert list(row.windows) == pytest.approx([100.0] * 10)
    assert (row.median, row.p95) == pytest.approx((118.3, 142.1))


def test_a_forest_has_a_row_a_run_in_the_order_of_the_ranking(document):
    ((panel, *_),) = intervals.list_panels(document)
    assert (panel.split, panel.metric) == ("emoji_val", "recall@1")
    assert [g.runs[0] for g in panel.groups] == [p.runs[0] for p in document.rankings[0].places]
    assert set(panel.verdicts.values()) <= {"best", "worse", "not distinguishable", "no interval"}


def test_every_figure_is_drawn_twice_with_the_same_bytes(document):
    first = document.suite.records[0]
    walls = itertools.count(60.0, 10.0)
    records = tuple(
        r.model_copy(update={"timing": r.timing.model_copy(
            update={"end_to_end_seconds": Reading(value=next(walls))})})
        for r in document.suite.records
    )  # fmt: skip
    steps = [(float(x), 0.1 + 0.001 * (x % 7)) for x in range(30, 60)]
    curves = {
        run: recorded.model_copy(update={"curves": {**recorded.curves, "step_seconds": steps}})
        for run, recorded in document.suite.curves.items()
    }
    view = document.suite.model_copy(update={"records": records, "curves": curves})
    full = document.model_copy(update={"suite": view})
    drawn, again = figures.draw_figures(full), figures.draw_figures(full)
    assert list(drawn.figures) == ["intervals", "costs", "loss", "steps", "memory"]
    assert drawn == again
    assert first.identity.run_id in view.curves
