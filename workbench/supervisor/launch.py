"""Starting a warden as a detached process, and recovering the suite of a dead one.

Recovery writes into a suite's journals, and only under the suite's lock after its warden has ended.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from results.records import store
from workbench import paths
from workbench.processes import device_locks, engine_process, tree
from workbench.processes.limits import Limits
from workbench.suites import state, suite
from workbench.suites.journal import JournalBusyError, JournalLostError, Tail
from workbench.supervisor.event_log import write_end
from workbench.supervisor.run_records import write_record

POLL_SECONDS: Final = 0.02


class LaunchError(RuntimeError):
    """The warden did not start; the message has the end of its log."""


@dataclass
class LaunchedWarden:
    """A running warden started by this process."""

    pid: int
    """Process id of the warden; `popen` is its parent, the orphan reaper, which ends with it."""
    life_fd: int | None
    """Write end of the life pipe (foreground only): the warden stops its suite on its close."""
    popen: subprocess.Popen[bytes]


_STARTED: list[subprocess.Popen[bytes]] = []
"""Wardens started by this process; kept so that the last poll can take their status."""


def start_warden(
    folder: Path, *, foreground: bool = False, share: bool = False, resume: bool = False
) -> LaunchedWarden:
    """Start the warden of a suite in its own session, and wait until it is running.

    `foreground`: it holds the read end of a life pipe and stops when this process ends. Otherwise
    it is detached, also from a hang-up of the terminal.

    Raises:
        LaunchError: it ended at once, or wrote no state within `Limits.start_seconds`.
    """
    _STARTED[:] = [started for started in _STARTED if started.poll() is None]
    reading, writing = os.pipe() if foreground else (-1, -1)
    command = [sys.executable, "-m", "workbench.supervisor.warden", str(folder)]
    command += ["--life-fd", str(reading)] if foreground else []
    command += ["--share"] if share else []
    command += ["--resume"] if resume else []
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    variables = {k: v for k, v in os.environ.items() if k != tree.TOKEN_NAME}
    before = suite.read_warden(folder)
    log = os.open(folder / "warden.log", flags, 0o600)
    try:
        popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            pass_fds=(reading,) if foreground else (), start_new_session=True,
            env={**variables, **paths.module_path(variables)},
        )  # fmt: skip
    except OSError as error:
        _close(writing)
        raise LaunchError(f"{sys.executable} cannot be started: {error.strerror}") from error
    finally:
        os.close(log)
        _close(reading)
    _STARTED.append(popen)
    try:
        pid = _wait_until_up(folder, popen, before)
    except LaunchError:
        _close(writing)
        raise
    return LaunchedWarden(pid, writing if foreground else None, popen)


def close_life_pipe(launched: LaunchedWarden) -> None:
    """Close the life pipe: a foreground warden stops its suite, or escalates a running stop."""
    if launched.life_fd is not None:
        os.close(launched.life_fd)
        launched.life_fd = None


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def _wait_until_up(
    folder: Path, popen: subprocess.Popen[bytes], before: suite.WardenFile | None
) -> int:
    """Wait until warden.json is that of the new warden and not of `before`; returns its pid."""
    deadline = time.monotonic() + Limits().start_seconds
    old = (before.pid, before.start_ticks) if before else None
    while True:
        code = popen.poll()
        warden = suite.read_warden(folder)
        late = time.monotonic() > deadline
        if (
            warden is not None
            and (warden.pid, warden.start_ticks) != old
            and _is_child_of(warden.pid, popen)
        ):
            if warden.state != "starting" or (late and code is None):
                return warden.pid  # late: it asks a slow driver for its GPUs
        elif late:
            popen.terminate()
        if code is not None:
            tail = engine_process.tail_log(folder / "warden.log")
            raise LaunchError(
                f"the warden of {folder.name} ended at once with {code}; its log ends:\n{tail}"
            )
        time.sleep(POLL_SECONDS)


def _is_child_of(pid: int, guard: subprocess.Popen[bytes]) -> bool:
    """Whether this pid is the child of our reaper: another warden may start concurrently."""
    if guard.returncode is not None:
        return guard.returncode == 0
    process = tree.read_process(pid)
    return process is not None and process.parent == guard.pid


def recover_dead_suite(folder: Path, *, elsewhere: bool = False) -> list[str]:
    """Recover a suite whose warden died: kill its processes, end its run, write the record.

    Does nothing if the warden is alive, ended normally, or ran on another machine (`elsewhere`: the
    caller asserts that it is dead there). Safe to call at any time; returns the ids of the runs
    whose End or record was written now.
    """
    warden = suite.read_warden(folder)
    if warden is None or suite.is_alive(warden):
        return []
    if warden.host != socket.gethostname() and not suite.is_here(warden) and not elsewhere:
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
        suite.write_warden(folder, warden.model_copy(update=lost))
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
