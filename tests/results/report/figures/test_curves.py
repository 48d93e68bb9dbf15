"""Curves: runs that differ by their seed are one line in a band; phases and flags are shown."""

import numpy as np
import pytest

from results.records.suite_view import RunCurves, SuiteView

curves = pytest.importorskip("results.report.figures.curves")
drawing = pytest.importorskip("results.report.figures.drawing")
run_groups = pytest.importorskip("results.report.figures.run_groups")

TEXT = drawing.FigureText()


def seeded(record, seed, **changes):
    run = f"{record.identity.run_id}-s{seed}"
    return record.model_copy(
        update={
            "identity": record.identity.model_copy(update={"run_id": run, "seed": seed}),
            **changes,
        }
    )


def test_seeds_are_one_line_and_models_are_others(mixed):
    first, second, _ = mixed.records
    records = [*(seeded(first, seed) for seed in (1, 2, 3)), second]
    falling = RunCurves(curves={"loss": [(1.0, 2.0), (2.0, 1.0)]})
    view = SuiteView(
        name="s", records=records, curves={r.identity.run_id: falling for r in records}
    )
    (panel,) = curves.build_loss_panels(view, TEXT)
    assert panel.title == "emoji_train"
    assert [(line.label, len(line.members)) for line in panel.lines] == [
        ("clip-nano, 3 seeds", 3), ("effnet-minilm", 1),
    ]  # fmt: skip


def test_a_band_is_where_all_seeds_have_values():
    members = [[(0, 1.0), (2, 3.0), (4, 5.0)], [(1, 4.0), (3, 6.0)]]
    grid, mean, low, high = curves.join_members(members)
    assert (grid[0], grid[-1]) == (1, 3)
    assert np.allclose(low, grid + 1)
    assert np.allclose(high, grid + 3)
    assert np.allclose(mean, grid + 2)


def test_curves_at_the_same_places_keep_them_and_nan_is_left_out():
    same = [[(1, 1.0), (2, float("nan")), (3, 2.0)], [(1, 3.0), (2, 9.0), (3, 4.0)]]
    grid, mean, *_ = curves.join_members([same[0][::2], same[1][::2]])
    assert list(grid) == [1, 3]
    assert list(mean) == [2.0, 3.0]
    grid, mean, *_ = curves.join_members(same)
    assert np.isfinite(mean).all()
    assert curves.join_members([[(1, float("nan"))]])[0].size == 0


def test_a_flagged_run_is_flagged_in_its_line(mixed):
    run = mixed.records[2].identity.run_id
    view = mixed.model_copy(
        update={"curves": {run: RunCurves(curves={"loss": [(0, 2.0), (1, 1.0)]})}}
    )
    ((line,),) = (panel.lines for panel in curves.build_loss_panels(view, TEXT))
    assert line.label == "clip-nano [oom-cuda, stub GPU, contaminated, OOM ×2, attempt 2]"


def test_a_long_curve_is_smoothed_without_moving_its_level():
    points = [(float(x), 1.0 if x % 2 else 3.0) for x in range(200)]
    smooth = curves.smooth(points)
    assert len(smooth) == 200
    assert all(abs(y - 2.0) < 0.2 for _, y in smooth[10:-10])
    assert curves.smooth(points[:20]) == points[:20]


def test_a_name_that_cannot_be_drawn_is_replaced_by_one_that_can(mixed):
    first = mixed.records[0]
    korean = first.model_copy(
        update={"identity": first.identity.model_copy(update={"label": "큰 모델"})}
    )
    groups = run_groups.group_runs(SuiteView(name="s", records=(korean,)), [first.identity.run_id])
    assert run_groups.name_groups(groups, TEXT) == ["clip-nano"]
    hangul = drawing.FigureText(hangul=True)
    assert run_groups.name_groups(groups, hangul) == ["큰 모델"]


def test_neighbouring_phases_of_one_name_are_one():
    spans = [("load", 0, 1), ("train", 1, 2), ("train", 2, 5), ("eval", 5, 6)]
    assert curves.join_phases(spans) == [("load", 0, 1), ("train", 1, 5), ("eval", 5, 6)]


def test_phases_change_the_drawing_of_memory(mixed):
    run = mixed.records[0].identity.run_id
    recorded = mixed.curves[run]
    drawn = [
        curves.draw_memory(
            mixed.model_copy(update={"curves": {run: recorded.model_copy(update={"phases": p})}}),
            TEXT,
        )["svg"]
        for p in ((), (("load", 0.0, 20.0), ("train", 20.0, 79.0)))
    ]
    assert drawn[0] != drawn[1]


def test_losses_that_fall_far_have_a_logarithmic_axis():
    def line(*values: float) -> curves.CurveLine:
        return curves.CurveLine("a", [[(float(x), y) for x, y in enumerate(values)]])

    assert curves.is_wide([line(10.0, 3.0, 1.0)])
    assert curves.is_wide([line(5.0, 4.0), line(0.4, 0.3)])
    assert not curves.is_wide([line(5.0, 0.6)])
    assert not curves.is_wide([line(5.0, 0.0)]), "a logarithm needs values above 0"
    assert curves.is_wide([line(float("nan"), 20.0, 1.0)])
    assert not curves.is_wide([])


def test_folds_and_their_ensemble_are_told_apart_by_their_task(mixed):
    first = mixed.records[0]
    ensemble = first.identity.model_copy(update={"run_id": "e", "task": "ensemble", "label": ""})
    train = first.identity.model_copy(update={"label": ""})
    records = tuple(first.model_copy(update={"identity": i}) for i in (train, ensemble))
    groups = run_groups.group_runs(
        SuiteView(name="s", records=records), [train.run_id, ensemble.run_id]
    )
    assert run_groups.name_groups(groups, TEXT) == ["clip-nano · train", "clip-nano · ensemble"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_loss_that_was_never_a_number_is_drawn_beside_others(count):
    lost = [(float(step), float("nan")) for step in range(80)]
    members = {"lost": [lost] * count, "kept": [[(0.0, 2.0), (80.0, 1.0)]]}
    _, (axis,) = drawing.make_panels(1)
    for number, (name, points) in enumerate(members.items()):
        curves._draw_line(axis, curves.CurveLine(name, points), number)
    labels = [line.get_label() for line in axis.lines]
    assert labels[-2:] == ["lost: NaN" if count == 1 else "lost", "kept: 1.000"]


def test_curves_that_never_overlap_have_no_mean():
    grid, mean, *_ = curves.join_members([[(0.0, 1.0), (10.0, 2.0)], [(20.0, 3.0), (30.0, 4.0)]])
    assert len(grid) == len(mean) == 0
