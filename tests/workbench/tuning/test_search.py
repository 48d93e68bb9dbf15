"""A search over a fake engine's hill: real wardens, real searchers, and everybody's kill -9."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engines.protocol import RunSpec
from results.records import store
from results.records.suite_view import SearchView
from results.tables.search_trials import best_trial, table
from tests.fixtures.fake_engine import hill_height
from tests.fixtures.wardens import Sandbox, until
from workbench.exit_codes import ExitCode
from workbench.headless import follow
from workbench.reporting import suite_view
from workbench.suites import control, suite, suite_reader, trials
from workbench.suites.control import Command
from workbench.suites.state import SuiteState
from workbench.suites.trials import TrialError
from workbench.supervisor import recovery, resume
from workbench.tuning.searcher_process import SearcherProcess

pytest.importorskip("optuna")


def causes(state: SuiteState) -> list[str]:
    return [run.state.cause for run in state.runs]


def settings(folder: Path) -> list[dict[str, Any]]:
    """Of all trials, in their order; numbers without gaps, names and params that agree."""
    found = []
    for number, (run, spec) in enumerate(suite.read_runs(folder), 1):
        assert spec.trial is not None
        assert (spec.trial.number, spec.label) == (number, f"trial {number}")
        assert run.name == spec.run_id == f"t{number:04d}-retrieval-emoji_train-clip-nano"
        assert {name: spec.params[name] for name in spec.trial.settings} == spec.trial.settings
        found.append(spec.trial.settings)
    return found


def searcher_pid(folder: Path) -> int:
    """The searcher of this suite; 0 while there is none."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"workbench.tuning.searcher" in words and str(folder).encode() in words:
            return int(entry.name)
    return 0


def until_trial(folder: Path, number: int) -> None:
    """Wait until that trial trains."""
    reader = suite_reader.SuiteReader(folder)

    def at_work() -> bool:
        state = reader.poll()
        current = state.current
        return len(state.runs) >= number and current is not None and current.state.step > 0

    until(at_work, f"trial {number} of {folder.name}")


def undisturbed(folder: Path) -> list[dict[str, Any]]:
    """What the same search would try if nobody killed anything, without any process."""
    from workbench.planning import plan
    from workbench.tuning.optuna_study import TuningStudy

    asked = plan.load(folder / "plan.toml").search
    assert asked is not None
    study = TuningStudy(asked, ())
    taken: list[dict[str, Any]] = []
    for number in range(1, asked.trials + 1):
        chosen = study.suggest(number, taken, lambda _: True, None)
        study.direction = "maximize"
        study.add_trial(str(number), chosen)
        study.tell_result(str(number), "completed", hill_height(**chosen))
        taken.append(chosen)
    return taken


def test_a_search_finds_the_hill_and_says_so(sandbox: Sandbox) -> None:
    folder = sandbox.search(trials=5, startup=3, pruner="none")
    assert list((folder / "runs").iterdir()) == []
    sandbox.start(folder)
    state = sandbox.finish(folder)
    assert causes(state) == ["completed"] * 5
    assert (state.total, state.to_come, state.unit, state.detail) == (5, 0, "trials", "")
    assert follow.exit_status(state) is ExitCode.COMPLETED
    chosen = settings(folder)
    records = list(store.read_records(sandbox.logs / "results.jsonl"))
    assert [r.identity.trial.settings for r in records if r.identity.trial] == chosen
    view = suite_view.build_view(folder).search
    assert view is not None
    assert view.direction == "maximize"
    best = best_trial(records, view)
    heights = [hill_height(**s) for s in chosen]
    assert best is records[heights.index(max(heights))]
    shown = suite_view.format_summary(folder)
    assert "| trial | `lr` | `weight_decay` | `recall@1` |" in shown
    assert f"{max(heights):.3f} [{max(heights) - 0.05:.3f}" in shown
    assert "5 of 5 trials, chosen by tpe (seed 42), pruner: none" in shown


