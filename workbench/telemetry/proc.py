"""Memory and CPU of an engine's process tree from /proc, in about 15 µs a process.

psutil costs eight times as much: here `statm` and `stat` are read through descriptors that stay
open, which also prevents confusion with a reused pid.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from workbench.processes import tree

PAGE: Final = os.sysconf("SC_PAGE_SIZE")
TICKS: Final = os.sysconf("SC_CLK_TCK")
SHORTEST_SECONDS: Final = 0.05
"""CPU time is counted in ticks of 10 ms: one tick within 0.2 ms would show as 5,000 %."""
MAX_PROCESSES: Final = 256
"""Maximum number of measured processes, two descriptors each."""


@dataclass(frozen=True, slots=True)
class HostReading:
    """One reading of the tree. Sizes in bytes; CPU in percent of one core since the last reading
    that had it."""

    rss_main: int | None
    rss_tree: int | None
    cpu_percent: float | None
    processes: int


class _OpenProcess:
    """One process with its open `statm` and `stat`."""

    def __init__(self, pid: int, proc: str) -> None:
        self.statm = os.open(f"{proc}/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.stat = os.open(f"{proc}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self.statm)
            raise
        self.cpu_ticks: int | None = None

    def rss(self) -> int:
        return int(os.pread(self.statm, 256, 0).split()[1]) * PAGE

    def ticks(self) -> tuple[int, float]:
        """CPU used so far in clock ticks, and its start in seconds since boot."""
        fields = os.pread(self.stat, 1024, 0).rpartition(b")")[2].split()
        return int(fields[11]) + int(fields[12]), int(fields[19]) / TICKS

    def close(self) -> None:
        os.close(self.statm)
        os.close(self.stat)


class TreeMeter:
    """Repeated readings of one process tree; `watch` sets its processes."""

    def __init__(self, main: int, proc: str = "/proc") -> None:
        self.main = main
        self._proc = proc
        self._open: dict[int, _OpenProcess] = {}
        self._last: float | None = None
        self._since: float | None = None
        """Start of the interval of `_spent`; readings too close to each other are merged."""
        self._spent = 0
        self.watch([main])

    def watch(self, pids: Iterable[int]) -> None:
        """Set the processes to read, at most `MAX_PROCESSES`."""
        measured = list(pids)[:MAX_PROCESSES]
        for gone in set(self._open) - set(measured):
            self._open.pop(gone).close()
        for pid in measured:
            if pid not in self._open:
                with contextlib.suppress(OSError):
                    self._open[pid] = _OpenProcess(pid, self._proc)

    @property
    def pids(self) -> list[int]:
        """Pids of the processes that are read."""
        return list(self._open)

    def read(self) -> HostReading:
        """Resident memory and CPU of the tree now; None for ended processes."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)  # what start times count from
        sizes: dict[int, int] = {}
        spent = 0
        for pid, process in list(self._open.items()):
            try:
                sizes[pid] = process.rss()
                ticks, started = process.ticks()
            except (OSError, IndexError):
                self._open.pop(pid).close()
                continue
            spent += max(0, ticks - self._ticks_before(process, ticks, started))
            process.cpu_ticks = ticks
        self._last = now
        return HostReading(
            rss_main=sizes.get(self.main) or None,  # 0: a zombie, whose memory is gone
            rss_tree=sum(sizes.values()) or None,
            cpu_percent=self._percent(now, spent),
            processes=len(sizes),
        )

    def _percent(self, now: float, spent: int) -> float | None:
        """CPU since the last value; None at the first reading and within `SHORTEST_SECONDS`."""
        self._spent += spent
        if self._since is None:
            self._since, self._spent = now, 0
        elapsed = now - self._since
        if elapsed < SHORTEST_SECONDS:
            return None
        percent = 100 * self._spent / TICKS / elapsed
        self._since, self._spent = now, 0
        return percent

    def _ticks_before(self, process: _OpenProcess, ticks: int, started: float) -> int:
        """Ticks at the last reading; for a process that existed but was not read, all of them."""
        if process.cpu_ticks is not None:
            return process.cpu_ticks
        return 0 if self._last is not None and started >= self._last else ticks

    def peak_main(self) -> int | None:
        """VmHWM of the main process in bytes: the kernel's exact peak."""
        return _read_field(f"{self._proc}/{self.main}/status", b"VmHWM:")

    def pss(self) -> int | None:
        """Sum of proportional set sizes in bytes; shared pages count once in total.

        Walks page tables (7 ms for 600 MiB) under the target's mmap lock: for phase marks only.
        """
        parts = [_read_field(f"{self._proc}/{pid}/smaps_rollup", b"Pss:") for pid in self._open]
        sizes = [part for part in parts if part is not None]
        return sum(sizes) if sizes else None

    def close(self) -> None:
        """Close all files."""
        self.watch([])


def _read_field(path: str, name: bytes) -> int | None:
    """A line `Name:   123 kB` in bytes."""
    try:
        data = tree.read_file(path)
        start = data.index(name) + len(name)
        return int(data[start : data.index(b"kB", start)]) * 1024
    except (OSError, ValueError):
        return None
