"""One suite at a time on a device: two would halve each other's speed and falsify both.

A lock is a `flock` on a file in the user's runtime folder; the kernel frees it when its holder
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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from workbench import paths

_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")


def devices_of(spec_devices: Iterable[int], environment: Mapping[str, str], gpus: int) -> set[str]:
    """The names of what a run will use: `cpu`, or `gpu-0`, `gpu-1`, …

    An engine without a device setting takes whatever the environment shows, so all of it is locked.
    """
    if chosen := set(spec_devices):
        return {f"gpu-{index}" for index in chosen}
    if gpus == 0:
        return {"cpu"}
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return {f"gpu-{index}" for index in range(gpus)}
    named = [part.strip() for part in shown.split(",") if part.strip()]
    return {f"gpu-{_NAME.sub('_', part)}" for part in named if part != "-1"} or {"cpu"}


class DeviceLocks:
    """The locks of one suite. All or none; give them back with `release` or by dying."""

    def __init__(self, devices: Iterable[str], holder: str, root: Path | None = None) -> None:
        self.devices = tuple(sorted(set(devices)))  # one order for all, so nobody waits in a ring
        self.holder = holder
        self.behind = ""
        """Who was in the way at the last try: `SUITE on DEVICE`."""
        self._root = paths.make_private(root or paths.runtime_root())
        self._held: list[int] = []
        self._company: list[int] = []

    @property
    def exclusive(self) -> bool:
        """The locks are ours."""
        return bool(self._held)

    def acquire(self) -> bool:
        """Try once, without waiting."""
        if self._held:
            return True
        taken: list[int] = []
        for device in self.devices:
            descriptor = self._open(device, "lock")
            if not _flock(descriptor):
                self.behind = f"{_read_holder(descriptor)} on {device}"
                for other in (descriptor, *taken):
                    os.close(other)
                return False
            taken.append(descriptor)
        self.behind = ""
        for descriptor in taken:
            _write_holder(descriptor, self.holder)
        self._held = taken
        self._leave_company()
        return True

    def share(self) -> None:
        """Run beside whoever holds the locks, and let them know."""
        if not self._held and not self._company:
            self._company = [self._open(device, "shared") for device in self.devices]
            for descriptor in self._company:
                fcntl.flock(descriptor, fcntl.LOCK_SH)

    def contaminated(self) -> bool:
        """Whether another suite computes on one of our devices now."""
        if not self._held:
            return True
        return any(self._has_company(device) for device in self.devices)

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
        for descriptor in self._held:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
        self._held = []

    def _open(self, device: str, kind: str) -> int:
        path = self._root / f"device-{_NAME.sub('_', device)}.{kind}"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
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


def held_by(path: Path) -> str:
    """Who took the lock last: `pid 12 on host since 14:03:11`; empty if nobody said so."""
    try:
        said = json.loads(path.read_bytes())
        since = time.strftime("%H:%M:%S", time.localtime(float(said["since"])))
        return f"pid {int(said['pid'])} on {said['host']} since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