def test_trials_that_are_worse_are_pruned_which_is_no_failure(sandbox: Sandbox) -> None:
    folder = sandbox.search(trials=5, startup=2, max_steps=120, prune_after=0.1, sampler="random")
    sandbox.start(folder)
    state = sandbox.finish(folder)
    found = causes(state)
    assert set(found) == {"completed", "pruned"}
    assert found[:2] == ["completed"] * 2
    assert follow.exit_status(state) is ExitCode.COMPLETED
    assert resume.unfinished_runs(folder) == []
    heights = [hill_height(**s) for s in settings(folder)]
    for number, run in enumerate(state.runs):
        if run.state.cause != "pruned":
            continue
        done = sorted(h for h, c in zip(heights[:number], found, strict=False) if c == "completed")
        middle = (done[(len(done) - 1) // 2] + done[len(done) // 2]) / 2
        assert heights[number] < middle, "worse than the median of those before it"
        assert run.state.step < 120
        assert run.state.end is not None
        assert run.state.end.detail.startswith("pruned at ")
        assert not (folder / "runs" / run.folder / "checkpoints").exists()
    records = list(store.read_records(sandbox.logs / "results.jsonl"))
    assert [r.exit.cause for r in records] == found


def test_kill_9_of_everybody_costs_no_trial_and_repeats_none(sandbox: Sandbox) -> None:
    folder = sandbox.search(trials=6, startup=2, pruner="none", max_steps=20)
    wanted = undisturbed(folder)
    sandbox.start(folder)
    until_trial(folder, 2)
    first = searcher_pid(folder)
    os.kill(first, signal.SIGKILL)  # the warden starts another one
    until(lambda: searcher_pid(folder) not in (0, first), "the second searcher")
    until_trial(folder, 3)
    os.kill(sandbox.warden_pid(folder), signal.SIGKILL)
    until(lambda: not searcher_pid(folder), "the searcher's death with its warden")
    sandbox.wardens.pop().wait(10)
    recovery.recover_dead_suite(folder)
    assert resume.count_pending_trials(folder) == 6 - len(settings(folder))
    sandbox.start(folder, resume=True)
    until_trial(folder, 5)
    os.kill(searcher_pid(folder), signal.SIGKILL)
    state = sandbox.finish(folder)
    assert causes(state) == ["completed"] * 6
    assert settings(folder) == wanted, "the same search, whoever was killed"
    attempts = [run.state.attempt for run in state.runs]
    assert sum(attempts) == 7, "the one that was at work is tried again, and no other"


def test_a_stopped_search_goes_on_where_it_was(sandbox: Sandbox) -> None:
    folder = sandbox.search(trials=3, pruner="none", max_steps=60)
    sandbox.start(folder)
    until_trial(folder, 2)
    control.send_command(folder, Command(do="stop"))
    state = sandbox.finish(folder)
    assert causes(state) == ["completed", "stopped"]
    assert follow.exit_status(state) is ExitCode.INTERRUPTED
    assert (state.total, state.to_come) == (3, 1)
    runs = resume.prepare_resume(folder)
    assert [v.spec.run_id[:5] for v in runs] == ["t0002"]
    said = resume.describe_resume(folder, runs, resume.count_pending_trials(folder))
    assert said.endswith("which ended as stopped; trials to come: 1")
    sandbox.start(folder, resume=True)
    state = sandbox.finish(folder)
    assert causes(state) == ["completed"] * 3
    assert [r.state.attempt for r in state.runs] == [1, 2, 1]


def test_a_metric_that_no_trial_has_ends_the_search_at_the_first(sandbox: Sandbox) -> None:
    folder = sandbox.search(trials=4, metric="recal@1")
    sandbox.start(folder)
    state = sandbox.finish(folder)
    assert causes(state) == ["completed"]
    assert state.detail.startswith("search.metric: t0001-retrieval-emoji_train-clip-nano has no re")
    assert state.detail.endswith("it has recall@1 on val")
    assert follow.exit_status(state) is ExitCode.FAILED
    view = suite_view.build_view(folder).search
    assert view is not None
    assert view.trouble == state.detail


def test_three_failures_in_a_row_are_enough(sandbox: Sandbox) -> None:
    folder = sandbox.search(
        trials=9, ranges={"lr": {"low": 0.2, "high": 0.9}, "weight_decay": [0.0, 0.1, 0.2]}
    )
    sandbox.start(folder)
    state = sandbox.finish(folder)
    assert causes(state) == ["failed"] * 3
    assert state.detail == "the last 3 trials failed: the loss is no number"
    assert follow.exit_status(state) is ExitCode.FAILED


def test_the_loss_is_a_metric_where_smaller_is_better(sandbox: Sandbox) -> None:
    folder = sandbox.search(trials=2, metric="loss", pruner="none", max_steps=40)
    sandbox.start(folder)
    state = sandbox.finish(folder)
    assert causes(state) == ["completed"] * 2
    assert trials.read_summary(folder).direction == "minimize"
    found = suite_view.build_view(folder)
    assert found.search is not None
    best = best_trial(found.records, found.search)
    assert best is not None
    losses = [r.train["loss"] for r in found.records]
    assert best.train["loss"] == min(losses)


def proposal(folder: Path, **changes: object) -> RunSpec:
    base = trials.read_base(folder)
    assert base is not None
    chosen = {"lr": 1e-3, "weight_decay": 0.1}
    spec = trials.make_spec(base, 1, chosen, {**base.spec.params, **chosen})
    return spec.model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trial": None}, "it has no number"),
        ({"run_id": "../../escape"}, "its number or its name is wrong"),
        ({"run_id": "t0002-retrieval-emoji_train-clip-nano"}, "its number or its name is wrong"),
        ({"engine": "probe"}, "it differs from the plan"),
        ({"cache_root": "/elsewhere"}, "it differs from the plan"),
        ({"suite": "another"}, "it differs from the plan"),
        ({"params": {"lr": 1e-3, "weight_decay": 0.1}}, "it lacks settings of the engine"),
    ],
)
def test_a_run_that_is_no_trial_is_not_admitted(
    sandbox: Sandbox, changes: dict[str, object], said: str
) -> None:
    folder = sandbox.search(trials=2)
    with pytest.raises(TrialError, match=said):
        trials.admit_trial(folder, proposal(folder, **changes))
    assert list((folder / "runs").iterdir()) == []


