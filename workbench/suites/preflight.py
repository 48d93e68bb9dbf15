"""Preflight checks: what a suite needs of the machine, tested before its folder is written.

Each check tries what the warden does later: lock a file, append a record, open a process handle.
`run`, `search` and `resume` refuse to start on a problem; `doctor` lists the problems.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from results.records import store
from workbench import paths
from workbench.processes import lock_folder
from workbench.processes.limits import Limits

LEAST_DESCRIPTORS: Final = 64
"""A run of one process has about 40 open, and no library is loaded where none is left."""


def check_surroundings(log_root: Path) -> list[str]:
    """One sentence with its remedy for each reason why no suite can run here."""
    return [
        *check_interpreter(),
        *check_proc(),
        *_check_limits(),
        *_check_descriptors(),
        *_check_null_device(),
        *_check_process_handles(),
        *_check_folder(log_root, "suites cannot be written there", "name another with --log-root"),
        *_check_folder(
            paths.cache_root(), "caches cannot be written there", "name another in WORKBENCH_CACHE"
        ),
        *_check_lock_folder(paths.lock_root()),
        *_check_records(log_root / "results.jsonl"),
    ]


def check_interpreter() -> Iterator[str]:
    """Whether this user may start the Python of all children; it may lie in another's home."""
    if not os.access(sys.executable, os.X_OK):
        yield (
            f"{sys.executable}: this user may not execute it (the interpreter behind a virtual "
            "environment may lie in another user's home); install the workbench for this user"
        )


def check_proc(proc: Path = Path("/proc")) -> Iterator[str]:
    """Whether /proc is mounted; in a chroot or a build sandbox it may be empty.

    Memory, process trees and whether a warden lives are read there.
    """
    if not (proc / "self" / "stat").exists():
        yield f"{proc} is not mounted; mount it with `mount -t proc proc {proc}`"


def _check_limits() -> Iterator[str]:
    try:
        Limits.from_environment()
    except ValueError as error:
        yield str(error)


def _check_descriptors() -> Iterator[str]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < LEAST_DESCRIPTORS:
        yield (
            f"only {soft} files may be open at once and a run needs {LEAST_DESCRIPTORS}; raise the "
            "limit with `ulimit -n 4096`"
        )


def _check_null_device() -> Iterator[str]:
    """Processes are started with it as their standard input."""
    try:
        os.close(os.open(os.devnull, os.O_RDWR))
    except OSError as error:
        yield (
            f"{os.devnull} cannot be used ({error.strerror}); make it with "
            f"`mknod -m 666 {os.devnull} c 1 3`, or start the container with a /dev"
        )


def _check_process_handles() -> Iterator[str]:
    """The warden waits for an engine through a pidfd, which names one process for good."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            yield "no file descriptor is free; raise the limit with `ulimit -n`"
            return
        yield (
            f"this kernel or container has no pidfd_open ({error.strerror}); use Linux 5.3 or "
            "later, and a container runtime that lets the call through (Docker 20.10, not gVisor)"
        )


def _check_folder(folder: Path, effect: str, remedy: str) -> Iterator[str]:
    """Whether a file can be written and locked in it, or in the one where it would be made."""
    if unset := paths.unset_variable(folder):
        yield f"{folder}: no shell has expanded {unset}, and it is not set; set it, or {remedy}"
        return
    if link := _dangling_link(folder):
        yield f"{folder}: {effect} ({link} is a link to nothing); remove the link, or {remedy}"
        return
    try:
        with tempfile.TemporaryFile(dir=paths.nearest_existing(folder)) as file:
            file.write(b"x")
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        yield f"{folder}: {effect} ({error.strerror}); {remedy}"


def _check_lock_folder(folder: Path) -> Iterator[str]:
    """Whether device locks hold in the folder, and not only for one process."""
    effect, remedy = "devices cannot be locked there", "name another in WORKBENCH_LOCKS"
    problems = list(_check_folder(folder, effect, remedy))
    if not problems and (text := lock_folder.find_problem(folder)):
        problems = [f"{folder}: {effect} ({text}); {remedy}, on a local disk"]
    yield from problems


def _dangling_link(folder: Path) -> Path | None:
    """The link to nothing, or to itself, at which making the folder would end."""
    while not folder.exists() and folder != folder.parent:
        if folder.is_symlink():
            return folder
        folder = folder.parent
    return None


def _check_records(path: Path) -> Iterator[str]:
    try:
        if path.is_symlink() or path.exists():
            store.check_appendable(path)
    except OSError as error:
        yield (
            f"{path}: records cannot be appended ({error.strerror}); "
            "make it a regular file of your own, or name another folder with --log-root"
        )
