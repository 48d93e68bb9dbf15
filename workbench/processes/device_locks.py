"""Device locks: one suite at a time on a device, since two would slow each other down.

A lock is a `flock` on a file in `paths.lock_root()`; the kernel frees it when its holder dies. The
file's content names the holder. A suite that shares a device (`--share`) locks a second file, by
which the first suite learns that its times are contaminated.
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
"""All GPUs of the machine, for a run whose GPUs are unknown before it starts."""

PROBES: Final = 3
"""Tries to lock a file for a moment: another suite may try at the same time."""

MEMBERS: Final = "gpu-any"
"""Shared lock of all suites that share single GPUs (`share`)."""


def device_names(
    spec: RunSpec,
    variables: Mapping[str, str],
    gpus: Sequence[GpuInfo],
    nodes: Path = gpu_selection.DEV,
) -> set[str]:
    """Lock names of the devices of a run: `cpu`, or UUIDs of GPUs and of MIG slices.

    An engine without a device setting takes whatever the environment shows, so all of it is locked.
    If there may be GPUs that the driver has not listed, all devices are.
    """
    if spec.cpu or gpu_selection.hides_all(variables):
        return {CPU}
    if not gpus:
        return {CPU, EVERY_GPU} if spec.devices or gpu_selection.gpu_may_exist(nodes) else {CPU}
    visible = gpu_selection.resolve_visible(spec.devices, variables, gpus)
    if not visible.gpus:
        return {CPU, EVERY_GPU}
    return {gpu.uuid or EVERY_GPU for gpu in visible.gpus}


class DeviceLocks:
    """The locks of one suite, acquired together; freed by `release` or the end of the process."""

    def __init__(
        self, names: Iterable[str], holder: str, root: Path | None = None, log_root: str = ""
    ) -> None:
        self.devices = tuple(sorted(set(names)))  # one order for all, so nobody waits in a ring
        self.holder, self._log_root = holder, log_root
        self.behind = ""
        """Holder at the last failed `acquire`: `SUITE on DEVICE`, and its log root if another."""
        self.root = paths.make_private(root or paths.lock_root())
        self._held: dict[str, int] = {}
        self._shared: list[int] = []

    @property
    def exclusive(self) -> bool:
        """Whether this suite holds the locks."""
        return bool(self._held)

    def acquire(self) -> bool:
        """Try once, without waiting."""
        if self._held:
            return True
        with contextlib.ExitStack() as opened:  # one that stayed open would keep its lock
            descriptors: dict[str, int] = {}
            for device, mode in self._lock_modes():
                descriptor = self._open(device, "lock")
                opened.callback(os.close, descriptor)
                if not _flock(descriptor, mode):
                    self.behind = f"{_read_holder(descriptor)} on {device}"
                    if (folder := _read_log_root(descriptor)) not in ("", self._log_root):
                        self.behind += f", of {folder}"
                    return False
                descriptors[device] = descriptor
            opened.pop_all()
        self.behind = ""
        self._held = descriptors
        for descriptor in descriptors.values():
            _write_holder(descriptor, self.holder, self._log_root)
        self._release_shared()
        return True

    def _lock_modes(self) -> list[tuple[str, int]]:
        """(device, mode of flock). Single GPUs also take the lock of all GPUs in shared mode, so
        that no other suite gets all of them meanwhile."""
        modes = dict.fromkeys(self.devices, fcntl.LOCK_EX)
        if self._single_gpus and EVERY_GPU not in modes:
            modes[EVERY_GPU] = fcntl.LOCK_SH
        return sorted(modes.items())

    @property
    def _single_gpus(self) -> bool:
        return any(device not in (CPU, EVERY_GPU) for device in self.devices)

    def share(self) -> None:
        """Run beside the holder of the locks, which can detect it."""
        if not self._held:
            self._acquire_shared()

    def _acquire_shared(self) -> None:
        if not self._shared:
            names = [*self.devices, *([MEMBERS] if self._single_gpus else ())]
            with contextlib.ExitStack() as undo:
                undo.callback(self._release_shared)
                for name in names:
                    self._shared.append(self._open(name, "shared"))
                    fcntl.flock(self._shared[-1], fcntl.LOCK_SH)
                undo.pop_all()

    def contaminated(self) -> bool:
        """Whether another suite computes on one of this suite's devices now."""
        if not self._held or not self._renew():
            return True
        names = {*self.devices, *([EVERY_GPU] if self._single_gpus else ())}
        names |= {MEMBERS} if EVERY_GPU in self.devices else set()
        return any(self._is_shared(name) for name in names)

    def _renew(self) -> bool:
        """Recreate and lock again deleted lock files; False: another suite was faster.

        A deleted file stays locked, but the next suite creates and locks a new one.
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
                _write_holder(fresh, self.holder, self._log_root)
            else:
                os.close(fresh)
                self._acquire_shared()  # so that the other one detects this suite
                return False
        self._release_shared()
        return True

    def _is_shared(self, device: str) -> bool:
        descriptor = self._open(device, "shared")
        try:
            for _ in range(PROBES):
                if _flock(descriptor):
                    return False
                time.sleep(0.001)
            return True
        finally:
            os.close(descriptor)

    def _release_shared(self) -> None:
        for descriptor in self._shared:
            os.close(descriptor)
        self._shared = []

    def release(self) -> None:
        """Free all locks."""
        self._release_shared()
        for descriptor in self._held.values():
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
        self._held = {}

    def _open(self, device: str, kind: str) -> int:
        path = self.root / f"device-{_NAME.sub('_', device)}.{kind}"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            paths.make_private(self.root)
            return os.open(path, flags, 0o600)


def lock_file(path: Path) -> int | None:
    """Lock a file for as long as the returned descriptor is open; None: it is locked already.

    The holder is written into it, for `describe_holder`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if not _flock(descriptor):
        os.close(descriptor)
        return None
    _write_holder(descriptor, path.parent.name)
    return descriptor


