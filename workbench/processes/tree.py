"""Everything that an engine started: finding it, signalling it, and leaving nothing of it alive.

Killing a process group is not enough: `torchrun` puts every rank into a session of its own, and a
dead parent's children move to init. So a process belongs to an attempt if any of these holds: it
descends from the engine or was adopted by the warden (a subreaper), it is in a session that the
tree opened, or it carries the run token in its environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from workbench import paths

PROC: Final = "/proc"
TOKEN_NAME: Final = "WORKBENCH_TOKEN"  # noqa: S105 - the variable's name, not a secret
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_PDEATHSIG: Final = 1


class Process(NamedTuple):
    """One process. Pid and start ticks together name it for good; a pid alone is used again."""

    pid: int
    start_ticks: int
    parent: int
    session: int
    state: str
    """One letter of /proc/PID/stat: R, S, D, T, Z, …"""

    @property
    def dead(self) -> bool:
        """A zombie: it does nothing more and waits for its parent."""
        return self.state in "ZX"


def become_subreaper() -> None:
    """Orphans of this process's descendants become its children instead of init's."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@functools.cache
def pid_place() -> str:
    """Where this process's pids mean what they mean: the running kernel and the pid namespace.

    A host's name does not say it: containers may share one, and it may change under way.
    """
    try:
        namespace = str(Path(f"{PROC}/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return f"{paths.boot_id()} {namespace}"


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however that happens."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


def read(path: str) -> bytes:
    """A file of /proc, three times as fast as pathlib: this runs for every process there is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while part := os.read(descriptor, 65_536):
            data += part
        return data
    finally:
        os.close(descriptor)


def look(pid: int, proc: str = PROC) -> Process | None:
    """What the kernel says of one process; None if it is gone."""
    try:
        text = read(f"{proc}/{pid}/stat")
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()  # the name before it may hold anything
    return Process(pid, int(fields[19]), int(fields[1]), int(fields[3]), fields[0].decode())


def start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat, 0 if the process is gone."""
    process = look(pid)
    return process.start_ticks if process else 0


def numbers(folder: str) -> list[int]:
    """Entries of a folder of /proc that are numbers: pids, or threads of `task`."""
    try:
        with os.scandir(folder) as entries:
            return [int(entry.name) for entry in entries if entry.name.isdigit()]
    except OSError:
        return []


def everyone(proc: str = PROC) -> dict[int, Process]:
    """All processes of the machine that this one can see: about 20 µs each."""
    found = (look(pid, proc) for pid in numbers(proc))
    return {process.pid: process for process in found if process}


def children(pid: int, proc: str = PROC) -> list[int]:
    """Direct children, of all threads: a fork belongs to the thread that made it."""
    found: list[int] = []
    for task in numbers(f"{proc}/{pid}/task"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in read(f"{proc}/{pid}/task/{task}/children").split()]
    return found


def descendants(pid: int, limit: int = 4096) -> list[int]:
    """The process and all below it, top down, from the kernel's lists of children."""
    found = [pid]
    for parent in found:  # grows while it is walked
        found += [child for child in children(parent) if child not in found]
        if len(found) >= limit:
            break
    return found


def below(root: int, everybody: dict[int, Process], apart: Iterable[int] = ()) -> set[int]:
    """The process and all its descendants, without the branches of those in `apart`."""
    by_parent: dict[int, list[int]] = {}
    for process in everybody.values():
        by_parent.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set(apart)
    pending = [root]
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending += by_parent.get(pid, [])
    return found - set(apart)


def carriers(token: str, proc: str = PROC) -> set[int]:
    """Processes whose environment held the token when they started: 6 µs a process."""
    needle = f"{TOKEN_NAME}={token}".encode()
    found = set()
    for pid in numbers(proc):
        with contextlib.suppress(OSError):  # gone, or somebody else's
            if needle in read(f"{proc}/{pid}/environ").split(b"\0"):
                found.add(pid)
    return found


def send(process: Process, number: int) -> bool:
    """Signal that very process and never another one; False if it is gone already."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if start_ticks(process.pid) != process.start_ticks:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@dataclass
class Tree:
    """All processes of one attempt, as seen from the warden."""

    root: Process
    """The engine."""
    token: str
    warden: int
    """This process: its other children (sampler, guard) are in `spared`."""
    spared: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self._sessions: dict[int, int] = {}
        self._note_sessions([self.root])

    def living(self) -> list[Process]:
        """Every process that still runs, zombies left out; a full look over the machine."""
        everybody = everyone()
        mine = below(self.warden, everybody, self.spared) | carriers(self.token)
        self._note_sessions(everybody[pid] for pid in mine if pid in everybody)
        mine |= {p.pid for p in everybody.values() if self._in_known_session(p, everybody)}
        mine -= self.spared | {self.warden, os.getpid(), 0, 1}
        return [p for pid in sorted(mine) if (p := everybody.get(pid)) and not p.dead]

    def _note_sessions(self, processes: Iterable[Process]) -> None:
        for process in processes:
            if process.session == process.pid:  # it opened the session itself
                self._sessions[process.session] = process.start_ticks

    def _in_known_session(self, process: Process, everybody: dict[int, Process]) -> bool:
        ticks = self._sessions.get(process.session)
        if ticks is None or process.start_ticks < ticks:
            return False
        leader = everybody.get(process.session)
        return leader is None or leader.start_ticks == ticks

    def signal_all(self, number: int) -> None:
        """Signal every process of the tree, whatever group or session it has fled to."""
        for process in self.living():
            send(process, number)

    def kill(self, seconds: float) -> tuple[list[int], list[int]]:
        """Kill everything of the tree: (killed, survivors).

        Freezing first stops a fork storm from outrunning the killer. What is left after `seconds`
        is in uninterruptible sleep or somebody else's.
        """
        keep = self.spared | {self.root.pid}  # the engine's status is for `Engine.poll`
        return kill_all(self.living, seconds, lambda: sweep(self.warden, keep))


def kill_all(
    find: Callable[[], list[Process]],
    seconds: float,
    sweep_up: Callable[[], tuple[set[int], int]] = lambda: (set(), 0),
) -> tuple[list[int], list[int]]:
    """Freeze, look again, kill what `find` finds, until two looks in a row find nothing.

    Two, since a look over /proc can miss a process that was forked during it.
    """
    killed: set[int] = set()
    empty, deadline = 0, time.monotonic() + seconds
    while empty < 2:
        swept, ended = sweep_up()
        killed |= swept
        left = find()
        if not (left or ended):
            empty += 1
            continue
        empty = 0
        if time.monotonic() > deadline:
            return sorted(killed), [process.pid for process in left]
        for process in left:
            send(process, signal.SIGSTOP)
        killed |= {p.pid for p in {*left, *find()} if send(p, signal.SIGKILL)}
        time.sleep(0.005)  # a killed process needs a moment to leave
    return sorted(killed), []


SWEEPS: Final = 200
"""Rounds of one sweep, about 10 ms: what cannot be killed at once is left to the caller."""


def sweep(warden: int, spared: Iterable[int]) -> tuple[set[int], int]:
    """Kill and reap our own children, adopted ones among them: (killed, how many have ended).

    A look over all of /proc takes milliseconds; a chain in which each process forks the next and
    ends may be gone by then every time. Its living member is always our child, and one look at
    those takes 20 µs. A child that is not reaped yet keeps its pid, so `kill` hits no other.
    """
    keep = set(spared)
    killed: set[int] = set()
    ended = 0
    for _ in range(SWEEPS):
        mine = [pid for pid in children(warden) if pid not in keep]
        if not mine:
            break
        for pid in mine:
            process = look(pid)
            if process is not None and not process.dead:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        ended += reap(warden, keep)
    return killed, ended


def reap(warden: int, spared: Iterable[int]) -> int:
    """Take the exit status of adopted children that have ended; returns how many.

    Each by its own pid: waiting for any child would steal the engine's status, and a stolen status
    reads as success.
    """
    count, keep = 0, set(spared)
    for pid in children(warden):
        if pid in keep:
            continue
        with contextlib.suppress(ChildProcessError):
            count += os.waitpid(pid, os.WNOHANG)[0] == pid
    return count


def kill_carriers(token: str, seconds: float) -> tuple[list[int], list[int]]:
    """Kill all that carries the token, from outside the tree: (killed, survivors)."""
    me = os.getpid()

    def find() -> list[Process]:
        found = (look(pid) for pid in carriers(token) if pid != me)
        return [process for process in found if process and not process.dead]

    return kill_all(find, seconds)
