"""The guard: a sleeping twin of the warden that clears up if the warden is killed.

`kill -9` leaves a warden no time. The kernel then kills the engine itself (PDEATHSIG), but not what
the engine started: loader workers and ranks in sessions of their own would keep the GPU. The guard
waits on the same life pipe as the engines, costs nothing, and kills by the run token.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import Final, NoReturn

from workbench import tree

_PR_SET_NAME: Final = 15


def start(token: str, seconds: float) -> tuple[int, int]:
    """Fork the guard; its pid, and the read end of the life pipe for the engines.

    To be called early and from a process with one thread: the twin shares the warden's memory and
    must hold none of its locks. The pipe's write end stays open here until this process ends.
    """
    reading, _writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _watch(reading, token, seconds)
    return pid, reading


def _watch(reading: int, token: str, seconds: float) -> NoReturn:
    try:
        os.setsid()  # whoever kills the warden's group shall not take the guard too
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(_PR_SET_NAME, b"wb-guard", 0, 0, 0)
        os.closerange(3, reading)
        os.closerange(reading + 1, os.sysconf("SC_OPEN_MAX"))
        while os.read(reading, 1):
            pass
        killed, survivors = tree.kill_carriers(token, seconds)
        sys.stderr.write(f"guard: the warden is gone; killed {killed}, survivors {survivors}\n")
        sys.stderr.flush()
    finally:
        os._exit(0)


def stop(pid: int) -> None:
    """The warden ends in order, and with it its guard."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
