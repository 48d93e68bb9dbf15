"""Runs of a suite as tasks of a Slurm array: where each is, and the state of the suite.

Reads the wardens' files in the run folders and the queue's answer. What says nothing for a while is
shown with its age; only the queue can say that a job is over.
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

from results.text import formats
from workbench.slurm import queue, states
from workbench.slurm.submission import Submission
from workbench.suites import warden_file
from workbench.suites.orders import NO_ORDERS, Orders
from workbench.suites.state import RunView, SuiteState, WardenState, is_unfinished
from workbench.suites.suite import list_run_names, sort_run_names
from workbench.suites.warden_file import WardenFile

Standing = Literal["busy", "waiting", "silent", "over", "unsubmitted"]
"""`silent`: its warden's file is old, and the queue was not asked or says that it runs."""
AT_WORK: Final = frozenset({"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED"})
"""States of a job that has a node."""


class ArrayTask(NamedTuple):
    """One run as a task."""

    standing: Standing
    job: str = ""
    warden: WardenFile | None = None
    row: states.JobState | None = None
    quiet_seconds: float = 0.0
    """Since its warden wrote last; 0: it is at work, or there was none."""

    @property
    def requeued(self) -> bool:
        """It waits in the queue, whatever an earlier attempt of it left."""
        return self.standing == "waiting" and self.row is not None and not _has_node(self.row)

    def locate(self) -> str:
        """`slurm 1234_5 · gpu07 · PENDING (Priority)`; empty before it is submitted."""
        if not self.job:
            return ""
        node = (self.row.node if self.row else "") or (self.warden.host if self.warden else "")
        parts = [f"slurm {self.job}"] + ([node] if node and not self.requeued else [])
        if self.row is not None and self.row.state not in ("RUNNING", "COMPLETED"):
            parts.append(self.row.describe())
        if self.standing == "silent":
            parts.append(f"no news for {formats.clock(self.quiet_seconds)}")
        return " · ".join(parts)


def read_tasks(
    suite: Path,
    submission: Submission,
    run_ids: Sequence[str],
    watch: queue.QueueWatch = queue.WATCH,
) -> list[ArrayTask]:
    """The task of each run; `run_ids`: all of the suite in their order."""
    answer = watch.read(submission.user, submission.submitted_wall)
    tasks = []
    for number, run_id in enumerate(run_ids, 1):
        warden = warden_file.read_warden(suite / "runs" / run_id)
        job = submission.jobs.get(run_id, "")
        row = answer.find_task(job, suite.name, number)
        job = (row.job if row else job) or (warden.job if warden else "")
        answered = answer.wall >= max(submission.submitted_wall, 1) and _sees_jobs_of(
            submission.user
        )
        quiet = time.time() - warden.updated_wall if warden else 0.0
        standing = _judge(warden, row, answered=answered, submitted=bool(job or warden))
        tasks.append(ArrayTask(standing, job, warden, row, 0 if standing == "busy" else quiet))
    waiting = [task for task in tasks if task.standing != "over"]
    if waiting and all(task.warden and task.warden.state == "ended" for task in waiting):
        watch.hurry()  # the queue's answer is older than the end of the last warden
    return tasks


def read_brief_state(suite: Path, submission: Submission) -> tuple[str, str]:
    """State and detail of a suite without its journals: `running`, `queued` or `ended`."""
    tasks = read_tasks(suite, submission, sort_run_names(list_run_names(suite)))
    standings = {task.standing for task in tasks}
    word = "running" if standings & {"busy", "silent"} else "ended"
    return "queued" if word == "ended" and standings - {"over"} else word, _describe(tasks)


def is_at_work(suite: Path, submission: Submission) -> bool:
    """Whether a job of the suite runs or waits, as far as is known."""
    tasks = read_tasks(suite, submission, sort_run_names(list_run_names(suite)))
    return any(task.standing in ("busy", "waiting", "silent") for task in tasks)


