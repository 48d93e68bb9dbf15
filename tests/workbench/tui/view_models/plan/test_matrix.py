"""The runs of a plan as a matrix, and the box with their costs."""

from __future__ import annotations

from workbench.pricing import costs
from workbench.tui.view_models.plan import matrix
from workbench.tui.view_models.plan_draft import PreviewRun


def test_a_product_is_a_matrix_and_everything_else_a_list() -> None:
    time = costs.TimeEstimate(280.0, None, 1)
    runs = [
        PreviewRun(f"{s}{m}", "e", s, m, 42, 0, cost=costs.RunCost(128, time, 2 << 30, "measured"))
        for s in "ab"
        for m in ("clip", "effnet")
    ]
    columns, rows, _ = matrix.run_grid(runs)
    assert [column.title for column in columns] == ["subset", "clip", "effnet"]
    assert rows[0][1].text == "128 st  4:40"
    assert rows[-1][1].text == "2.00 GiB"
    folds = [PreviewRun(f"f{n}", "e", "a", "clip", 42, 0, part=f"fold {n}") for n in (1, 2)]
    columns, rows, keys = matrix.run_grid(folds)
    assert columns == matrix.LIST
    assert keys == ["f1", "f2"]
    assert rows[0][3].text == "fold 1 s42"


def test_the_box_says_what_is_known_and_what_is_not() -> None:
    machine = costs.MachineState(20 << 30, "on this host", 70 << 30, "busy: it queues behind x")
    time = costs.TimeEstimate(280.0, 30.0, 5)
    known = costs.RunCost(128, time, 2 << 30, "measured", 3 << 20)
    done = costs.RunCost(128, time, 2 << 30, "measured", done="s")
    lines = dict(matrix.describe_costs([known, known, done], machine, 0.0, keep=True))
    assert lines["time"].startswith("9:20 [8:38, 10:02]")
    assert lines["time"].endswith("from 5 earlier runs")
    assert "2.00 GiB of 20.0 GiB on this host, measured" in lines["memory"]
    assert lines["disk"] == "6.00 MiB to write, 70.0 GiB free"
    assert lines["device"] == "busy: it queues behind x"
    assert lines["done"] == "1 of 3 with equal settings: kept, f runs it again"
    again = dict(matrix.describe_costs([known, known, done], machine, 0.0, keep=False))
    assert again["time"].startswith("14:00")
    nothing = dict(matrix.describe_costs([costs.RunCost(5)], machine, 0.0, keep=True))
    assert "not known yet" in nothing["time"]
    assert "P measures" in nothing["time"]
