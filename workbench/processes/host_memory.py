"""Memory that a process here may use: the machine's, the control group's, the Slurm job's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """Limits of the control groups; None: no limit."""

    memory_bytes: int | None = None
    cores: float | None = None
    processes: int | None = None


class UsableMemory(NamedTuple):
    """Main memory in bytes."""

    total: int
    available: int


def read_memory(variables: Mapping[str, str] = os.environ) -> UsableMemory:
    """The least of the machine, the control group, and the memory of the surrounding Slurm job.

    A control group's limit counts as free as a whole: what is used in it includes caches of files,
    which the kernel gives back.
    """
    import psutil  # 15 ms

    host = psutil.virtual_memory()
    limits = [read_cgroup_limits().memory_bytes, read_job_memory(variables)]
    least = min([host.total, *(limit for limit in limits if limit is not None)])
    return UsableMemory(least, min(host.available, least))


def read_job_memory(variables: Mapping[str, str]) -> int | None:
    """Bytes of the Slurm job on this node; None: no job, or one without such a limit.

    Slurm gives MiB; 0 means all memory of the node.
    """
    per_core = _read_mebibytes(variables, "SLURM_MEM_PER_CPU")
    cores = variables.get("SLURM_CPUS_ON_NODE", "")
    if per_core is not None and cores.isdecimal():
        return per_core * int(cores) or None
    return _read_mebibytes(variables, "SLURM_MEM_PER_NODE") or None


def _read_mebibytes(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name, "")
    return int(text) << 20 if text.isdecimal() else None


def read_cgroup_limits(
    proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> CgroupLimits:
    """The tightest limits from our control group up to the root, of cgroup versions 2 and 1."""
    try:
        lines = [line.split(":", 2) for line in proc.read_text().splitlines()]
    except (OSError, ValueError):
        return CgroupLimits()
    memory_limits, core_limits, process_limits = [], [], []
    for fields in (line for line in lines if len(line) == 3):
        _, controllers, group = fields
        names = controllers.split(",")
        folder = root if not controllers else root / controllers
        if controllers and not folder.is_dir():
            folder = root / names[0]
        for part in _folders_up(folder, group):
            memory_limits += [
                _read_number(part / "memory.max"),
                _read_number(part / "memory.limit_in_bytes"),
            ]
            process_limits.append(_read_number(part / "pids.max"))
            core_limits += [_read_quota(part / "cpu.max"), _read_quota_v1(part)]
    return CgroupLimits(
        min((int(n) for n in memory_limits if n is not None), default=None),
        min((n for n in core_limits if n is not None), default=None),
        min((int(n) for n in process_limits if n is not None), default=None),
    )


def _folders_up(root: Path, group: str) -> Iterator[Path]:
    folder = root / group.lstrip("/")
    if ".." in Path(group).parts or not folder.is_dir():  # of another namespace: use its root
        folder = root
    while True:
        yield folder
        if folder == root:
            return
        folder = folder.parent


def _read_number(path: Path) -> int | None:
    try:
        number = int(path.read_text())
    except (OSError, ValueError):
        return None
    return number if 0 <= number < 1 << 60 else None


def _read_quota(path: Path) -> float | None:
    try:
        quota, period = path.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _read_quota_v1(folder: Path) -> float | None:
    quota, period = (
        _read_number(folder / "cpu.cfs_quota_us"),
        _read_number(folder / "cpu.cfs_period_us"),
    )
    return quota / period if quota and period else None