def _judge(
    warden: WardenFile | None, row: states.JobState | None, *, answered: bool, submitted: bool
) -> Standing:
    """The standing of a task. `answered`: what the queue lacks is over."""
    ended = warden is None or warden.state in ("ended", "lost")
    if warden is not None and not ended and warden_file.is_alive(warden):
        return "busy"
    if row is not None:
        if row.over:
            return "over"
        starting = ended or warden is None or warden_file.is_here(warden) or not _has_node(row)
        return "waiting" if starting else "silent"
    if not submitted:
        return "unsubmitted"
    return "over" if answered or (warden is not None and ended) else "silent"


def _has_node(row: states.JobState) -> bool:
    return row.state in AT_WORK


def _sees_jobs_of(user: str) -> bool:
    """Whether the queue shows all jobs of that user to this one: `PrivateData` may hide others'."""
    return user == user_name() or os.geteuid() == 0


def user_name() -> str:
    """This user, as squeue takes it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


def locate_runs(runs: Sequence[RunView], tasks: Sequence[ArrayTask]) -> tuple[RunView, ...]:
    """The runs with their locations; one that waits to go on counts as queued again."""
    located = []
    for view, task in zip(runs, tasks, strict=True):
        run = view.state
        if task.requeued and (run.status != "queued") and is_unfinished(run):
            run = replace(run, status="queued", end=None)
        located.append(RunView(view.spec, view.folder, run, task.locate()))
    return tuple(located)


def summarize_tasks(
    name: str, runs: Sequence[RunView], tasks: Sequence[ArrayTask], orders: Orders = NO_ORDERS
) -> SuiteState:
    """State of the suite, from its located runs and their tasks."""
    wardens = [task.warden for task in tasks if task.warden is not None]
    started = [warden.started_wall for warden in wardens if warden.started_wall]
    return SuiteState(
        name=name,
        warden=_suite_state(runs, tasks),
        warden_pid=None,
        detail=_describe(tasks),
        started_wall=min(started, default=None),
        suspended=any(warden.suspended for warden in wardens),
        records_lost=sum(warden.records_lost for warden in wardens),
        runs=tuple(runs),
        orders=orders,
        to_retry=frozenset(
            view.spec.run_id
            for view, task in zip(runs, tasks, strict=True)
            if not _is_over(view, task) and is_unfinished(view.state)
        ),
    )


def _suite_state(runs: Sequence[RunView], tasks: Sequence[ArrayTask]) -> WardenState:
    busy = [task.warden for task in tasks if task.standing == "busy" and task.warden]
    if busy:
        return "stopping" if all(warden.state == "stopping" for warden in busy) else "running"
    going = [task for view, task in zip(runs, tasks, strict=True) if not _is_over(view, task)]
    if any(task.standing == "silent" or (task.row and _has_node(task.row)) for task in going):
        return "running"
    if any(task.standing in ("waiting", "unsubmitted") for task in going):
        return "queued"
    return "ended" if all(view.state.end is not None for view in runs) else "lost"


def _is_over(view: RunView, task: ArrayTask) -> bool:
    """Whether nothing more comes of a run. One that was stopped may be requeued in a moment."""
    if view.state.end is None:
        return task.standing == "over"
    return task.standing in ("over", "unsubmitted") or not is_unfinished(view.state)


def _describe(tasks: Sequence[ArrayTask]) -> str:
    """`slurm: 2 at work, 3 PENDING (Priority), 1 over`."""
    counts: dict[str, int] = {}
    for task in tasks:
        word = {"busy": "at work", "unsubmitted": "not submitted"}.get(task.standing, task.standing)
        if task.standing == "waiting" and task.row is not None:
            word = task.row.describe()
        elif task.standing == "silent":
            host = task.warden.host if task.warden else "its node"
            word = f"without news from {host} for {formats.clock(task.quiet_seconds)}"
        counts[word] = counts.get(word, 0) + 1
    return "slurm: " + ", ".join(f"{count} {word}" for word, count in counts.items())
