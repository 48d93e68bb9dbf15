"""The Optuna study: what it suggests, what it prunes, and that killing it changes neither."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workbench.planning.search_space import SearchPlan, Settings

optuna = pytest.importorskip("optuna")

from workbench.tuning.optuna_study import SpaceExhaustedError, TuningStudy, cut_torn_line  # noqa: E402

REAL = {"lr": {"low": 1e-6, "high": 1e-1, "log": True}, "drop": {"low": 0.0, "high": 0.5}}
FEW = {"batch": [8, 16, 32], "layers": [[3, 7], [5]]}


def search(**more: object) -> SearchPlan:
    return SearchPlan.model_validate({"metric": "recall@1", "ranges": REAL, "startup": 4, **more})


def height(settings: Settings) -> float:
    return 1 - (math.log10(settings["lr"] / 1e-3) / 3) ** 2 - (settings["drop"] - 0.1) ** 2


def allowed(_: Settings) -> bool:
    return True


def go(
    make: Callable[[], TuningStudy], count: int, *, reopened: bool = False
) -> tuple[list[Settings], TuningStudy]:
    """`count` trials of the hill; `reopened`: a new process, as it were, before each."""
    study = make()
    taken: list[Settings] = []
    for number in range(1, count + 1):
        if reopened:
            study = make()
        chosen = study.suggest(number, taken, allowed, None)
        study.add_trial(f"t{number}", chosen)
        study.tell_result(f"t{number}", "completed", height(chosen))
        taken.append(chosen)
    return taken, study


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_suggestions_do_not_depend_on_how_often_it_was_killed(tmp_path: Path, sampler: str) -> None:
    def fresh(name: str) -> Callable[[], TuningStudy]:
        def make() -> TuningStudy:
            study = TuningStudy(tmp_path / name, search(sampler=sampler), ())
            study.open("maximize")
            return study

        return make

    once, _ = go(fresh("a"), 12)
    often, _ = go(fresh("b"), 12, reopened=True)
    assert once == often
    assert len({json.dumps(s) for s in once}) == 12


def test_it_learns_what_random_draws_do_not(tmp_path: Path) -> None:
    best = {}
    for sampler in ("tpe", "random"):
        found = []
        for seed in range(4):
            study = TuningStudy(
                tmp_path / f"{sampler}{seed}", search(sampler=sampler, seed=seed), ()
            )
            study.open("maximize")
            taken, _ = go(lambda s=study: s, 30)
            found.append(sum(height(s) for s in taken[-15:]) / 15)
        best[sampler] = sum(found) / len(found)
    assert best["tpe"] > best["random"] + 0.05


def test_the_file_is_a_study_that_optuna_reads(tmp_path: Path) -> None:
    study = TuningStudy(tmp_path / "s.jsonl", search(), ())
    study.open("minimize")
    go(lambda: study, 3)
    study.add_trial("t4", {"lr": 1e-3, "drop": 0.25})
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "s.jsonl"))
    seen = optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))
    assert seen.direction.name == "MINIMIZE"
    assert [t.state.name for t in seen.trials] == ["COMPLETE"] * 3 + ["RUNNING"]
    assert [t.user_attrs["run"] for t in seen.trials] == ["t1", "t2", "t3", "t4"]
    assert seen.trials[3].params == {"lr": 1e-3, "drop": 0.25}


def test_values_are_the_types_that_the_settings_take(tmp_path: Path) -> None:
    ranges = {
        "lr": REAL["lr"], "epochs": {"low": 1, "high": 9},
        "batch": {"low": 8, "high": 64, "log": True},
        "decay": {"low": 0, "high": 1, "step": 0.25}, "layers": [[3, 7], [5]], "pin": [True, False],
    }  # fmt: skip
    study = TuningStudy(tmp_path / "s", search(ranges=ranges), ("epochs", "batch"))
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


def test_no_choice_is_made_twice_and_the_last_one_is_found(tmp_path: Path) -> None:
    study = TuningStudy(tmp_path / "s", search(ranges=FEW), ())
    study.open("maximize")
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


def test_settings_that_the_engine_refuses_together_are_not_suggested(tmp_path: Path) -> None:
    study = TuningStudy(tmp_path / "s", search(), ())
    found = [study.suggest(n, [], lambda s: s["drop"] > 0.4, None) for n in range(1, 20)]
    assert all(s["drop"] > 0.4 for s in found)


def told(study: TuningStudy, run: str, values: list[float]) -> list[bool]:
    study.add_trial(run, {"lr": 1e-3, "drop": 0.2})
    return [study.report(run, place, value) for place, value in enumerate(values, 1)]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_trial_below_the_median_is_pruned_after_startup_and_warm_up(
    tmp_path: Path, direction: str
) -> None:
    sign = 1 if direction == "maximize" else -1
    study = TuningStudy(tmp_path / "s", search(startup=3, prune_after=0.25), ())
    study.open(direction)  # type: ignore[arg-type]  # parametrised
    for number, level in enumerate((1.0, 2.0, 3.0), 1):
        assert not any(told(study, f"t{number}", [sign * level] * 20)), "startup"
        study.tell_result(f"t{number}", "completed", level)
    worse = told(study, "t4", [sign * 1.9] * 20)
    assert worse[:4] == [False] * 4, "5 of 20 points are the first quarter"
    assert worse[4]
    study.tell_result("t4", "pruned", None)
    assert not any(told(study, "t5", [sign * 2.1] * 20))
    nothing = TuningStudy(tmp_path / "n", search(startup=1, pruner="none"), ())
    nothing.open("maximize")
    told(nothing, "t1", [1.0] * 20)
    nothing.tell_result("t1", "completed", 1.0)
    assert not any(told(nothing, "t2", [-9.0] * 20))


def test_a_diverged_trial_is_pruned(tmp_path: Path) -> None:
    study = TuningStudy(tmp_path / "s", search(startup=1, prune_after=0), ())
    study.open("maximize")
    told(study, "t1", [1.0] * 20)
    study.tell_result("t1", "completed", 1.0)
    assert told(study, "t2", [1.0, math.nan]) == [False, True]
    first = TuningStudy(tmp_path / "n", search(pruner="none"), ())
    first.open("maximize")
    assert told(first, "t1", [math.nan]) == [False]


def test_a_failed_run_that_was_completed_later_counts(tmp_path: Path) -> None:
    study = TuningStudy(tmp_path / "s", search(), ())
    study.open("maximize")
    study.add_trial("t1", {"lr": 1e-3, "drop": 0.2})
    study.tell_result("t1", "failed", None)
    study.tell_result("t1", "failed", None)
    study.tell_result("t1", "completed", 0.7)
    study.tell_result("t1", "completed", 0.9)  # said twice: what is told stays
    again = TuningStudy(tmp_path / "s", search(), ())
    again.open("maximize")
    trials = again._study.trials
    assert [(t.state.name, t.value) for t in trials] == [("FAIL", None), ("COMPLETE", 0.7)]
    again.add_trial("t1", {"lr": 1e-3, "drop": 0.2})
    assert len(again._study.trials) == 2


@pytest.mark.parametrize("tail", [b'{"op_code": 4, "worker', b'{"op_code": 4, "worker\n', b"\x00"])
def test_a_torn_line_costs_itself_only(tmp_path: Path, tail: bytes) -> None:
    study = TuningStudy(tmp_path / "s", search(), ())
    study.open("maximize")
    go(lambda: study, 3)
    with (tmp_path / "s").open("ab") as file:
        file.write(tail)
    again = TuningStudy(tmp_path / "s", search(), ())
    again.open("maximize")
    assert len(again._study.trials) == 3
    again.add_trial("t4", {"lr": 1e-3, "drop": 0.2})
    assert len(again._study.trials) == 4


def test_a_file_that_is_no_study_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "s").write_text('{"a": 1}\n["b"]\n')
    study = TuningStudy(tmp_path / "s", search(), ())
    study.open("maximize")
    study.add_trial("t1", {"lr": 1e-3, "drop": 0.2})
    assert len(study._study.trials) == 1
    assert (tmp_path / "s.damaged").read_text().startswith('{"a": 1}')


def test_sealing_leaves_whole_lines_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    cut_torn_line(path)
    assert not path.exists()
    for content in (b"", b"{}\n", b'{"a": 1}\n{"b": 2}\n'):
        path.write_bytes(content)
        cut_torn_line(path)
        assert path.read_bytes() == content


def test_the_lock_frees_itself_when_its_holder_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from workbench.tuning.optuna_study import FileLock\n"
        "FileLock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], check=False)
    assert done.returncode == -9
    from workbench.tuning.optuna_study import FileLock

    assert FileLock(tmp_path / "lock").acquire()


def test_importances_need_ten_trials_and_name_what_matters(tmp_path: Path) -> None:
    study = TuningStudy(tmp_path / "s", search(sampler="random"), ())
    study.open("maximize")
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
