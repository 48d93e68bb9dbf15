"""The Optuna study: what it suggests, what it prunes, and that killing it changes neither."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest

from workbench.planning.search_space import SearchPlan, Settings

optuna = pytest.importorskip("optuna")

from workbench.tuning.optuna_study import SpaceExhaustedError, TuningStudy  # noqa: E402

REAL = {"lr": {"low": 1e-6, "high": 1e-1, "log": True}, "drop": {"low": 0.0, "high": 0.5}}
FEW = {"batch": [8, 16, 32], "layers": [[3, 7], [5]]}


def search(**more: object) -> SearchPlan:
    return SearchPlan.model_validate({"metric": "recall@1", "ranges": REAL, "startup": 4, **more})


def height(settings: Settings) -> float:
    return 1 - (math.log10(settings["lr"] / 1e-3) / 3) ** 2 - (settings["drop"] - 0.1) ** 2


def allowed(_: Settings) -> bool:
    return True


def go(study: TuningStudy, count: int) -> list[Settings]:
    """`count` trials of the hill."""
    taken: list[Settings] = []
    for number in range(1, count + 1):
        chosen = study.suggest(number, taken, allowed, None)
        study.add_trial(f"t{number}", chosen)
        study.tell_result(f"t{number}", "completed", height(chosen))
        taken.append(chosen)
    return taken


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_suggestions_do_not_depend_on_how_often_it_was_killed(sampler: str) -> None:
    """A study that is rebuilt from the runs before each suggestion."""

    def rebuild(runs: list[Settings]) -> TuningStudy:
        study = TuningStudy(search(sampler=sampler, direction="maximize"), ())
        for number, settings in enumerate(runs, 1):
            study.add_trial(f"t{number}", settings)
            study.tell_result(f"t{number}", "completed", height(settings))
        return study

    once = go(rebuild([]), 12)
    often: list[Settings] = []
    for number in range(1, 13):
        often.append(rebuild(often).suggest(number, often, allowed, None))
    assert once == often
    assert len({json.dumps(s) for s in once}) == 12


def test_it_learns_what_random_draws_do_not() -> None:
    best = {}
    for sampler in ("tpe", "random"):
        found = []
        for seed in range(4):
            study = TuningStudy(search(sampler=sampler, seed=seed), ())
            study.direction = "maximize"
            taken = go(study, 30)
            found.append(sum(height(s) for s in taken[-15:]) / 15)
        best[sampler] = sum(found) / len(found)
    assert best["tpe"] > best["random"] + 0.05


def test_values_are_the_types_that_the_settings_take() -> None:
    ranges = {
        "lr": REAL["lr"], "epochs": {"low": 1, "high": 9},
        "batch": {"low": 8, "high": 64, "log": True},
        "decay": {"low": 0, "high": 1, "step": 0.25}, "layers": [[3, 7], [5]], "pin": [True, False],
    }  # fmt: skip
    study = TuningStudy(search(ranges=ranges), ("epochs", "batch"))
    taken: list[Settings] = []
    for number in range(1, 30):
        found = study.suggest(number, taken, allowed, None)
        taken.append(found)
        assert type(found["epochs"]) is int
        assert 1 <= found["epochs"] <= 9
        assert type(found["batch"]) is int
        assert 8 <= found["batch"] <= 64
        assert 1e-6 <= found["lr"] <= 1e-1
        assert len(f"{found['lr']:.10e}".split("e")[0].rstrip("0")) <= 5, "four digits"
        assert found["decay"] in (0, 0.25, 0.5, 0.75, 1)
        assert found["layers"] in ([3, 7], [5])
        assert type(found["pin"]) is bool
    for name in ("epochs", "batch", "decay", "pin"):
        assert len({str(found[name]) for found in taken}) > 1


def test_no_choice_is_made_twice_and_the_last_one_is_found() -> None:
    study = TuningStudy(search(ranges=FEW), ())
    study.direction = "maximize"
    taken: list[Settings] = []

    def every() -> Iterator[Settings]:
        return ({"batch": b, "layers": s} for b in (8, 16, 32) for s in ([3, 7], [5]))

    for number in range(1, 7):
        found = study.suggest(number, taken, allowed, every())
        study.add_trial(f"t{number}", found)
        study.tell_result(
            f"t{number}", "completed", 1.0
        )  # nothing to learn: TPE would repeat itself
        taken.append(found)
    assert sorted(map(str, taken)) == sorted(map(str, every()))
    with pytest.raises(SpaceExhaustedError, match="no settings for trial 7 are left: 6 were tried"):
        study.suggest(7, taken, allowed, every())


def test_settings_that_the_engine_refuses_together_are_not_suggested() -> None:
    study = TuningStudy(search(), ())
    found = [study.suggest(n, [], lambda s: s["drop"] > 0.4, None) for n in range(1, 20)]
    assert all(s["drop"] > 0.4 for s in found)


def told(study: TuningStudy, run: str, values: list[float]) -> list[bool]:
    study.add_trial(run, {"lr": 1e-3, "drop": 0.2})
    return [study.report(run, place, value) for place, value in enumerate(values, 1)]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_trial_below_the_median_is_pruned_after_startup_and_warm_up(direction: str) -> None:
    sign = 1 if direction == "maximize" else -1
    study = TuningStudy(search(startup=3, prune_after=0.25), ())
    study.direction = direction
    for number, level in enumerate((1.0, 2.0, 3.0), 1):
        assert not any(told(study, f"t{number}", [sign * level] * 20)), "startup"
        study.tell_result(f"t{number}", "completed", level)
    worse = told(study, "t4", [sign * 1.9] * 20)
    assert worse[:4] == [False] * 4, "5 of 20 points are the first quarter"
    assert worse[4]
    study.tell_result("t4", "pruned", None)
    assert not any(told(study, "t5", [sign * 2.1] * 20))
    nothing = TuningStudy(search(startup=1, pruner="none"), ())
    nothing.direction = "maximize"
    told(nothing, "t1", [1.0] * 20)
    nothing.tell_result("t1", "completed", 1.0)
    assert not any(told(nothing, "t2", [-9.0] * 20))


def test_a_diverged_trial_is_pruned() -> None:
    study = TuningStudy(search(startup=1, prune_after=0), ())
    study.direction = "maximize"
    told(study, "t1", [1.0] * 20)
    study.tell_result("t1", "completed", 1.0)
    assert told(study, "t2", [1.0, math.nan]) == [False, True]
    first = TuningStudy(search(pruner="none"), ())
    first.direction = "maximize"
    assert told(first, "t1", [math.nan]) == [False]


def test_a_failed_run_that_was_completed_later_counts() -> None:
    study = TuningStudy(search(direction="maximize"), ())

    def results() -> list[tuple[str, float | None]]:
        return [(t.state.name, t.value) for t in study._build_study().trials]

    study.add_trial("t1", {"lr": 1e-3, "drop": 0.2})
    assert results() == []
    study.tell_result("t1", "failed", None)
    assert results() == [("FAIL", None)]
    study.add_trial("t1", {"lr": 1e-3, "drop": 0.2})
    study.tell_result("t1", "completed", 0.7)
    study.tell_result("t1", "completed", 0.9)  # a completed run keeps its result
    assert results() == [("COMPLETE", 0.7)]


def test_importances_need_ten_trials_and_name_what_matters() -> None:
    study = TuningStudy(search(sampler="random"), ())
    study.direction = "maximize"
    taken: list[Settings] = []
    for number in range(1, 26):
        assert bool(study.importances()) == (number > 10)
        chosen = study.suggest(number, taken, allowed, None)
        study.add_trial(f"t{number}", chosen)
        study.tell_result(f"t{number}", "completed", -abs(math.log10(chosen["lr"] / 1e-3)))
        taken.append(chosen)
    found = study.importances()
    assert list(found) == ["lr", "drop"]
    assert found["lr"] > 0.7
    assert sum(found.values()) == pytest.approx(1)