def test_the_same_trial_is_admitted_once(sandbox: Sandbox) -> None:
    folder = sandbox.search(trials=2)
    spec = proposal(folder)
    reader = suite_reader.SuiteReader(folder)
    assert reader.poll().runs == ()
    assert trials.admit_trial(folder, spec) == folder / "runs" / spec.run_id
    assert trials.admit_trial(folder, spec) is None
    base = trials.read_base(folder)
    assert base is not None
    other = {"lr": 1e-4, "weight_decay": 0.1}
    with pytest.raises(TrialError, match="exists already, with other settings"):
        trials.admit_trial(folder, trials.make_spec(base, 1, other, {**base.spec.params, **other}))
    seen = reader.poll()
    assert [v.spec for v in seen.runs] == [spec]
    assert (seen.total, seen.to_come) == (2, 1)
    with pytest.raises(TrialError, match="its number or its name is wrong"):
        trials.admit_trial(folder, trials.make_spec(base, 3, other, {**base.spec.params, **other}))


def test_an_ordinary_suite_takes_no_run(sandbox: Sandbox) -> None:
    folder, search = sandbox.suite("ok"), sandbox.search(trials=1)
    with pytest.raises(TrialError, match="is no search"):
        trials.admit_trial(folder, proposal(search))


def test_a_table_without_trials_is_none() -> None:
    assert table([], SearchView(metric="m", trials=3)).rows == ()


def test_control_lines_are_small_enough_to_be_read(sandbox: Sandbox) -> None:
    folder = sandbox.search(trials=1)
    order = Command(do="add", run="t", spec=proposal(folder))
    assert len(order.model_dump_json()) < 16_384
    control.send_command(folder, order)
    (read,), _ = control.read_commands(folder, 0)
    assert read.spec == order.spec
    assert json.loads((folder / "control.jsonl").read_text())["do"] == "add"


def test_a_searcher_that_cannot_be_made_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    (tmp_path / trials.SEARCH_FOLDER).mkdir()
    monkeypatch.setattr(subprocess, "Popen", refuse)
    searcher = SearcherProcess(tmp_path, {})
    searcher.poll()
    assert searcher.ended
    assert searcher.trouble == "the searcher cannot be started: Resource temporarily unavailable"
