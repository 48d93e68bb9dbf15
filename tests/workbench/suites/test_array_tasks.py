"""Where the runs of a submitted suite are, and what that means for the suite."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from engines.messages import End
from engines.protocol import RunSpec
from workbench.processes import tree
from workbench.slurm.queue import QueueAnswer
from workbench.slurm.states import JobState
from workbench.slurm.submission import Submission
from workbench.suites import array_tasks, warden_file
from workbench.suites.state import RunState, RunView
from workbench.suites.warden_file import WardenFile

NOW = time.time()


class Watch:
    """A queue with one answer."""

    def __init__(self, *rows: JobState, wall: float = NOW) -> None:
        self.answer = QueueAnswer({row.job: row for row in rows}, wall)
        self.hurried = False

    def read(self, user: str, after: float) -> QueueAnswer:
        return self.answer

    def hurry(self) -> None:
        self.hurried = True


def write_warden(suite: Path, run: str, *, here: bool = True, age: float = 0, **more: Any) -> None:
    (suite / "runs" / run).mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "pid": os.getpid(), "start_ticks": tree.read_start_ticks(os.getpid()), "host": "gpu07",
        "place": tree.pid_namespace() if here else "elsewhere", "token": "t", "state": "running",
        "started_wall": NOW - 100, "updated_wall": time.time() - age, "job": "7_1", **more,
    }  # fmt: skip
    warden_file.write_warden(suite / "runs" / run, WardenFile(**content))


def submission(*runs: str, wall: float = NOW - 100) -> Submission:
    jobs = {run: f"7_{number}" for number, run in enumerate(runs, 1)}
    return Submission(user=array_tasks.user_name(), submitted_wall=wall, jobs=jobs)


def view(run: str, *, cause: Any = None, started: bool = True) -> RunView:
    spec = RunSpec(suite="s", run_id=run, engine="e", subset="a", model="m", cache_root="c")
    end = End(cause=cause) if cause else None
    status = "ended" if end else "running" if started else "queued"
    return RunView(spec, run, RunState(status=status, end=end))


def judge(suite: Path, watch: Watch, *runs: RunView, submitted: Submission | None = None) -> Any:
    ids = [run.folder for run in runs]
    tasks = array_tasks.read_tasks(suite, submitted or submission(*ids), ids, watch)  # type: ignore[arg-type]
    located = array_tasks.locate_runs(runs, tasks)
    return tasks, located, array_tasks.summarize_tasks("s", located, tasks)


def test_a_run_at_work_has_job_and_node(tmp_path: Path) -> None:
    write_warden(tmp_path, "01-a")
    watch = Watch(JobState("7_1", "RUNNING", "", "gpu07"), JobState("7_2", "PENDING", "Priority"))
    tasks, runs, state = judge(tmp_path, watch, view("01-a"), view("02-b", started=False))
    assert [task.standing for task in tasks] == ["busy", "waiting"]
    assert [run.location for run in runs] == ["slurm 7_1 · gpu07", "slurm 7_2 · PENDING (Priority)"]
    assert (state.warden, state.detail) == ("running", "slurm: 1 at work, 1 PENDING (Priority)")


def test_a_run_that_was_stopped_and_waits_again_is_queued(tmp_path: Path) -> None:
    write_warden(tmp_path, "01-a", state="ended", suspended=True)
    _, runs, state = judge(tmp_path, Watch(JobState("7_1", "PENDING", "BeginTime")),
                           view("01-a", cause="stopped"))  # fmt: skip
    assert (runs[0].state.status, state.warden) == ("queued", "queued")
    _, runs, state = judge(tmp_path, Watch(JobState("7_1", "CANCELLED")),
                           view("01-a", cause="stopped"))  # fmt: skip
    assert (runs[0].state.cause, state.warden) == ("stopped", "ended")


def test_after_the_last_warden_the_queue_is_asked_soon(tmp_path: Path) -> None:
    write_warden(tmp_path, "01-a", state="ended")
    watch = Watch(JobState("7_1", "RUNNING", "", "gpu07"))
    _, _, state = judge(tmp_path, watch, view("01-a", cause="stopped"))
    assert (state.warden, watch.hurried) == ("running", True)
    _, _, state = judge(tmp_path, watch, view("01-a", cause="completed"))
    assert state.warden == "ended"


def test_a_silent_node_is_shown_with_its_age_and_never_as_a_crash(tmp_path: Path) -> None:
    write_warden(tmp_path, "01-a", here=False, age=300)
    for watch in (Watch(JobState("7_1", "RUNNING", "", "gpu07")), Watch(wall=0)):
        tasks, runs, state = judge(tmp_path, watch, view("01-a"))
        assert tasks[0].standing == "silent"
        assert runs[0].location.startswith("slurm 7_1 · gpu07 · no news for 5:")
        assert state.warden == "running"
        assert "without news from gpu07" in state.detail


@pytest.mark.parametrize("row", [JobState("7_1", "NODE_FAIL"), JobState("8_1", "RUNNING")])
def test_only_the_queue_says_that_a_job_is_over(tmp_path: Path, row: JobState) -> None:
    write_warden(tmp_path, "01-a", here=False, age=300)
    tasks, _, state = judge(tmp_path, Watch(row), view("01-a"))
    assert (tasks[0].standing, state.warden) == ("over", "lost")


def test_an_answer_from_before_the_submission_says_nothing(tmp_path: Path) -> None:
    late = submission("01-a", wall=NOW + 1)
    tasks, _, state = judge(tmp_path, Watch(), view("01-a", started=False), submitted=late)
    assert (tasks[0].standing, state.warden) == ("silent", "running")


def test_another_users_jobs_may_be_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    foreign = submission("01-a").model_copy(update={"user": "somebody-else"})
    tasks, _, _ = judge(tmp_path, Watch(), view("01-a", started=False), submitted=foreign)
    assert tasks[0].standing == "silent"


def test_a_script_that_nobody_submitted(tmp_path: Path) -> None:
    printed = Submission(user=array_tasks.user_name())
    tasks, runs, state = judge(tmp_path, Watch(), view("01-a", started=False), submitted=printed)
    assert (tasks[0].standing, runs[0].location) == ("unsubmitted", "")
    assert (state.warden, state.detail) == ("queued", "slurm: 1 not submitted")
    by_hand = Watch(JobState("9_1", "PENDING", "Resources", "", "s"))
    tasks, runs, _ = judge(tmp_path / "s", by_hand, view("01-a", started=False), submitted=printed)
    assert runs[0].location == "slurm 9_1 · PENDING (Resources)"
