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

from results.records import store
from workbench.processes import device_locks, tree
from workbench.processes.limits import Limits
from workbench.suites import state, suite, warden_file
from workbench.suites.journal import JournalBusyError, JournalLostError, Tail
from workbench.supervisor.event_log import write_end
from workbench.supervisor.run_records import write_record

POLL_SECONDS: Final = 0.02


def recover_dead_suite(folder: Path, *, elsewhere: bool = False) -> list[str]:
    """Recover a suite whose warden died: kill its processes, end its run, write the record.

    Does nothing if the warden is alive, ended normally, or ran on another machine (`elsewhere`: the
    caller asserts that it is dead there). Safe to call at any time; returns the ids of the runs
    whose End or record was written now.
    """
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


def _acquire_lock(lock: Path, seconds: float) -> int | None:
    """Acquire the dead warden's lock; its orphan reaper holds it until it has cleaned up."""
    deadline = time.monotonic() + seconds
    while (held := device_locks.lock_file(lock)) is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return held


def _record_dead(folder: Path) -> list[str]:
    kept = _recorded_attempts(folder)
    recovered = []
    for run, spec in suite.read_runs(folder):
        with contextlib.suppress(JournalBusyError, JournalLostError, OSError):
            if (ended := _ended_state(run)) is None or (spec.run_id, ended.attempt) in kept:
                continue
            write_record(folder, run, spec, ended)
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


def _recorded_attempts(folder: Path) -> set[tuple[str, int]]:
    """(run id, attempt) of every record of this suite."""
    recorded = set()
    with contextlib.suppress(OSError, store.NewerSchemaError):
        for record in store.read_records(folder.parent / "results.jsonl"):
            if record.identity.suite == folder.name:
                recorded.add((record.identity.run_id, record.identity.attempt))
    return recorded
