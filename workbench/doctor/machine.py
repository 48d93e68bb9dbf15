"""Cores, memory, processes, file descriptors, shared memory and the clock of this machine."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from results.text import formats
from workbench.doctor.finding import Finding, note, ok, problem
from workbench.processes.host_memory import CgroupLimits, read_cgroup_limits

GIB: Final = 1 << 30
LEAST_DESCRIPTORS: Final = 256
"""The warden keeps about 4 descriptors a process it samples; loaders need 8 a worker."""
FEW_DESCRIPTORS: Final = 1024
FEW_SHARED_BYTES: Final = GIB
"""The size that NVIDIA recommends for containers; their default of 64 MiB is too small."""
LEAST_MEMORY_BYTES: Final = 2 * GIB
"""torch alone takes half a GiB in every process."""
SLOW_CLOCKS: Final = frozenset({"hpet", "acpi_pm"})
"""Clock sources that cost microseconds a reading; tsc costs 20 ns."""
_STA_UNSYNC: Final = 0x40


def machine_findings() -> Iterator[Finding]:
    """All findings about this machine, without its GPUs."""
    limits = read_cgroup_limits()
    yield cores_finding(limits)
    yield memory_finding(limits)
    if limits.processes is not None and limits.processes < 512:
        yield note(
            "processes", f"at most {limits.processes} by control group",
            "use fewer loader workers, or raise pids.max of the container",
        )  # fmt: skip
    yield descriptors_finding(*resource.getrlimit(resource.RLIMIT_NOFILE))
    cards = len(list(Path("/dev").glob("nvidia[0-9]*")))
    yield shared_memory_finding(Path("/dev/shm"), cards)  # noqa: S108 - looked at, never written
    yield clock_finding(_read_clock_source(), is_synchronized())


def cores_finding(limits: CgroupLimits) -> Finding:
    """Usable cores by affinity and quota, and their load."""
    count = len(os.sched_getaffinity(0))
    if limits.cores is not None and limits.cores < count:
        return note(
            "cores", f"{count}, but a control group allows the time of {limits.cores:g}",
            "set `threads` to that number, or steps will be throttled in bursts",
        )  # fmt: skip
    load = os.getloadavg()[0]
    if load > count:
        return note(
            "cores", f"{count}, and other work waits for them (load {load:.1f})",
            "measure when the machine is quiet; step times are too long now",
        )  # fmt: skip
    return ok("cores", f"{count} (load {load:.1f})")


def memory_finding(limits: CgroupLimits) -> Finding:
    """Available memory, and the limit of the control group."""
    import psutil

    host = psutil.virtual_memory()
    text = f"{formats.size(host.available)} free of {formats.size(host.total)}"
    available: int = host.available
    if limits.memory_bytes is not None and limits.memory_bytes < host.total:
        text += f"; a control group allows {formats.size(limits.memory_bytes)}"
        available = min(available, limits.memory_bytes)
    if available < LEAST_MEMORY_BYTES:
        return problem("memory", text, "free some, or raise the limit: torch needs 2 GiB to start")
    return ok("memory", text)


def descriptors_finding(soft: int, hard: int) -> Finding:
    """The limit of open files of a process."""
    text = f"{soft:,} open files a process (hard limit {hard:,})"
    remedy = f"raise it with `ulimit -n {min(4096, hard) if hard > 0 else 4096}`"
    if 0 <= soft < LEAST_DESCRIPTORS:
        return problem("descriptors", text, remedy)
    if 0 <= soft < FEW_DESCRIPTORS:
        return note("descriptors", text, remedy)
    return ok("descriptors", text)


def shared_memory_finding(folder: Path, gpus: int) -> Finding:
    """Free shared memory; NCCL needs it between GPUs without peer access (T4, RTX).

    Nothing else needs it: loader workers are threads.
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


def clock_finding(source: str, synchronized: bool | None) -> Finding:
    """The clock source, and whether the wall clock is synchronized and plausible.

    Durations come from the monotonic clock; the wall clock only labels suites and records.
    """
    if time.time() < 1_700_000_000:
        return problem("clock", time.strftime("it says %Y-%m-%d"), "set it: suites are named by it")
    if source in SLOW_CLOCKS:
        return note(
            "clock", f"source {source}: a reading costs microseconds",
            "boot with `tsc=reliable` if the machine allows it",
        )  # fmt: skip
    state = {True: "synchronized", False: "not synchronized", None: "synchronization unknown"}
    text = f"{source or 'unknown source'}, {state[synchronized]}"
    if synchronized is False:
        return note("clock", text, "start chrony or ntpd: labels of two machines cannot be ordered")
    return ok("clock", text)


def _read_clock_source() -> str:
    path = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    try:
        return path.read_text().strip()
    except OSError:
        return ""


class _Timex(ctypes.Structure):
    """The first fields of the kernel's `struct timex` (man 2 adjtimex), and space for the rest."""

    _fields_ = [
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    ]  # fmt: skip


def is_synchronized() -> bool | None:
    """Whether the kernel's clock follows a time server; None: unknown."""
    state = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state)) < 0:
        return None
    return not state.status & _STA_UNSYNC
