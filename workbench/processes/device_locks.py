"""One suite at a time on a device: two would halve each other's speed and falsify both.

A lock is a `flock` on a file in `paths.lock_root()`; the kernel frees it when its holder
dies, so nothing stale is ever left. Its content only says who holds it. Who runs on a taken device
all the same (`--share`) holds a second file, by which the first one learns that it has company.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from engines.protocol import RunSpec
from results.records.schema import GpuInfo
from workbench import paths
from workbench.processes import gpu_selection

_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")


CPU: Final = "cpu"
EVERY_GPU: Final = "gpus"
"""All GPUs of the machine, for a run of which nobody knows the ones that it will take."""

MEMBERS: Final = "gpu-any"
"""Held in common by all who run beside others (`share`) on single GPUs."""


def devices_of(
    spec: RunSpec,
    variables: Mapping[str, str],
    gpus: Sequence[GpuInfo],
    nodes: Path = gpu_selection.DEV,
) -> set[str]:
    """The names of what a run will use: `cpu`, or UUIDs of GPUs and of MIG slices.

    An engine without a device setting takes whatever the environment shows, so all of it is locked.
    Where GPUs may be and the driver has not listed them, everything is.
    """
    hidden = not spec.devices and gpu_selection.hides_all(variables)
    if spec.cpu or hidden:
        return {CPU}
    if not gpus:
        return {CPU, EVERY_GPU} if spec.devices or gpu_selection.may_be_here(nodes) else {CPU}
    visible = gpu_selection.resolve(spec.devices, variables, gpus)
    if not visible.gpus:
        return {CPU, EVERY_GPU}
    return {gpu.uuid or EVERY_GPU for gpu in visible.gpus}


class DeviceLocks:
    """The locks of one suite. All or none; give them back with `release` or by dying."""

    def __init__(self, names: Iterable[str], holder: str, root: Path | None = None) -> None:
        self.devices = tuple(sorted(set(names)))  # one order for all, so nobody waits in a ring
        self.holder = holder
        self.behind = ""
        """Who was in the way at the last try: `SUITE on DEVICE`."""
        self._root = paths.make_private(root or paths.lock_root())
        self._held: dict[str, int] = {}
        self._company: list[int] = []

    @property
    def exclusive(self) -> bool:
        """The locks are ours."""
        return bool(self._held)

    def acquire(self) -> bool:
        """Try once, without waiting."""
        if self._held:
            return True
        taken: dict[str, int] = {}
        for device, mode in self._lock_modes():
            descriptor = self._open(device, "lock")
            if not _flock(descriptor, mode):
                self.behind = f"{_read_holder(descriptor)} on {device}"
                for other in (descriptor, *taken.values()):
                    os.close(other)
                return False
            taken[device] = descriptor
        self.behind = ""
        for descriptor in taken.values():
            _write_holder(descriptor, self.holder)
        self._held = taken
        self._leave_company()
        return True

    def _lock_modes(self) -> list[tuple[str, int]]:
        """Files and their modes. Whoever has a single GPU holds the one of all in common with the
        others, so that nobody has all of them meanwhile."""
        modes = dict.fromkeys(self.devices, fcntl.LOCK_EX)
        if self._single_gpus and EVERY_GPU not in modes:
            modes[EVERY_GPU] = fcntl.LOCK_SH
        return sorted(modes.items())

    @property
    def _single_gpus(self) -> bool:
        return any(device not in (CPU, EVERY_GPU) for device in self.devices)

    def share(self) -> None:
        """Run beside whoever holds the locks, and let them know."""
        if not self._held:
            self._join()

    def _join(self) -> None:
        if not self._company:
            names = [*self.devices, *([MEMBERS] if self._single_gpus else ())]
            self._company = [self._open(name, "shared") for name in names]
            for descriptor in self._company:
                fcntl.flock(descriptor, fcntl.LOCK_SH)

    def contaminated(self) -> bool:
        """Whether another suite computes on one of our devices now."""
        if not self._held or not self._renew():
            return True
        names = {*self.devices, *([EVERY_GPU] if self._single_gpus else ())}
        names |= {MEMBERS} if EVERY_GPU in self.devices else set()
        return any(self._has_company(name) for name in names)

    def _renew(self) -> bool:
        """Make and lock again what somebody has deleted; False: another suite was faster.

        A tidied file stays locked, but who comes next makes a new one and locks that.
        """
        for device, mode in self._lock_modes():
            held = os.fstat(self._held[device])
            fresh = self._open(device, "lock")
            now = os.fstat(fresh)
            if (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino):
                os.close(fresh)
            elif _flock(fresh, mode):
                os.close(self._held[device])
                self._held[device] = fresh
                _write_holder(fresh, self.holder)
            else:
                os.close(fresh)
                self._join()  # the other one learns of us
                return False
        self._leave_company()
        return True

    def _has_company(self, device: str) -> bool:
        descriptor = self._open(device, "shared")
        try:
            return not _flock(descriptor)
        finally:
            os.close(descriptor)

    def _leave_company(self) -> None:
        for descriptor in self._company:
            os.close(descriptor)
        self._company = []

    def release(self) -> None:
        """Let the next suite in."""
        self._leave_company()
        for descriptor in self._held.values():
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
        self._held = {}

    def _open(self, device: str, kind: str) -> int:
        path = self._root / f"device-{_NAME.sub('_', device)}.{kind}"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            paths.make_private(self._root)
            return os.open(path, flags, 0o600)


def take(path: Path) -> int | None:
    """Lock a file for as long as the returned descriptor is open; None if somebody else has it.

    Its content says who we are, for `held_by`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if not _flock(descriptor):
        os.close(descriptor)
        return None
    with contextlib.suppress(OSError):  # a full disk: the lock itself needs no room
        _write_holder(descriptor, path.parent.name)
    return descriptor


def holder(path: Path) -> str:
    """Who holds a device's lock, as its file says; nothing is locked by asking."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return "another suite"
    try:
        return _read_holder(descriptor)
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock; False too where nobody can tell."""
    try:
        with path.open("rb") as file:
            return not _flock(file.fileno())
    except OSError:
        return False


def held_by(path: Path) -> str:
    """Who took the lock last: `pid 12 on host since 14:03:11`; empty if nobody said so."""
    try:
        said = json.loads(path.read_bytes())
        since = time.strftime("%H:%M:%S", time.localtime(float(said["since"])))
        return f"pid {int(said['pid'])} on {said['host']} since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _flock(descriptor: int, mode: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_holder(descriptor: int, holder: str) -> None:
    os.ftruncate(descriptor, 0)
    said = {
        "suite": holder, "pid": os.getpid(), "host": socket.gethostname(), "since": time.time(),
    }  # fmt: skip
    os.pwrite(descriptor, json.dumps(said).encode(), 0)


def _read_holder(descriptor: int) -> str:
    try:
        return str(json.loads(os.pread(descriptor, 4096, 0))["suite"])
    except (ValueError, KeyError, TypeError):
        return "another suite"
