"""Folder of the device locks: whether `flock` between processes holds there.

A lock on a network file system may hold on one node only, never, or hang; so a folder is refused
there, and wherever a second descriptor gets a lock that the first one holds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import tempfile
from pathlib import Path
from typing import Final

from workbench import paths

MOUNTS: Final = Path("/proc/self/mountinfo")
NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "lustre", "gpfs", "beegfs", "ceph",
        "glusterfs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse",
        "fuse.rclone", "virtiofs",
    }
)  # fmt: skip
"""File systems whose appends and locks depend on a server."""
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
"""The kernel's escapes of blanks and backslashes in a path: `\\040`."""


def find_problem(folder: Path, mounts: Path = MOUNTS) -> str:
    """Why device locks must not lie in a folder, which need not exist yet; empty: they may."""
    existing = paths.nearest_existing(folder)
    owner = existing.stat().st_uid
    if existing in (folder, folder.parent) and owner not in (0, os.geteuid()):
        return f"{existing} belongs to another user"
    kind = file_system_type(existing, mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        return f"it lies on a network file system ({kind}), where locks may not hold"
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".lock-probe-") as file:
            file.write(b"x")
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return "" if _is_locked(file.name) else "two processes get the same lock there"
    except OSError as error:
        return error.strerror or errno.errorcode.get(error.errno or 0, str(error))


def _is_locked(path: str) -> bool:
    """Whether another descriptor is refused the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def file_system_type(folder: Path, mounts: Path = MOUNTS) -> str:
    """Type of the file system that a folder lies on; empty: unknown."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    resolved, best, kind = str(folder.resolve()), "", ""
    for line in lines:
        fields = line.split()
        try:
            point, mount_type = fields[4], fields[fields.index("-") + 1]
        except (ValueError, IndexError):
            continue
        point = _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), point)
        inside = point in ("/", resolved) or resolved.startswith(f"{point}/")
        if inside and len(point) >= len(best):  # a later mount hides an earlier one
            best, kind = point, mount_type
    return kind
