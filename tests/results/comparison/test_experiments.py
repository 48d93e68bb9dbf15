"""Versions of an experiment, and the run that a run is compared with."""

from __future__ import annotations

import pytest

from results.comparison import experiments
from results.records.schema import Exit


def run(make, number, label="", *, suite="s", ended=0.0, **identity):
    names = {"suite": suite, "label": label, **identity}
    return make.record(f"{number:02d}-run", identity=names, ended_wall=ended)


@pytest.mark.parametrize(("label", "name", "version"), [
    ("E5-v3", "E5", 3), ("E5", "E5", 1), ("big_v12", "big", 12), ("v2", "v2", 1), ("", "", 1),
])  # fmt: skip
def test_labels(label, name, version) -> None:
    assert experiments.split_label(label) == (name, version)


def test_the_baseline_is_named_or_previous_or_first(make) -> None:
    first, e5, e5_2, e5_4, other = (
        run(make, n, label, suite=suite) for n, (label, suite) in enumerate(
            [("E1", "s"), ("E5", "old"), ("E5-v2", "old"), ("E5-v4", "s"), ("E9-v2", "s")], 1
        )
    )  # fmt: skip
    runs = [first, e5, e5_2, e5_4, other]
    assert experiments.find_baseline(e5_4, runs) == (e5_2, "previous"), "the last before it"
    assert experiments.find_baseline(e5_2, runs) == (e5, "previous"), "without a version: v1"
    assert experiments.find_baseline(other, runs[::-1]) == (first, "first"), "by their numbers"
    assert experiments.find_baseline(e5_4, runs, "E1") == (first, "named")
    assert experiments.find_baseline(e5_4, runs, "E7") is None, "named, and not there"
    assert experiments.find_baseline(first, runs) is None


def test_a_baseline_did_the_same_and_completed(make) -> None:
    now = run(make, 9, "E5-v3", params={"fold": 2})
    failed = run(make, 1, "E5-v2", params={"fold": 2}).model_copy(
        update={"exit": Exit(cause="failed")}
    )
    fold = run(make, 2, "E5-v2", params={"fold": 1})
    task = run(make, 3, "E5-v2", params={"fold": 2}, task="evaluate")
    assert experiments.find_baseline(now, [failed, fold, task]) is None
    seeds = [run(make, n, "E5-v2", params={"fold": 2}, seed=seed) for n, seed in ((4, 1), (5, 42))]
    found = experiments.find_baseline(now, [failed, fold, task, *seeds])
    assert found == (seeds[1], "previous"), "of the same seed"


def test_the_nearest_run_of_an_earlier_week(make) -> None:
    now = run(make, 1, "E5-v2", params={"lr": 1e-3, "batch": 8, "data_root": "/here"})
    alike = run(make, 2, "E5", params={"lr": 1e-3, "batch": 8, "data_root": "/there"}, ended=1.0)
    later = run(make, 3, "E5", params={"lr": 1e-3, "batch": 4}, ended=9.0)
    model = run(make, 4, "E5", params=now.identity.params, model="other")
    assert experiments.find_earlier(now, [later, alike, model]) is alike
    assert experiments.changed_settings(alike, now) == []
    assert experiments.changed_settings(later, now) == [("batch", 4, 8)]
    assert experiments.find_earlier(now, [model]) is None


def test_settings_of_stages_are_compared_by_stage(make) -> None:
    a = run(make, 1, params={"stages": [{"lr": 1e-4, "epochs": 2}]})
    b = run(make, 2, params={"stages": [{"lr": 1e-3, "epochs": 2}, {"lr": 5e-5}]})
    assert experiments.changed_settings(a, b) == [
        ("stage 1: lr", 1e-4, 1e-3), ("stage 2: lr", None, 5e-5),
    ]  # fmt: skip