def read_holder(path: Path) -> str:
    """Name of the suite in a device's lock file; takes no lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return "another suite"
    try:
        return _read_holder(descriptor)
    finally:
        os.close(descriptor)


def list_other_holders(root: Path) -> set[str]:
    """Names of the suites, but for this process's, that hold a device of this machine now.

    `root`: folder of the locks of this user. Each is tried in shared mode for a moment.
    """
    names = set()
    for path in root.glob("device-*.lock"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if not _flock(file.fileno(), fcntl.LOCK_SH) and _read_pid(file.fileno()) != os.getpid():
                names.add(_read_holder(file.fileno()))
    return names


def is_held(path: Path) -> bool:
    """Whether some process holds the lock; also False if the file cannot be opened.

    Tried in shared mode: on NFS the other one needs a file that is open for writing.
    """
    try:
        with path.open("rb") as file:
            return not _flock(file.fileno(), fcntl.LOCK_SH)
    except OSError:
        return False


def describe_holder(path: Path) -> str:
    """The last holder: `pid 12 on host since 14:03:11`; empty if the file has none."""
    try:
        content = json.loads(path.read_bytes())
        since = time.strftime("%H:%M:%S", time.localtime(float(content["since"])))
        return f"pid {int(content['pid'])} on {content['host']} since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _flock(descriptor: int, mode: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_holder(descriptor: int, holder: str, log_root: str = "") -> None:
    """Name the holder in its lock file; a full disk leaves it unnamed, and the lock holds."""
    content = {
        "suite": holder, "log_root": log_root, "pid": os.getpid(), "host": socket.gethostname(),
        "since": time.time(),
    }  # fmt: skip
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(content).encode(), 0)


def _read_holder(descriptor: int) -> str:
    try:
        return str(json.loads(os.pread(descriptor, 4096, 0))["suite"])
    except (ValueError, KeyError, TypeError):
        return "another suite"


def _read_pid(descriptor: int) -> int:
    """Process of the holder; 0: not in the file."""
    try:
        return int(json.loads(os.pread(descriptor, 4096, 0)).get("pid", 0))
    except (ValueError, TypeError, AttributeError):
        return 0


def _read_log_root(descriptor: int) -> str:
    """Log root of the holder's suite; empty: not in the file."""
    try:
        return str(json.loads(os.pread(descriptor, 4096, 0)).get("log_root", ""))
    except (ValueError, AttributeError):
        return ""
