"""Files and folders that other processes see whole or not at all, and locks between processes.

Loads nothing: the warden and the engines use it, too.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Path of a draft beside `path`, which replaces it on success and is removed on failure.

    The folder must be there. For libraries that write files themselves.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.unlink(missing_ok=True)
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Replace a file atomically; never through a symbolic link. Text is written as UTF-8.

    `durable`: the content is on the disk (fsync) before the file is replaced.

    Raises:
        OSError: it cannot be written; the earlier file stays as it was.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with atomic_path(path) as draft, os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """An empty draft that becomes `folder` on success and is removed on failure.

    Call it under a lock: drafts that a killed process left behind are removed here.
    """
    for old in folder.parent.glob(f".{folder.name}.tmp*"):
        shutil.rmtree(old, ignore_errors=True)
    draft = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    draft.mkdir(mode=0o700, parents=True)
    try:
        yield draft
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` exclusively; waits for its holder.

    The lock ends with the process, however it dies. The file and its folders are created, and stay.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def folder_lock(folder: Path) -> Path:
    """Lock file of a folder: beside it, since the folder itself may be replaced."""
    return folder.with_name(f".{folder.name}.lock")
