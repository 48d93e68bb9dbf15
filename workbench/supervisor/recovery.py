"""Recovery of a suite whose warden died: its processes are killed, its run is ended and recorded.

Writes into a suite's journals, and only under the suite's lock after its warden has ended.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from engines.messages import Cause
from engines.protocol import RunSpec
from results.records import store
from workbench.processes import device_locks, tree
from workbench.processes.limits import Limits
from workbench.slurm import accounting, collector, submission
from workbench.suites import array_tasks, state, suite, suite_reader, warden_file
from workbench.suites.journal import JournalBusyError, JournalLostError, Tail
from workbench.supervisor.event_log import write_end
from workbench.supervisor.run_records import write_record

POLL_SECONDS: Final = 0.02


def recover_dead_suite(folder: Path, *, elsewhere: bool = False) -> list[str]:
    """Recover a suite whose warden died: kill its processes, end its run, write the record.

    Does nothing if the warden is alive, ended normally, or ran on another machine (`elsewhere`: the
    caller asserts that it is dead there). Safe to call at any time; returns the ids of the runs
    whose End or record was written now.

    Of a suite in Slurm: the runs whose jobs are over.
    """
    if submission.read_submission(folder) is not None:
        return recover_tasks(folder)
    warden = warden_file.read_warden(folder)
    if warden is None or warden_file.is_alive(warden):
        return []
    if warden.host != socket.gethostname() and not warden_file.is_here(warden) and not elsewhere:
        return []
    if warden.state in ("ended", "lost"):
        return []
    with _replace_warden(folder, warden, warden.token) as locked:
        if not locked:
            return []
        recovered = _record_dead(folder)
        _mark_lost(folder, warden, "the warden died")
    return recovered


def recover_tasks(folder: Path, *, unsubmitted: bool = False) -> list[str]:
    """End and record the runs that did not do so before their jobs were over.

    `unsubmitted`: also the runs without a job.

    Returns the ids of the runs whose End or record was written now.
    """
    submitted = submission.read_submission(folder)
    if submitted is None:
        return []
    runs = suite_reader.SuiteReader(folder).poll().runs
    tasks = array_tasks.read_tasks(folder, submitted, [view.folder for view in runs])
    recoverable = ("over", "unsubmitted") if unsubmitted else ("over",)
    pairs = [(v, t) for v, t in zip(runs, tasks, strict=True) if t.standing in recoverable]
    unended_jobs = [task.job for view, task in pairs if view.state.end is None and task.job]
    ended_jobs = accounting.read_accounting(unended_jobs)
    recovered = []
    for view, task in pairs:
        outcome = ended_jobs.describe(task.job, task.row)
        detail = f"job {task.job}: {outcome}" if task.job else "no job was submitted"
        if recover_run(folder / "runs" / view.folder, view.spec, detail):
            recovered.append(view.spec.run_id)
    collector.collect_records(folder.parent)
    return recovered


def recover_run(run: Path, spec: RunSpec, detail: str) -> bool:
    """End and record a run whose job is over; `detail`: how it ended. False: nothing was missing.

    A run that never started ends as stopped: `workbench resume` takes it up. The caller asserts
    that its warden is dead if it was on another node.
    """
    warden = warden_file.read_warden(run)
    if warden is not None and warden_file.is_here(warden) and warden_file.is_alive(warden):
        return False
    token = warden.token if warden is not None and warden_file.is_here(warden) else ""
    with _replace_warden(run, warden, token) as locked:
        if not locked:
            return False
        run_state = state.reduce_entries(Tail(run / "events.jsonl").read_all())
        if run_state.end is None:
            queued = run_state.status == "queued"
            cause: Cause = "stopped" if queued else "supervisor-lost"
            end_detail = f"{detail}; the run never started" if queued else detail
            run_state = write_end(run, cause, end_detail)
        elif _is_recorded(run, spec, run_state):
            return False
        write_record(run / collector.RECORDS, run, spec, run_state)
        if warden is not None and warden.state not in ("ended", "lost"):
            _mark_lost(run, warden, detail)
    return True


@contextlib.contextmanager
def _replace_warden(
    folder: Path, warden: warden_file.WardenFile | None, token: str
) -> Iterator[bool]:
    """Hold the lock of a dead warden, its processes killed.

    False: another process holds it, or was faster: `warden` is not what warden.json has now.

    `token`: of the processes; empty: they are not on this machine.
    """
    lock = _acquire_lock(folder / "warden.lock", Limits().kill_seconds)
    if lock is None:
        yield False
        return
    try:
        if warden_file.read_warden(folder) != warden:
            yield False
            return
        if token:
            tree.kill_processes_with_token(token, Limits().kill_seconds)
        yield True
    finally:
        os.close(lock)


def _mark_lost(folder: Path, warden: warden_file.WardenFile, detail: str) -> None:
    lost = {"state": "lost", "detail": detail, "updated_wall": time.time()}
    warden_file.write_warden(folder, warden.model_copy(update=lost))


def _is_recorded(run: Path, spec: RunSpec, ended: state.RunState) -> bool:
    """Whether the run's own records have this attempt."""
    return (spec.run_id, ended.attempt) in _recorded_attempts(run / collector.RECORDS, spec.suite)


def _acquire_lock(lock: Path, seconds: float) -> int | None:
    """Acquire the dead warden's lock; its orphan reaper holds it until it has cleaned up."""
    deadline = time.monotonic() + seconds
    while (descriptor := device_locks.lock_file(lock)) is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return descriptor


def _record_dead(folder: Path) -> list[str]:
    kept = _recorded_attempts(folder.parent / "results.jsonl", folder.name)
    recovered = []
    for run, spec in suite.read_runs(folder):
        with contextlib.suppress(JournalBusyError, JournalLostError, OSError):
            if (ended := _ended_state(run)) is None or (spec.run_id, ended.attempt) in kept:
                continue
            write_record(folder.parent / "results.jsonl", run, spec, ended)
            recovered.append(spec.run_id)
    return recovered


def _ended_state(run: Path) -> state.RunState | None:
    """State of a run with an End, written now if it is missing; None: it never started."""
    run_state = state.reduce_entries(Tail(run / "events.jsonl").read_all())
    if run_state.status == "queued":
        return None
    if run_state.end is not None:
        return run_state
    return write_end(run, "supervisor-lost", "the warden died while this run was at work")


def _recorded_attempts(records: Path, suite_name: str) -> set[tuple[str, int]]:
    """(run id, attempt) of every record of a suite.

    Attempt 0: the run ended before its first one. Its record says 1, as that of the first does.
    """
    recorded = set()
    with contextlib.suppress(OSError, store.NewerSchemaError):
        for record in store.read_records(records):
            if record.identity.suite == suite_name:
                attempt = record.identity.attempt if record.started_wall is not None else 0
                recorded.add((record.identity.run_id, attempt))
    return recorded
