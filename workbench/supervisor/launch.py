"""Start of a warden as a detached process, and the orphan reaper: the parent process above it.

After `kill -9` of the warden the kernel kills the engine (PDEATHSIG), but not its children: loader
workers and ranks in their own sessions would keep the GPU. Orphans are reparented to the nearest
living subreaper: the reaper, which blocks in one system call and shares the warden's memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from workbench import paths
from workbench.processes import engine_process, tree
from workbench.processes.limits import Limits
from workbench.suites import warden_file
from workbench.supervisor.warden_options import WardenOptions

POLL_SECONDS: Final = 0.02
FORWARDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_NAME: Final = 15


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
    folder: Path, *, foreground: bool = False, options: WardenOptions | None = None
) -> LaunchedWarden:
    """Start the warden of a suite in its own session, and wait until it is running.

    `foreground`: it holds the read end of a life pipe and stops when this process ends. Otherwise
    it is detached, also from a hang-up of the terminal.

    Raises:
        LaunchError: it ended at once, or wrote no state within `Limits.start_seconds`.
    """
    _STARTED[:] = [started for started in _STARTED if started.poll() is None]
    options = options or WardenOptions()
    home = options.state_folder(folder)
    reading, writing = os.pipe() if foreground else (-1, -1)
    command = [sys.executable, "-m", options.module, str(folder)]
    command += ["--life-fd", str(reading)] if foreground else []
    command += options.to_arguments()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    variables = {k: v for k, v in os.environ.items() if k != tree.TOKEN_NAME}
    before = warden_file.read_warden(home)
    log = os.open(home / "warden.log", flags, 0o600)
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
        pid = _wait_until_up(home, popen, before)
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
    folder: Path, popen: subprocess.Popen[bytes], before: warden_file.WardenFile | None
) -> int:
    """Wait until warden.json is that of the new warden and not of `before`; returns its pid."""
    deadline = time.monotonic() + Limits().start_seconds
    old = (before.pid, before.start_ticks) if before else None
    while True:
        code = popen.poll()
        warden = warden_file.read_warden(folder)
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


def fork_reaper(token: str, seconds: float) -> None:
    """Fork: the child returns and becomes the warden, the parent (the reaper) never returns.

    Call it early and from a process with one thread: both share every lock and file that is open
    now. The warden gets its own session, so that one signal does not end both. `seconds`: time
    allowed for killing orphans.
    """
    tree.become_subreaper()
    warden = os.fork()
    if warden == 0:
        os.setsid()
        return
    _wait_and_reap(warden, token, seconds)


def _wait_and_reap(warden: int, token: str, seconds: float) -> NoReturn:
    code = 1
    try:
        for number in FORWARDED:
            signal.signal(number, lambda number, _: _forward_signal(warden, number))
        ctypes.CDLL(None).prctl(_PR_SET_NAME, b"wb-guard", 0, 0, 0)
        code = os.waitstatus_to_exitcode(os.waitpid(warden, 0)[1])
        killed, survivors = kill_orphans(token, seconds)
        if code < 0 or killed:
            message = (
                f"guard: the warden ended with {code}; killed {killed}, survivors {survivors}\n"
            )
            sys.stderr.write(message)
            sys.stderr.flush()
    finally:
        os._exit(code if code >= 0 else 128 - code)


def _forward_signal(warden: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(warden, number)


def kill_orphans(token: str, seconds: float) -> tuple[list[int], list[int]]:
    """Kill all adopted processes and all with the token: pids of (killed, survivors)."""
    me = os.getpid()

    def find() -> list[tree.Process]:
        everybody = tree.list_processes()
        ours = (tree.subtree_pids(me, everybody) | tree.processes_with_token(token)) - {me}
        return [p for pid in ours if (p := everybody.get(pid)) and not p.dead]

    return tree.kill_all(find, seconds, lambda: tree.kill_children(me, ()))
