"""Costs of planned runs from earlier ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workbench.tui import sample_suites
from workbench.memory_estimate.memory_check import UnknownDevice
from workbench.planning import done_runs
from workbench.tui.view_models.plan import costs, matrix, pricing
from workbench.tui.view_models.plan.earlier import EarlierRun, EarlierRuns
from workbench.tui.view_models.plan_draft import PreviewRun

PARAMS = {"batch": 32, "epochs": 1}


def earlier(seconds: float, training: float, steps: int, **more: object) -> EarlierRun:
    table = {
        "suite": "s", "engine": "e", "subset": "a", "model": "m", "key": "k", "params": PARAMS,
        "seconds": seconds, "training_seconds": training, "steps": steps, **more,
    }  # fmt: skip
    return EarlierRun(**table)


def test_training_grows_with_the_samples_and_the_rest_does_not() -> None:
    run = earlier(100.0, 80.0, 100)
    assert costs.estimate_time(200, PARAMS, "a", [run]) == costs.TimeEstimate(180.0, None, 1)
    larger = costs.estimate_time(100, {"batch": 64}, "a", [run])
    assert larger is not None
    assert larger.seconds == pytest.approx(180.0)
    assert costs.estimate_time(None, PARAMS, "a", [run]) is None
    evaluation = earlier(50.0, 0.0, 0)
    assert costs.estimate_time(None, {}, "a", [evaluation]) == costs.TimeEstimate(50.0, None, 1)


def test_three_runs_give_an_interval_of_the_next_one() -> None:
    """Student's t of two degrees: 4.303 x s x sqrt(1 + 1/3), s = 10."""
    runs = [earlier(seconds, 0.0, 10) for seconds in (90.0, 100.0, 110.0)]
    time = costs.estimate_time(10, PARAMS, "a", runs)
    assert time is not None
    assert time.half_width == pytest.approx(4.303 * 10 * (4 / 3) ** 0.5)
    assert costs.format_time(time) == "1:40 [0:50, 2:30]"
    assert costs.format_time(None) == "–"
    two = costs.RunCost(time=time)
    total, unknown = costs.sum_times([two, two, costs.RunCost(), costs.RunCost(done="s")])
    assert unknown == 1
    assert total is not None
    assert total.seconds == 200
    assert total.half_width == pytest.approx((2 * (time.half_width or 0) ** 2) ** 0.5)


def test_the_most_alike_runs_are_taken() -> None:
    other_batch = earlier(1.0, 1.0, 1, params={"batch": 8})
    alike, elsewhere = earlier(1.0, 1.0, 1), earlier(1.0, 1.0, 1, subset="b")
    stranger = earlier(1.0, 1.0, 1, model="n")

    def select(*runs: EarlierRun) -> list[EarlierRun]:
        return costs.select_earlier("e", "a", "m", PARAMS, runs)

    assert select(other_batch, alike, elsewhere, stranger) == [alike]
    assert select(other_batch, elsewhere, stranger) == [other_batch]
    assert select(elsewhere, stranger) == [elsewhere]
    assert select(stranger) == []
    time = costs.estimate_time(1, PARAMS, "a", [elsewhere])
    assert time is not None
    assert time.other_subset == "b"


def test_earlier_values_stand_with_their_results() -> None:
    runs = [
        earlier(1.0, 1.0, 1, params={"epochs": value}, score=score, metric="recall@1")
        for value, score in ((8.0, 0.5), (8.0, 0.67), (1.0, 0.33))
    ]
    assert costs.describe_values("e", "epochs", runs) == (
        "Earlier: 8 (2 runs, best recall@1 0.670), 1 (1 run, best recall@1 0.330)."
    )
    assert costs.describe_values("e", "lr", runs) == ""
    assert costs.describe_values("vqa", "epochs", runs) == ""


def test_runs_of_this_machine_are_read_and_done_ones_known(log_root: Path, tmp_path: Path) -> None:
    first, second, *_ = sample_suites.demo_specs(log_root, tmp_path / "cache")
    reader = EarlierRuns(log_root)
    assert reader.read() == ()
    for spec, host in ((first, None), (second, "elsewhere")):
        sample_suites.append_record(
            log_root, sample_suites.record_of(spec, seconds=100.0, host=host)
        )
    with (log_root / "results.jsonl").open("ab") as file:
        file.write(b'{"torn": "completed"')
    (run,) = reader.read()
    assert (run.seconds, run.training_seconds, run.steps) == (100.0, 50.0, 128)
    assert run.key == done_runs.spec_key(first)
    changed = first.model_copy(update={"params": {**first.params, "epochs": 3.0}})
    done = done_runs.find_done_runs([first, changed], log_root)
    assert list(done) == [first.run_id]
    needy = second.model_copy(update={"needs": (first.run_id,)})
    assert not done_runs.find_done_runs([first, needy], log_root).get(first.run_id)


def test_seeds_cost_the_same_and_are_done_apart(log_root: Path, tmp_path: Path) -> None:
    first = sample_suites.demo_specs(log_root, tmp_path / "cache")[0]
    other = first.model_copy(update={"seed": 7, "run_id": "other"})
    sample_suites.append_record(log_root, sample_suites.record_of(first, seconds=100.0))
    runs, device = EarlierRuns(log_root).read(), UnknownDevice("in a test")
    done, planned = pricing.price_runs([first, other], tmp_path / "cache", runs, device)
    assert done.done
    assert not planned.done
    assert (planned.steps, planned.time) == (done.steps, done.time)
    assert planned.memory == done.memory
    assert planned.memory is not None


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
