"""Process tree of an engine: find, signal and kill all of its processes.

Killing a process group is not enough: launchers such as `torchrun` give their children sessions of
their own, and children of a dead parent move to init. A process belongs to an attempt if one of
these holds: it descends from the engine or was adopted by the warden (a subreaper), it is in a
session that the tree opened, or it has the run token in its environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import secrets
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
    """One process, identified by pid and start ticks; a pid alone is reused."""

    pid: int
    start_ticks: int
    parent: int
    session: int
    state: str
    """One letter of /proc/PID/stat: R, S, D, T, Z, …"""

    @property
    def dead(self) -> bool:
        """Whether it is a zombie, which waits for its parent."""
        return self.state in "ZX"


def become_subreaper() -> None:
    """Make orphaned descendants of this process its children instead of init's."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@functools.cache
def pid_namespace() -> str:
    """Identity of the pid namespace: boot id of the kernel and number of the namespace.

    A host's name does not identify it: containers may share one, and it may change.
    """
    try:
        namespace = str(Path(f"{PROC}/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return f"{paths.boot_id()} {namespace}"


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


def read_file(path: str) -> bytes:
    """Content of a file of /proc; three times as fast as pathlib, since it runs per process."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while part := os.read(descriptor, 65_536):
            data += part
        return data
    finally:
        os.close(descriptor)


def read_process(pid: int, proc: str = PROC) -> Process | None:
    """The process from /proc/PID/stat; None: it has ended."""
    try:
        text = read_file(f"{proc}/{pid}/stat")
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()  # the name before it may hold anything
    return Process(pid, int(fields[19]), int(fields[1]), int(fields[3]), fields[0].decode())


def read_start_ticks(pid: int) -> int:
    """Start time in clock ticks since boot (field 22 of /proc/PID/stat); 0: it has ended."""
    process = read_process(pid)
    return process.start_ticks if process else 0


def numeric_entries(folder: str) -> list[int]:
    """Numeric entries of a folder of /proc: pids, or threads in `task`."""
    try:
        with os.scandir(folder) as entries:
            return [int(entry.name) for entry in entries if entry.name.isdigit()]
    except OSError:
        return []


def list_processes(proc: str = PROC) -> dict[int, Process]:
    """All visible processes of the machine by pid: about 20 µs each."""
    processes = (read_process(pid, proc) for pid in numeric_entries(proc))
    return {process.pid: process for process in processes if process}


def child_pids(pid: int, proc: str = PROC) -> list[int]:
    """Pids of direct children, of all threads: a child belongs to the thread that forked it."""
    pids: list[int] = []
    for task in numeric_entries(f"{proc}/{pid}/task"):
        with contextlib.suppress(OSError):
            pids += [
                int(child) for child in read_file(f"{proc}/{pid}/task/{task}/children").split()
            ]
    return pids


def descendant_pids(pid: int, limit: int = 4096) -> list[int]:
    """Pids of the process and its descendants, top down, about `limit` at most."""
    pids = [pid]
    for parent in pids:  # grows while it is walked
        pids += [child for child in child_pids(parent) if child not in pids]
        if len(pids) >= limit:
            break
    return pids


def subtree_pids(
    root: int, processes: dict[int, Process], excluded: Iterable[int] = ()
) -> set[int]:
    """Pids of the process and its descendants among `processes`, without excluded branches."""
    by_parent: dict[int, list[int]] = {}
    for process in processes.values():
        by_parent.setdefault(process.parent, []).append(process.pid)
    pids: set[int] = set(excluded)
    pending = [root]
    while pending:
        pid = pending.pop()
        if pid not in pids:
            pids.add(pid)
            pending += by_parent.get(pid, [])
    return pids - set(excluded)


def make_attempt_token(token: str) -> str:
    """Token of one attempt: that of the suite, a dot, 8 hex digits."""
    return f"{token}.{secrets.token_hex(4)}"


def processes_with_token(token: str, proc: str = PROC) -> set[int]:
    """Pids of processes whose initial environment has the token: 6 µs a process.

    The token of a suite is that of all its attempts too.
    """
    return {pid for pid in numeric_entries(proc) if has_token(pid, token, proc)}


def has_token(pid: int, token: str, proc: str = PROC) -> bool:
    """Whether the initial environment of a process has the token; False for a zombie."""
    try:
        variables = b"\0" + read_file(f"{proc}/{pid}/environ") + b"\0"
    except OSError:  # gone, or somebody else's
        return False
    needle = f"\0{TOKEN_NAME}={token}".encode()
    return needle in variables and any(needle + end in variables for end in (b"\0", b"."))


def send_signal(process: Process, number: int) -> bool:
    """Send a signal to exactly this process; False: it has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if read_start_ticks(process.pid) != process.start_ticks:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@dataclass
class Tree:
    """All processes of one attempt, seen from the warden."""

    root: Process
    """The engine."""
    token: str
    warden: int
    """Pid of this process; its other children (sampler, searcher, engines of other attempts) are
    in `protected`."""
    protected: frozenset[int] = frozenset()
    alone: bool = True
    """No other attempt is at work: whatever the warden adopted belongs to this one."""
    log: str = ""
    """Path of the file that the engine's stdout and stderr go to."""

    def __post_init__(self) -> None:
        self._sessions: dict[int, int] = {}
        self._members: dict[int, int] = {}
        self._note_sessions([self.root])

    def note_members(self, pids: Iterable[int]) -> None:
        """Keep in mind which processes descend from the engine, for when they are adopted."""
        self._members = {pid: read_start_ticks(pid) for pid in pids}

    def owns(self, pid: int) -> bool:
        """Whether a child that the warden adopted is of this attempt.

        Beside other attempts by token, session, output, or having descended from the engine. One
        without all of these is left alone until no other attempt is at work.
        """
        if self.alone:
            return True
        process = read_process(pid)
        if process is None:
            return False
        member = self._members.get(pid) == process.start_ticks or self._is_in_session(process)
        return member or has_token(pid, self.token) or self._writes_log(pid)

    def _writes_log(self, pid: int) -> bool:
        """Whether its stdout or stderr is the engine's log."""
        for number in (1, 2):
            with contextlib.suppress(OSError):
                if self.log and str(Path(f"{PROC}/{pid}/fd/{number}").readlink()) == self.log:
                    return True
        return False

    def _is_in_session(self, process: Process) -> bool:
        leader = read_process(process.session)
        everybody = {leader.pid: leader} if leader else {}
        return self._in_known_session(process, everybody)

    def list_living(self) -> list[Process]:
        """Every running process of the tree without zombies; scans all of /proc."""
        everybody = list_processes()
        adopted = [p.pid for p in everybody.values() if p.parent == self.warden]
        others = {pid for pid in adopted if pid != self.root.pid and not self.owns(pid)}
        mine = subtree_pids(self.warden, everybody, self.protected | others)
        mine |= processes_with_token(self.token)
        self._note_sessions(everybody[pid] for pid in mine if pid in everybody)
        mine |= {p.pid for p in everybody.values() if self._in_known_session(p, everybody)}
        mine -= self.protected | {self.warden, os.getpid(), 0, 1}
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
        """Signal every process of the tree in any group or session."""
        for process in self.list_living():
            send_signal(process, number)

    def kill(self, seconds: float) -> tuple[list[int], list[int]]:
        """Kill the whole tree: pids of (killed, survivors).

        SIGSTOP first, so that a fork storm cannot outrun the killer. Survivors after `seconds` are
        in uninterruptible sleep or belong to another user.
        """
        keep = self.protected | {self.root.pid}  # the engine's status is for `Engine.poll`
        sweep = functools.partial(kill_children, self.warden, keep, self.owns)
        return kill_all(self.list_living, seconds, sweep)


def kill_all(
    find: Callable[[], list[Process]],
    seconds: float,
    sweep_up: Callable[[], tuple[set[int], int]] = lambda: (set(), 0),
) -> tuple[list[int], list[int]]:
    """Stop and kill what `find` returns, until two scans in a row are empty.

    Two, since a scan of /proc can miss a process that was forked during it. Returns pids of
    (killed, survivors); gives up after `seconds`. `sweep_up`: run before each scan.
    """
    killed: set[int] = set()
    empty, deadline = 0, time.monotonic() + seconds
    while empty < 2:
        swept, ended = sweep_up()
        killed |= swept
        remaining = find()
        if not (remaining or ended):
            empty += 1
            continue
        empty = 0
        if time.monotonic() > deadline:
            return sorted(killed), [process.pid for process in remaining]
        for process in remaining:
            send_signal(process, signal.SIGSTOP)
        killed |= {p.pid for p in {*remaining, *find()} if send_signal(p, signal.SIGKILL)}
        time.sleep(0.005)  # a killed process needs a moment to leave
    return sorted(killed), []


SWEEPS: Final = 200
"""Rounds of one `kill_children`, about 10 ms; the rest is left to the caller."""


def kill_children(
    warden: int, protected: Iterable[int], owns: Callable[[int], bool] = lambda _: True
) -> tuple[set[int], int]:
    """Kill and reap direct children, adopted ones included: (pids killed, number reaped).

    `owns`: whether a child is to be killed.

    A scan of /proc takes milliseconds, in which a chain of processes that fork and exit can always
    escape. Its living member is always a child of the subreaper, and listing those takes 20 µs. A
    child that is not reaped keeps its pid, so that `kill` cannot hit another process.
    """
    keep = set(protected)
    killed: set[int] = set()
    ended = 0
    for _ in range(SWEEPS):
        mine = [pid for pid in child_pids(warden) if pid not in keep and owns(pid)]
        if not mine:
            break
        for pid in mine:
            process = read_process(pid)
            if process is not None and not process.dead:
                with contextlib.suppress(OSError):  # it became another user; `find` names it
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        ended += reap_children(warden, keep)
    return killed, ended


def reap_children(warden: int, protected: Iterable[int]) -> int:
    """Reap adopted children that have ended; returns how many.

    Each by its pid: waiting for any child would also reap the engine, whose status would be lost.
    """
    count, keep = 0, set(protected)
    for pid in child_pids(warden):
        if pid in keep:
            continue
        with contextlib.suppress(ChildProcessError):
            count += os.waitpid(pid, os.WNOHANG)[0] == pid
    return count


def kill_processes_with_token(token: str, seconds: float) -> tuple[list[int], list[int]]:
    """Kill all processes with the token, from outside the tree: pids of (killed, survivors)."""
    me = os.getpid()

    def find() -> list[Process]:
        processes = (read_process(pid) for pid in processes_with_token(token) if pid != me)
        return [process for process in processes if process and not process.dead]

    return kill_all(find, seconds)
