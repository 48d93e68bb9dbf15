"""Cores, memory, descriptors, shared memory and the clock: what a run is allowed to use here."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from results.text import formats
from workbench.doctor.finding import Finding, note, ok, problem

GIB: Final = 1 << 30
LEAST_DESCRIPTORS: Final = 256
"""The warden keeps about 4 descriptors a process it samples; loaders need 8 a worker."""
FEW_DESCRIPTORS: Final = 1024
FEW_SHARED_BYTES: Final = GIB
"""What NVIDIA's containers are to be started with; 64 MiB, a container's default, is too little."""
LEAST_MEMORY_BYTES: Final = 2 * GIB
"""torch alone takes half a GiB in every process."""
SLOW_CLOCKS: Final = frozenset({"hpet", "acpi_pm"})
"""Clock sources that cost microseconds a reading; tsc costs 20 ns."""
_STA_UNSYNC: Final = 0x40


@dataclass(frozen=True, slots=True)
class Allowance:
    """What control groups let us use; None: no limit."""

    memory_bytes: int | None = None
    cores: float | None = None
    processes: int | None = None


def examine() -> Iterator[Finding]:
    """Everything about this machine but its GPUs."""
    allowed = allowance()
    yield cores(allowed)
    yield memory(allowed)
    if allowed.processes is not None and allowed.processes < 512:
        yield note(
            "processes", f"at most {allowed.processes} by control group",
            "use fewer loader workers, or raise pids.max of the container",
        )  # fmt: skip
    yield descriptors(*resource.getrlimit(resource.RLIMIT_NOFILE))
    cards = len(list(Path("/dev").glob("nvidia[0-9]*")))
    yield shared_memory(Path("/dev/shm"), cards)  # noqa: S108 - looked at, never written
    yield clock(_clock_source(), synchronised())


def cores(allowed: Allowance) -> Finding:
    """Cores we may run on, by affinity and by quota."""
    have = len(os.sched_getaffinity(0))
    if allowed.cores is not None and allowed.cores < have:
        return note(
            "cores", f"{have}, but a control group allows the time of {allowed.cores:g}",
            "set `threads` to that number, or steps will be throttled in bursts",
        )  # fmt: skip
    load = os.getloadavg()[0]
    if load > have:
        return note(
            "cores", f"{have}, and other work waits for them (load {load:.1f})",
            "measure when the machine is quiet; step times are too long now",
        )  # fmt: skip
    return ok("cores", f"{have} (load {load:.1f})")


def memory(allowed: Allowance) -> Finding:
    """Memory that is free, and the limit of the control group."""
    import psutil

    found = psutil.virtual_memory()
    text = f"{formats.size(found.available)} free of {formats.size(found.total)}"
    room: int = found.available
    if allowed.memory_bytes is not None and allowed.memory_bytes < found.total:
        text += f"; a control group allows {formats.size(allowed.memory_bytes)}"
        room = min(room, allowed.memory_bytes)
    if room < LEAST_MEMORY_BYTES:
        return problem("memory", text, "free some, or raise the limit: torch needs 2 GiB to start")
    return ok("memory", text)


def descriptors(soft: int, hard: int) -> Finding:
    """How many files a process may open."""
    text = f"{soft:,} open files a process (hard limit {hard:,})"
    raise_it = f"raise it with `ulimit -n {min(4096, hard) if hard > 0 else 4096}`"
    if 0 <= soft < LEAST_DESCRIPTORS:
        return problem("descriptors", text, raise_it)
    if 0 <= soft < FEW_DESCRIPTORS:
        return note("descriptors", text, raise_it)
    return ok("descriptors", text)


def shared_memory(folder: Path, gpus: int) -> Finding:
    """NCCL hands gradients from rank to rank through it where GPUs have no direct way (T4, RTX).

    Nothing else here uses it: loader workers are threads.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        text, free = f"{folder} is not there", 0
    else:
        text = f"{formats.size(free)} free in {folder}"
    if gpus < 2 or free >= FEW_SHARED_BYTES:
        return ok("shared memory", text)
    return problem(
        "shared memory", f"{text}; NCCL may fail with `unhandled system error` on {gpus} GPUs",
        "give the container more (`--shm-size=1g`), or train with nproc_per_node = 1, or set "
        "NCCL_SHM_DISABLE=1, which is slower",
    )  # fmt: skip


def clock(source: str, in_step: bool | None) -> Finding:
    """Durations come from the monotonic clock; the wall clock only labels."""
    if time.time() < 1_700_000_000:
        return problem("clock", time.strftime("it says %Y-%m-%d"), "set it: suites are named by it")
    if source in SLOW_CLOCKS:
        return note(
            "clock", f"source {source}: a reading costs microseconds",
            "boot with `tsc=reliable` if the machine allows it",
        )  # fmt: skip
    state = {True: "synchronised", False: "not synchronised", None: "synchronisation unknown"}
    text = f"{source or 'unknown source'}, {state[in_step]}"
    if in_step is False:
        return note("clock", text, "start chrony or ntpd: labels of two machines cannot be ordered")
    return ok("clock", text)


def allowance(
    proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Allowance:
    """The tightest limits on the way from our control group up to the root, version 2 and 1."""
    try:
        lines = [line.split(":", 2) for line in proc.read_text().splitlines()]
    except (OSError, ValueError):
        return Allowance()
    memory_, cores_, tasks = [], [], []
    for fields in (line for line in lines if len(line) == 3):
        _, controllers, place = fields
        named = controllers.split(",")
        folder = root if not controllers else root / controllers
        if controllers and not folder.is_dir():
            folder = root / named[0]
        for part in _up(folder, place):
            memory_ += [_number(part / "memory.max"), _number(part / "memory.limit_in_bytes")]
            tasks.append(_number(part / "pids.max"))
            cores_ += [_quota(part / "cpu.max"), _quota_v1(part)]
    return Allowance(
        min((int(n) for n in memory_ if n is not None), default=None),
        min((n for n in cores_ if n is not None), default=None),
        min((int(n) for n in tasks if n is not None), default=None),
    )


def _up(root: Path, place: str) -> Iterator[Path]:
    here = root / place.lstrip("/")
    if ".." in Path(place).parts or not here.is_dir():  # another namespace: its root is ours
        here = root
    while True:
        yield here
        if here == root:
            return
        here = here.parent


def _number(path: Path) -> int | None:
    try:
        found = int(path.read_text())
    except (OSError, ValueError):
        return None
    return found if 0 <= found < 1 << 60 else None


def _quota(path: Path) -> float | None:
    try:
        quota, period = path.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _clock_source() -> str:
    path = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    try:
        return path.read_text().strip()
    except OSError:
        return ""


class _Timex(ctypes.Structure):
    """The head of the kernel's `struct timex` (man 2 adjtimex), and room for its rest."""

    _fields_ = [
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    ]  # fmt: skip


def synchronised() -> bool | None:
    """Whether the kernel's clock follows a time server; None: the kernel does not say."""
    state = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state)) < 0:
        return None
    return not state.status & _STA_UNSYNC
