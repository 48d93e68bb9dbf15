"""Costs of planned runs from earlier ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.protocol import Probe, RunSpec
from results.records.schema import ForecastRecord, Reading
from tests.workbench.tui import sample_suites
from workbench.memory_estimate.memory_check import UnknownDevice
from workbench.planning import done_runs
from workbench.pricing import costs, pricing
from workbench.pricing.earlier import EarlierRun, EarlierRuns

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
    assert costs.estimate_time(None, {**PARAMS, "epochs": 2}, "a", [run]) is None
    assert costs.estimate_time(None, PARAMS, "b", [run]) is None
    equal = costs.estimate_time(None, PARAMS, "a", [run])
    assert equal == costs.TimeEstimate(100.0, None, 1), "of equal work, whose rows are not known"
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

    spec = RunSpec(
        suite="", run_id="1", engine="e", task="train", subset="a", model="m", params=PARAMS,
        cache_root="",
    )  # fmt: skip

    def select(*runs: EarlierRun) -> list[EarlierRun]:
        return costs.select_earlier(spec, runs)

    assert select(other_batch, alike, elsewhere, stranger) == [alike]
    assert select(other_batch, elsewhere, stranger) == [other_batch]
    assert select(elsewhere, stranger) == [elsewhere]
    assert select(stranger) == []
    evaluation = earlier(1.0, 0.0, 0, task="evaluate")
    assert select(evaluation) == [], "a training is not priced as an evaluation"
    evaluate = spec.model_copy(update={"task": "evaluate", "model": "run:s/1", "base_model": "m"})
    assert costs.select_earlier(evaluate, [alike, evaluation]) == [evaluation]
    longer = earlier(1.0, 1.0, 1, params={**PARAMS, "epochs": 9})
    assert select(longer, alike) == [alike], "one of equal settings counts before one of equal size"
    time = costs.estimate_time(1, {**PARAMS, "epochs": 5, "projector": "b"}, "a", [
        earlier(1.0, 1.0, 1, params={**PARAMS, "projector": "a"})])  # fmt: skip
    assert time is not None
    assert time.other_settings == ("projector",), "the length is scaled, the projector is not"
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
    needy = changed.model_copy(update={"needs": (first.run_id,), "run_id": "ensemble"})
    assert not done_runs.find_done_runs([first, needy], log_root).get(first.run_id)
    sample_suites.append_record(log_root, sample_suites.record_of(needy, seconds=100.0))
    done = done_runs.find_done_runs([first, needy], log_root)
    assert list(done) == [first.run_id, needy.run_id], "a done ensemble needs its folds no more"
    costs_of = pricing.price_runs(
        [first, needy], tmp_path / "cache", reader.read(), UnknownDevice("in a test")
    )
    assert all(cost.done for cost in costs_of)


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


def test_a_cost_probe_is_a_price_where_there_is_no_whole_run(
    log_root: Path, tmp_path: Path
) -> None:
    """Start 10 s, run 110 ± 5 s to its 100th step: twice the steps take 210 ± 9.5 s."""
    spec = sample_suites.demo_specs(log_root, tmp_path / "cache")[0]
    probe = spec.model_copy(update={"task": "probe"})
    made = sample_suites.record_of(probe, seconds=30.0)
    forecast = ForecastRecord(
        steps=20, run_steps=100, epoch_seconds=Reading(value=100.0),
        run_seconds=Reading(value=110.0, low=105.0, high=115.0), start_seconds=Reading(value=10.0),
    )  # fmt: skip
    sample_suites.append_record(log_root, made.model_copy(update={"forecast": forecast}))
    runs = EarlierRuns(log_root).read()
    alike = costs.select_earlier(spec, runs)
    time = costs.estimate_time(200, spec.params, spec.subset, alike)
    assert time is not None
    assert (time.seconds, time.is_forecast, time.count) == (210.0, True, 1)
    assert time.half_width == pytest.approx(5 * 210 / 110)
    (cost,) = pricing.price_runs([spec], tmp_path / "cache", runs, UnknownDevice("in a test"))
    assert not cost.done, "a probe has done nothing"
    sample_suites.append_record(log_root, sample_suites.record_of(spec, seconds=500.0))
    both = costs.select_earlier(spec, EarlierRuns(log_root).read())
    assert [run.seconds for run in both] == [500.0], "a whole run counts, not a forecast"


def test_memory_of_other_sizes_is_no_measurement(log_root: Path, tmp_path: Path) -> None:
    spec = sample_suites.demo_specs(log_root, tmp_path / "cache")[0]
    sample_suites.append_record(log_root, sample_suites.record_of(spec, seconds=100.0))
    runs = EarlierRuns(log_root).read()
    larger = spec.model_copy(update={"params": {**spec.params, "batch": 4096}})
    cost, other = pricing.price_runs(
        [spec, larger], tmp_path / "cache", runs, UnknownDevice("in a test")
    )
    assert (cost.memory_source, other.memory) == ("measured", None)


def test_the_last_attempt_of_several_prices_no_whole_run(log_root: Path, tmp_path: Path) -> None:
    spec = sample_suites.demo_specs(log_root, tmp_path / "cache")[0]
    record = sample_suites.record_of(spec, seconds=1.0)
    identity = record.identity.model_copy(update={"attempt": 2})
    sample_suites.append_record(log_root, record.model_copy(update={"identity": identity}))
    runs, device = EarlierRuns(log_root).read(), UnknownDevice("in a test")
    (cost,) = pricing.price_runs([spec], tmp_path / "cache", runs, device)
    assert (cost.time, cost.memory) == (None, None), "it did what the first one left"
    assert cost.done


def test_a_cost_probe_costs_its_own_steps(log_root: Path, tmp_path: Path) -> None:
    spec = sample_suites.demo_specs(log_root, tmp_path / "cache")[0]
    sample_suites.append_record(log_root, sample_suites.record_of(spec, seconds=100.0))
    params = {**spec.params, "timing_warmup_steps": 2}
    probe = spec.model_copy(update={"task": "probe", "probe": Probe(steps=3), "params": params})
    runs, device = EarlierRuns(log_root).read(), UnknownDevice("in a test")
    whole, part = pricing.price_runs([spec, probe], tmp_path / "cache", runs, device)
    assert part.steps == 5
    assert whole.time is not None
    assert part.time is not None
    assert whole.time.seconds == 100.0
    assert part.time.seconds == pytest.approx(50 + 50 * 5 / 128)


def test_a_model_of_another_suite_with_the_same_id_is_another(
    log_root: Path, tmp_path: Path
) -> None:
    spec = sample_suites.demo_specs(log_root, tmp_path / "cache")[0]
    own = spec.model_copy(update={"model": "run:01-train", "task": "evaluate"})
    full_name = "run:20261127-120000-demo-71d3/01-train"
    stated = own.model_copy(update={"model": full_name, "run_id": "stated"})
    for each in (own, stated):
        sample_suites.append_record(log_root, sample_suites.record_of(each, seconds=100.0))
    assert done_runs.find_done_runs([own], log_root) == {}
    assert list(done_runs.find_done_runs([stated], log_root)) == [stated.run_id]
    runs, device = EarlierRuns(log_root).read(), UnknownDevice("in a test")
    mine, theirs = pricing.price_runs([own, stated], tmp_path / "cache", runs, device)
    assert (bool(mine.done), bool(theirs.done)) == (False, True)
