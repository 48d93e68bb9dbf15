"""One run of a suite in the foreground, as a task of Slurm or of any other queue.

Exit codes suit any queue: 0 completed, 75 stopped at a checkpoint ("try again"), others as those of
`workbench run`. Inside a job of Slurm, 75 is preceded by a request to requeue the job.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from engines import catalog
from engines.messages import Attempt, Step
from engines.protocol import Entry, RunSpec
from workbench.exit_codes import ExitCode
from workbench.headless.follow import exit_status
from workbench.headless.renderers import print_log_line
from workbench.slurm import commands
from workbench.suites import run_summary, state, suite, warden_file
from workbench.suites.journal import Tail
from workbench.supervisor import launch, recovery
from workbench.supervisor.warden_options import WardenOptions

POLL_SECONDS: Final = 0.5
LINE_SECONDS: Final = 60.0
"""Interval of progress lines in the job's log."""
IDLE_ATTEMPTS: Final = 3
"""After so many attempts in a row without a new step a job is not requeued any more."""


def execute_run(folder: Path, number: int, *, share: bool = False) -> ExitCode:
    """Execute run `number` (from 1) of a suite; a run that has begun goes on from its checkpoint.

    Raises:
        SuiteError: there is no such run, or it is at work here.
        LaunchError: its warden did not start.
    """
    runs = suite.read_runs(folder)
    if not 1 <= number <= len(runs):
        raise suite.SuiteError(f"{folder.name} has runs 1 to {len(runs)}, and no run {number}")
    run, spec = runs[number - 1]
    job = commands.job_name(os.environ)
    before = state.reduce_entries(Tail(run / "events.jsonl").read_all())
    if before.end is not None and not state.is_unfinished(before):
        print_log_line(f"{spec.run_id} is {before.cause}")
        return ExitCode.COMPLETED
    _name_nodes(spec)
    if before.status != "queued":
        recovery.recover_run(run, spec, "an earlier job of this run was killed")
    by_slurm = f" as job {job}" if job else ""
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    again = f", restart {restarts}" if restarts != "0" else ""
    print_log_line(f"{spec.run_id} on {os.uname().nodename}{by_slurm}{again}")
    options = WardenOptions(share=share, resume=True, run=spec.run_id)
    launched = launch.start_warden(folder, foreground=True, options=options)
    with _forward_signals(launched.pid):
        _wait_until_ended(run, spec, number, len(runs), launched)
    return _finish(folder, run, spec, job)


def _name_nodes(spec: RunSpec) -> None:
    """Name the job's nodes to the engine of a run that computes on several.

    Raises:
        SuiteError: the job has fewer, or this is none.
    """
    if (count := catalog.count_nodes(spec)) < 2:
        return
    try:
        nodes = commands.list_nodes(os.environ)[:count]
    except commands.SlurmError as error:
        raise suite.SuiteError(f"{spec.run_id}: nnodes = {count}: {error}") from None
    if len(nodes) < count:
        raise suite.SuiteError(
            f"{spec.run_id}: nnodes = {count}, but the job has {len(nodes)}; submit with "
            f"--sbatch=--nodes={count}, or let `workbench submit` write the script"
        )
    os.environ[commands.RUN_NODES] = ",".join(f"{name}={address}" for name, address in nodes)


@contextmanager
def _forward_signals(warden: int) -> Iterator[None]:
    """Pass signals on to the warden, also SIGUSR2 if the script ignores it until here.

    SIGCONT comes before SIGTERM from Slurm and means nothing.
    """

    def forward(number: int, _frame: object) -> None:
        print_log_line(f"{signal.Signals(number).name}: stopping after this step")
        with suppress(ProcessLookupError):
            os.kill(warden, number)

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, previous[number] or signal.SIG_DFL)


def _wait_until_ended(
    run: Path, spec: RunSpec, number: int, total: int, launched: launch.LaunchedWarden
) -> None:
    """Wait for the warden, with a progress line a minute and one at the end."""
    tail, run_state = Tail(run / "events.jsonl"), state.RunState()
    due, line = time.monotonic() + LINE_SECONDS, ""
    ended = False
    while not ended:
        time.sleep(POLL_SECONDS)
        ended = launched.popen.poll() is not None
        run_state = state.reduce_entries(tail.read_all(), run_state)
        view = state.RunView(spec, run.name, run_state)
        if ended or time.monotonic() >= due:
            due = time.monotonic() + LINE_SECONDS
            if (newest := run_summary.progress_line(view, number, total)) != line:
                line = newest
                print_log_line(line)


def _finish(folder: Path, run: Path, spec: RunSpec, job: str) -> ExitCode:
    """The task's exit code; a suspended one is requeued before."""
    entries = Tail(run / "events.jsonl").read_all()
    view = state.RunView(spec, run.name, state.reduce_entries(entries))
    warden = warden_file.read_warden(run)
    suspended = warden is not None and warden.suspended
    lost = warden.records_lost if warden is not None else 0
    if view.state.end is None:  # the warden was killed
        recovery.recover_run(run, spec, "the warden died")
        return ExitCode.FAILED
    suite_state = state.SuiteState(
        folder.name, "ended", suspended=suspended, records_lost=lost, runs=(view,)
    )
    status = exit_status(suite_state)
    if status is ExitCode.TO_BE_CONTINUED and job:
        _requeue(job, entries, commands.requeue)
    return status


def _requeue(job: str, entries: list[Entry], requeue: Callable[[str], None]) -> None:
    """Ask Slurm to start this job again, unless its attempts lead nowhere."""
    if count_idle_attempts(entries) >= IDLE_ATTEMPTS:
        print_log_line(
            f"not requeued: the last {IDLE_ATTEMPTS} attempts did no new step; raise --time"
        )
        return
    try:
        requeue(job)
    except commands.SlurmError as error:
        print_log_line(f"not requeued ({error}); `workbench resume` on the login node goes on")
    else:
        print_log_line(f"job {job} is requeued")


def count_idle_attempts(entries: list[Entry]) -> int:
    """How many of the last attempts did no step beyond those before them."""
    last_steps: list[int] = []
    for entry in entries:
        if isinstance(entry.msg, Attempt):
            last_steps.append(0)
        elif isinstance(entry.msg, Step) and last_steps:
            last_steps[-1] = max(last_steps[-1], entry.msg.step)
    idle, best = 0, 0
    for step in last_steps:
        idle = 0 if step > best else idle + 1
        best = max(best, step)
    return idle
