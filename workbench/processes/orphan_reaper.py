"""The guard: the warden's parent, which sleeps until the warden ends and then clears up.

`kill -9` leaves a warden no time. The kernel then kills the engine itself (PDEATHSIG), but not what
the engine started: loader workers and ranks in sessions of their own would keep the GPU. They are
handed to the nearest living ancestor that is a subreaper, and that is the guard. It costs nothing:
one process, blocked in one system call, its memory shared with the warden's.
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


def stand(token: str, seconds: float) -> None:
    """Split in two: the caller goes on as the warden, the guard never returns.

    To be called early and from a process with one thread: the two share every lock and file that
    is open now. The warden gets a session of its own, so that nobody ends both with one signal.
    """
    tree.become_subreaper()
    warden = os.fork()
    if warden == 0:
        os.setsid()
        return
    _watch(warden, token, seconds)


def _watch(warden: int, token: str, seconds: float) -> NoReturn:
    code = 1
    try:
        for number in FORWARDED:
            signal.signal(number, lambda number, _: _forward(warden, number))
        ctypes.CDLL(None).prctl(_PR_SET_NAME, b"wb-guard", 0, 0, 0)
        code = os.waitstatus_to_exitcode(os.waitpid(warden, 0)[1])
        killed, survivors = clear(token, seconds)
        if code < 0 or killed:
            say = f"guard: the warden ended with {code}; killed {killed}, survivors {survivors}\n"
            sys.stderr.write(say)
            sys.stderr.flush()
    finally:
        os._exit(code if code >= 0 else 128 - code)


def _forward(warden: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(warden, number)


def clear(token: str, seconds: float) -> tuple[list[int], list[int]]:
    """Kill all that was handed to us, and all that carries the token: (killed, survivors)."""
    me = os.getpid()

    def find() -> list[tree.Process]:
        everybody = tree.everyone()
        ours = (tree.below(me, everybody) | tree.carriers(token)) - {me}
        return [p for pid in ours if (p := everybody.get(pid)) and not p.dead]

    return tree.kill_all(find, seconds, lambda: tree.sweep(me, ()))
