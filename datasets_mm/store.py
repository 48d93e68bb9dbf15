"""Folders of built data: writing them whole or not at all, opening them, finding damage.

A folder is finished when its manifest.json is there and every file it names has the size (and, for
files up to 64 MiB, the digest) that it states. Anything else is built again. The manifest holds no
time and no machine, so that a second build gives the same bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from datasets_mm import corpus
from datasets_mm.recipe import FIELDS, LIST_FIELDS

FORMAT = 1
"""Raised when the layout of a built folder changes: older builds are then made again."""

BATCH_ROWS = 4096
VERIFY_BYTES = 64 << 20
Progress = Callable[[int, int, str], None]

RECORDS = pa.schema(
    [(name, pa.list_(pa.string()) if name in LIST_FIELDS else pa.string()) for name in FIELDS]
)


def silent(done: int, total: int, unit: str) -> None:
    """Progress that nobody watches."""
    del done, total, unit


class TableWriter:
    """Writes an Arrow file in batches of equal size: equal rows give equal bytes."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._schema = schema
        self._pending: list[Mapping[str, Any]] = []
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        self._pending.append(row)
        self.rows += 1
        if len(self._pending) == BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        batch = pa.RecordBatch.from_pylist(self._pending, schema=self._schema)
        self._writer.write_batch(batch)
        self._pending = []

    def close(self) -> None:
        """Write what is pending and the footer; without it the file is not readable."""
        if self._pending:
            self._flush()
        self._writer.close()
        self._sink.close()


def write_rows(path: Path, table: pa.Table, rows: Sequence[int]) -> None:
    """Write the chosen rows of a table, BATCH_ROWS at a time."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for start in range(0, len(rows), BATCH_ROWS):
            part = table.take(pa.array(rows[start : start + BATCH_ROWS], pa.int64()))
            for batch in part.combine_chunks().to_batches():
                writer.write_batch(batch)


def link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process builds this folder; the lock ends with the process, however it dies."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def draft(folder: Path) -> Iterator[Path]:
    """A private folder that becomes `folder` at the end; nothing is left when the block fails.

    Call it under `locked(folder)`: drafts that a killed build left behind are removed here.
    """
    for old in folder.parent.glob(f".{folder.name}.tmp-*"):
        shutil.rmtree(old, ignore_errors=True)
    made = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    made.mkdir(mode=0o700, parents=True)
    try:
        yield made
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def digest(path: Path) -> str:
    """blake2b of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def finish(folder: Path, content: Mapping[str, Any], files: Sequence[str]) -> None:
    """Write the manifest: the last file, after which the folder counts as built."""
    named = {
        name: {"bytes": (folder / name).stat().st_size, "blake2b": digest(folder / name)}
        for name in files
    }
    text = json.dumps(
        {"format": FORMAT, **content, "files": named}, indent=1, sort_keys=True, ensure_ascii=False
    )
    with (folder / "manifest.json").open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def opened(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished folder; None when it is missing, damaged or of another format."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        if manifest["format"] != FORMAT:
            return None
        for name, stated in manifest["files"].items():
            size = (folder / name).stat().st_size
            if size != stated["bytes"]:
                return None
            if size <= VERIFY_BYTES and digest(folder / name) != stated["blake2b"]:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest


def corpus_writer(folder: Path) -> TableWriter:
    """Writer of `corpus.arrow`."""
    return TableWriter(folder / "corpus.arrow", corpus.SCHEMA)


def record_writer(folder: Path) -> TableWriter:
    """Writer of `records.arrow`."""
    return TableWriter(folder / "records.arrow", RECORDS)
