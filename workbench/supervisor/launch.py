"""Starting a warden that outlives us, and burying one that died.

The only code outside the warden that makes processes of the workbench or writes into a suite's
journals; the latter only under the suite's lock, when its warden is surely gone.
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
from workbench.supervisor.event_log import leave_out
from workbench.supervisor.run_records import write_record

POLL_SECONDS: Final = 0.02


class LaunchError(RuntimeError):
    """The warden did not come up; the message has the end of its log."""


@dataclass
class Launched:
    """A warden that is at work."""

    pid: int
    """The warden; `popen` is its guard, which ends when it ends."""
    life_fd: int | None
    """Write end of its life pipe (foreground only): it stops its suite when this closes."""
    popen: subprocess.Popen[bytes]


_STARTED: list[subprocess.Popen[bytes]] = []
"""Wardens started by this process; kept so that the last poll can take their status."""


def start_warden(
    folder: Path, *, foreground: bool = False, share: bool = False, resume: bool = False
) -> Launched:
    """Start the warden of a suite in a session of its own, and wait until it has come up.

    In the foreground it holds the other end of a pipe of ours and stops when we are gone, however
    we went. Otherwise nothing ties it to us, not even a hang-up of the terminal.

    Raises:
        LaunchError: it ended at once, or said nothing within `Limits.start_seconds`.
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
    return Launched(pid, writing if foreground else None, popen)


def hang_up(launched: Launched) -> None:
    """Close the life pipe: a foreground warden stops its suite, or insists if it does already."""
    if launched.life_fd is not None:
        os.close(launched.life_fd)
        launched.life_fd = None


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def _wait_until_up(
    folder: Path, popen: subprocess.Popen[bytes], before: suite.WardenFile | None
) -> int:
    """The warden's pid, once warden.json is not that of `before` any more, but of our warden."""
    deadline = time.monotonic() + Limits().start_seconds
    old = (before.pid, before.start_ticks) if before else None
    while True:
        code = popen.poll()
        said = suite.read_warden(folder)
        late = time.monotonic() > deadline
        if said is not None and (said.pid, said.start_ticks) != old and _ours(said.pid, popen):
            if said.state != "starting" or (late and code is None):
                return said.pid  # late: it asks a slow driver for its GPUs
        elif late:
            popen.terminate()
        if code is not None:
            tail = engine_process.tail_log(folder / "warden.log")
            raise LaunchError(
                f"the warden of {folder.name} ended at once with {code}; its log ends:\n{tail}"
            )
        time.sleep(POLL_SECONDS)


def _ours(pid: int, guard: subprocess.Popen[bytes]) -> bool:
    """Whether that warden is the one below our guard: somebody may start one at the same time."""
    if guard.returncode is not None:
        return guard.returncode == 0
    found = tree.look(pid)
    return found is not None and found.parent == guard.pid


def reconcile(folder: Path, *, elsewhere: bool = False) -> list[str]:
    """Bury a suite whose warden died: kill what is left, end the run at work, write its record.

    Does nothing if the warden lives, has ended in order, or ran on another machine (`elsewhere`: a
    person says that it is dead there). Safe to call at any time by anybody; returns the ids of the
    runs that got their End or record now.
    """
    warden = suite.read_warden(folder)
    if warden is None or suite.alive(warden):
        return []
    if warden.host != socket.gethostname() and not suite.is_here(warden) and not elsewhere:
        return []
    if warden.state in ("ended", "lost"):
        return []
    held = _take_over(folder / "warden.lock", Limits().kill_seconds)
    if held is None:
        return []
    try:
        tree.kill_carriers(warden.token, Limits().kill_seconds)
        buried = _bury(folder)
        lost = {"state": "lost", "detail": "the warden died", "updated_wall": time.time()}
        suite.write_warden(folder, warden.model_copy(update=lost))
    finally:
        os.close(held)
    return buried


def _take_over(lock: Path, seconds: float) -> int | None:
    """The dead warden's lock; its guard shares it, and holds it while it clears up."""
    deadline = time.monotonic() + seconds
    while (held := device_locks.take(lock)) is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return held


def _bury(folder: Path) -> list[str]:
    kept = _recorded(folder)
    buried = []
    for run, spec in suite.runs(folder):
        with contextlib.suppress(JournalBusyError, JournalLostError, OSError):
            if (ended := _end_of(run)) is None or (spec.run_id, ended.attempt) in kept:
                continue
            write_record(folder, run, spec, ended)
            buried.append(spec.run_id)
    return buried


def _end_of(run: Path) -> state.RunState | None:
    """The ended state of a run that was started, ended now if need be; None if it never was."""
    known = state.fold(Tail(run / "events.jsonl").read_all())
    if known.status == "queued":
        return None
    if known.end is not None:
        return known
    return leave_out(run, "supervisor-lost", "the warden died while this run was at work")


def _recorded(folder: Path) -> set[tuple[str, int]]:
    """Runs of this suite that have a record, by id and attempt."""
    found = set()
    with contextlib.suppress(OSError, store.NewerSchema):
        for record in store.read(folder.parent / "results.jsonl"):
            if record.identity.suite == folder.name:
                found.add((record.identity.run_id, record.identity.attempt))
    return found
