"""Experiments on a run: which are possible, and the plans that they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.protocol import RunSpec
from workbench.audit import experiments
from workbench.audit.rules import RULES
from workbench.planning import plan


def spec(engine: str = "retrieval", **changes: Any) -> RunSpec:
    params = {"lr": 1e-3, "num_workers": "auto", "batch": 8, "max_steps": None, "loss": "sigmoid"}
    base = {
        "suite": "20261130-101500-demo-1a2b", "run_id": "01-a", "engine": engine, "cpu": True,
        "subset": "emoji_train", "model": "clip-nano", "cache_root": "c", "params": params,
        "seed": 7,
    }  # fmt: skip
    return RunSpec.model_validate({**base, **changes})


def find(code: str) -> experiments.Experiment:
    experiment = experiments.find_experiment(code)
    assert experiment is not None
    return experiment


def test_sides_of_a_training_are_cost_probes_that_differ_in_one_setting() -> None:
    made = experiments.make_plan(find("loader-threads"), spec(), steps=40)
    assert (made.cost_probe, made.seeds, made.models, made.cpu) == (40, (7,), ("clip-nano",), True)
    assert made.settings == {"lr": 1e-3, "num_workers": "auto", "batch": 8, "loss": "sigmoid"}
    was, changed = made.variants
    assert (was.label, was.settings) == (experiments.AS_IT_WAS, {})
    assert changed.settings == {"num_workers": 2}
    slower = experiments.make_plan(find("tenth-rate"), spec())
    assert slower.variants[1].settings == {"lr": pytest.approx(1e-4)}
    assert plan.parse(made.model_dump(mode="json", by_alias=True)) == made
    tuned = experiments.make_plan(find("tenth-rate"), spec(model="run:01-train"))
    assert tuned.models == ("run:20261130-101500-demo-1a2b/01-train",), "of the run's own suite"


def test_shuffled_images_evaluate_the_trained_model_once(tmp_path: Path) -> None:
    made = experiments.make_plan(find("shuffled-images"), spec())
    assert (made.task, made.models) == ("evaluate", ("run:20261130-101500-demo-1a2b/01-a",))
    assert made.settings["evaluate_modalities"] == ["both", "shuffled"]
    assert "loss" not in made.settings, "what shapes the model comes from the trained one"


@pytest.mark.parametrize(
    ("code", "made", "reason"),
    [
        ("loader-threads", spec(task="evaluate"), "trains nothing"),
        ("tenth-rate", spec(params={"lr": 0.1, "stages": [{"lr": 0.1}]}), "rate of its own"),
        ("tenth-rate", spec("probe", task="train"), "has no cost probe"),
        ("shuffled-images", spec("captioning"), "loss_other_picture"),
        ("shuffled-images", spec("probe"), "reads no images"),
        ("shuffled-images", spec(), "left no checkpoint"),
    ],
)
def test_an_impossible_one_says_why(code: str, made: RunSpec, reason: str, tmp_path: Path) -> None:
    assert reason in find(code).find_problem(made, tmp_path / "gone")


def test_rules_that_ask_for_experiments_exist() -> None:
    notices = {"loss-not-finite", "pictures-unused"}
    asking = {code for each in experiments.EXPERIMENTS for code in each.asked_by}
    assert asking - {rule.code for rule in RULES} == notices
