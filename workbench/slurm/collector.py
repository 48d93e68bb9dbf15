"""Collection of the records that array tasks left in their run folders into results.jsonl.

Appends of several nodes to one file of an NFS mix their bytes, so a task writes only into its own
run folder; whoever reads results collects. Idempotent: a record that is there is not added again,
and a deleted results.jsonl is made anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from workbench.slurm import script

RECORDS: Final = "records.jsonl"
"""Records of all attempts of a run, in its folder; its only writer is the run's warden."""
LOCK: Final = ".collecting"
LOCK_SECONDS: Final = 60.0
"""A lock of this age was left behind: collecting takes less."""


def collect_records(log_root: Path) -> int:
    """Append the records that results.jsonl lacks; returns how many. No task's folder changes.

    0 also while another process collects, or where results.jsonl cannot be written.
    """
    if not (lines := list(_read_task_lines(log_root))):
        return 0
    path = log_root / "results.jsonl"
    if not (missing := _select_missing(path, lines)):
        return 0
    from results.records import store

    with contextlib.suppress(OSError), _lock_folder(log_root / LOCK) as locked:
        if locked:
            missing = _select_missing(path, lines)  # another one may have collected meanwhile
            for line in missing:
                store.append_line(path, line)
            return len(missing)
    return 0


def _read_task_lines(log_root: Path) -> Iterator[bytes]:
    """Whole lines of all tasks' records, oldest suite first."""
    for folder in sorted(log_root.glob(f"*/{script.FOLDER}")):
        for path in sorted(folder.parent.glob(f"runs/*/{RECORDS}")):
            with contextlib.suppress(OSError):
                content = path.read_bytes()
                yield from content[: content.rfind(b"\n") + 1].splitlines()  # without a torn end


def _select_missing(path: Path, lines: list[bytes]) -> list[bytes]:
    """The lines whose record is not in the file."""
    content = path.read_bytes() if path.is_file() else b""
    present = set(content.splitlines())
    missing = [line for line in dict.fromkeys(lines) if line not in present]
    if not missing:
        return []
    keys = {_read_key(line) for line in present}
    return [line for line in missing if (key := _read_key(line)) is not None and key not in keys]


def _read_key(line: bytes) -> tuple[Any, ...] | None:
    """(suite, run id, attempt, Unix time of its end); None: no record.

    A run that was stopped before its first attempt is recorded as 1, and so is that attempt.
    """
    try:
        record = json.loads(line)
        identity = record["identity"]
        numbers = identity["attempt"], record.get("ended_wall")
        return identity["suite"], identity["run_id"], *numbers
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


@contextlib.contextmanager
def _lock_folder(folder: Path) -> Iterator[bool]:
    """Whether the lock is ours: a folder, since making one is atomic on NFS, unlike flock."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        age = time.time() - folder.stat().st_mtime
        if age < LOCK_SECONDS:
            yield False
            return
        os.utime(folder)  # takes it over
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
