"""Orphan reaper: parent process of the warden, which kills what a dead warden leaves behind.

After `kill -9` of the warden the kernel kills the engine (PDEATHSIG), but not its children: loader
workers and ranks in their own sessions would keep the GPU. Orphans are reparented to the
nearest living subreaper, which is this process. It blocks in one system call and shares its memory
with the warden.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import Final, NoReturn

from workbench.processes import tree

_PR_SET_NAME: Final = 15
FORWARDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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
            signal.signal(number, lambda number, _: _forward(warden, number))
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


def _forward(warden: int, number: int) -> None:
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
