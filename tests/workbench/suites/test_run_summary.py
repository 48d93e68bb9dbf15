"""Runs as text: headline metric, numbers, labels that distinguish them."""

from __future__ import annotations

from engines import messages, protocol
from results.text.metric_names import headline_metric
from workbench.suites import quantities, run_summary
from workbench.suites.state import RunState, RunView, SuiteState, reduce_entries


def test_one_metric_stands_for_a_run() -> None:
    def metric(name: str, split: str) -> messages.Metric:
        return messages.Metric(name=name, value=1.0, split=split, n=1)

    loss, trained = metric("loss", "val"), metric("loss", "train")
    accuracy = metric("accuracy", "test")
    assert headline_metric([trained, loss, accuracy]) == accuracy
    assert headline_metric([trained, loss]) == loss
    assert headline_metric([trained]) == trained
    assert headline_metric([]) is None


def test_the_loss_of_a_run_is_the_end_of_its_curve() -> None:
    """A short last batch has another loss; it was in the row and not in the chart."""
    plan = messages.Plan(steps=2, samples=72, effective_batch=64, micro_batch=64)
    steps = (
        messages.Step(t=1.0, step=1, count=1, samples=64, seconds=1.0, loss=2.0, lr=1e-3),
        messages.Step(t=2.0, step=2, count=1, samples=8, seconds=0.2, loss=0.5, lr=1e-3),
    )
    entries = [
        protocol.Entry(seq=number, wall=0.0, src="engine", msg=message)
        for number, message in enumerate((plan, *steps))
    ]
    run = reduce_entries(entries)
    assert run_summary.format_numbers(run).loss == quantities.number(run.curves["loss"].last[1])
    assert run_summary.format_numbers(run).loss == "2.000"


def test_runs_that_look_alike_are_told_apart() -> None:
    def spec(**more: object) -> protocol.RunSpec:
        table = {"suite": "s", "run_id": "r", "engine": "e", "subset": "a", "model": "m",
                 "params": {}, "cache_root": "c", **more}  # fmt: skip
        return protocol.RunSpec.model_validate(table)

    seeds = [spec(seed=1), spec(seed=2), spec(subset="b", seed=2)]
    assert run_summary.distinguishing_labels(seeds, seeds=True) == ["seed 1", "seed 2", ""]
    assert run_summary.distinguishing_labels(seeds, seeds=False) == ["", "", ""]
    variants = [spec(label="all on"), spec(label="no cache", repeat=1)]
    assert run_summary.distinguishing_labels(variants, seeds=True) == [
        "all on repeat 1",
        "no cache repeat 2",
    ]
    state = SuiteState("s", runs=tuple(RunView(s, "f", RunState()) for s in seeds[:2]))
    assert [row[0] for row in run_summary.suite_rows(state)[1]] == ["a m seed 1", "a m seed 2"]
