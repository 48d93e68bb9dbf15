"""Recovery of a suite whose warden died: its processes are killed, its run is ended and recorded.

Writes into a suite's journals, and only under the suite's lock after its warden has ended.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Final

from engines.messages import Cause
from engines.protocol import RunSpec
from results.records import store
from workbench.processes import device_locks, tree
from workbench.processes.limits import Limits
from workbench.slurm import collector, queue, submission
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
    held = _acquire_lock(folder / "warden.lock", Limits().kill_seconds)
    if held is None:
        return []
    try:
        tree.kill_processes_with_token(warden.token, Limits().kill_seconds)
        recovered = _record_dead(folder)
        lost = {"state": "lost", "detail": "the warden died", "updated_wall": time.time()}
        warden_file.write_warden(folder, warden.model_copy(update=lost))
    finally:
        os.close(held)
    return recovered


def recover_tasks(folder: Path, *, unsubmitted: bool = False) -> list[str]:
    """End and record the runs whose jobs are over without; `unsubmitted`: also those without one.

    Returns the ids of the runs whose End or record was written now.
    """
    submitted = submission.read_submission(folder)
    if submitted is None:
        return []
    runs = suite_reader.SuiteReader(folder).poll().runs
    tasks = array_tasks.read_tasks(folder, submitted, [view.folder for view in runs])
    standings = ("over", "unsubmitted") if unsubmitted else ("over",)
    over = [(v, t) for v, t in zip(runs, tasks, strict=True) if t.standing in standings]
    accounts = queue.read_accounting([t.job for v, t in over if v.state.end is None and t.job])
    recovered = []
    for view, task in over:
        outcome = accounts.describe(task.job, task.row)
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
    held = _acquire_lock(run / "warden.lock", Limits().kill_seconds)
    if held is None:
        return False
    try:
        if warden is not None and warden_file.is_here(warden):
            tree.kill_processes_with_token(warden.token, Limits().kill_seconds)
        ended = state.reduce_entries(Tail(run / "events.jsonl").read_all())
        if ended.end is None:
            cause: Cause = "stopped" if ended.status == "queued" else "supervisor-lost"
            before = "; the run never started" if ended.status == "queued" else ""
            ended = write_end(run, cause, f"{detail}{before}")
        elif _is_recorded(run, spec, ended):
            return False
        write_record(run / collector.RECORDS, run, spec, ended)
        if warden is not None and warden.state not in ("ended", "lost"):
            lost = {"state": "lost", "detail": detail, "updated_wall": time.time()}
            warden_file.write_warden(run, warden.model_copy(update=lost))
    finally:
        os.close(held)
    return True


def _is_recorded(run: Path, spec: RunSpec, ended: state.RunState) -> bool:
    """Whether the run's own records have this attempt."""
    return (spec.run_id, ended.attempt) in _recorded_attempts(run / collector.RECORDS, spec.suite)


def _acquire_lock(lock: Path, seconds: float) -> int | None:
    """Acquire the dead warden's lock; its orphan reaper holds it until it has cleaned up."""
    deadline = time.monotonic() + seconds
    while (held := device_locks.lock_file(lock)) is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return held


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
