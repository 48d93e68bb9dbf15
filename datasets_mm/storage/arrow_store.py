"""Folders of built data: written atomically, opened with a check for damage.

A folder is complete when its manifest.json is there and every file it names has the size (and, for
files up to 64 MiB, the digest) that it states. Anything else is built again. The manifest holds no
time and no machine, so that a second build gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets_mm import media_paths
from datasets_mm.atomic_files import atomic_path
from datasets_mm.recipes.recipe import FIELDS, LIST_FIELDS
from datasets_mm.storage import corpus

FORMAT = 1
"""Raised when the layout of a built folder changes: older builds are then rebuilt."""

SUBMISSION = "submission.json"
"""Of test rows that are to be answered: the columns and ids of the sample submission."""

MEDIA_FIELDS = frozenset({"image_path", "passage_image_path"})
BATCH_ROWS = 4096
VERIFY_BYTES = 64 << 20

RECORD_SCHEMA = pa.schema(
    [(name, pa.list_(pa.string()) if name in LIST_FIELDS else pa.string()) for name in FIELDS]
)

CHOICE_RECORD_SCHEMA = RECORD_SCHEMA.append(pa.field("options", pa.list_(pa.string())))
"""With the options of a question, in the order of their letters. A column of its own, and only
where there are any: tables without it keep their digests."""


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


class MediaTableWriter(TableWriter):
    """Table writer that normalizes paths of images and videos."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        normalized = dict(row)
        for name in MEDIA_FIELDS & row.keys():
            value = row[name]
            if isinstance(value, str):
                normalized[name] = media_paths.clean_path(value)
            elif any(value):
                normalized[name] = [media_paths.clean_path(path) for path in value]
        super().add(normalized)


def write_rows(path: Path, table: pa.Table, rows: Sequence[int]) -> None:
    """Write the chosen rows of a table in this order, BATCH_ROWS at a time.

    Batch by batch: Table.take joins all of a column first, which fails beyond 2 GiB of text (and
    the records of InfoSeek are more).
    """
    batches = table.to_batches()
    starts = list(accumulate((batch.num_rows for batch in batches), initial=0))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for start in range(0, len(rows), BATCH_ROWS):
            writer.write_batch(_take_rows(batches, starts, rows[start : start + BATCH_ROWS]))


def _take_rows(
    batches: Sequence[pa.RecordBatch], starts: Sequence[int], rows: Sequence[int]
) -> pa.RecordBatch:
    """These rows as one batch. Each source batch is read once, then the order is restored."""
    order = sorted(range(len(rows)), key=rows.__getitem__)
    parts, begin = [], 0
    while begin < len(order):
        number = bisect_right(starts, rows[order[begin]]) - 1
        end = begin
        while end < len(order) and rows[order[end]] < starts[number + 1]:
            end += 1
        local = [rows[index] - starts[number] for index in order[begin:end]]
        parts.append(batches[number].take(pa.array(local, pa.int64())))
        begin = end
    original_order = sorted(range(len(order)), key=order.__getitem__)
    return pa.concat_batches(parts).take(pa.array(original_order, pa.int64()))


def sort_by(path: Path, column: str) -> None:
    """Put a table into the order of a column; equal ones by their whole content.

    So the order in which a source was read leaves no trace: equal rows give equal files.
    """
    table = corpus.map_table(path)
    names: list[str] = table[column].to_pylist()
    count = Counter(names)
    keys = [
        (name, row_digest(table, row) if count[name] > 1 else "") for row, name in enumerate(names)
    ]
    rows = sorted(range(len(keys)), key=keys.__getitem__)
    if rows != list(range(len(keys))):
        keep_rows(path, rows)


def keep_rows(path: Path, rows: Sequence[int]) -> None:
    """Rewrite a table with these rows only, in this order."""
    with atomic_path(path) as draft:
        write_rows(draft, corpus.map_table(path), rows)


def row_digest(table: pa.Table, row: int) -> str:
    """Digest of all values of a row."""
    line = json.dumps(table.slice(row, 1).to_pylist()[0], sort_keys=True)
    return hashlib.blake2b(line.encode(), digest_size=8).hexdigest()


def content_digest(path: Path) -> str:
    """Digest of a table's values: the same under every version of Arrow, unlike the file's own."""
    hasher = hashlib.blake2b(digest_size=16)
    table = corpus.map_table(path)
    for name in table.column_names:
        hasher.update(name.encode())
        for chunk in table[name].chunks:
            values = chunk
            if pa.types.is_list(chunk.type):
                hasher.update(np.asarray(chunk.value_lengths(), np.int64).tobytes())
                values = chunk.flatten()
            hasher.update(np.asarray(pc.binary_length(values), np.int64).tobytes())
            hasher.update(_text_bytes(values))
    return hasher.hexdigest()


def _text_bytes(values: pa.StringArray) -> memoryview | bytes:
    """The UTF-8 of all strings, one after the other; of columns without nulls."""
    _, offsets, data = values.buffers()
    if data is None or not len(values):
        return b""
    edges = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return memoryview(data)[int(edges[0]) : int(edges[-1])]


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def file_digest(path: Path) -> str:
    """blake2b of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def write_manifest(folder: Path, content: Mapping[str, Any], files: Sequence[str]) -> None:
    """Write the manifest: the last file, after which the folder counts as built."""
    file_entries = {
        name: {"bytes": (folder / name).stat().st_size, "blake2b": file_digest(folder / name)}
        for name in files
    }
    text = json.dumps(
        {"format": FORMAT, **content, "files": file_entries},
        indent=1,
        sort_keys=True,
        ensure_ascii=False,
    )
    with (folder / "manifest.json").open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished folder; None when it is missing, damaged or of another format."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        if manifest["format"] != FORMAT:
            return None
        for name, stated in manifest["files"].items():
            size = (folder / name).stat().st_size
            if size != stated["bytes"]:
                return None
            if size <= VERIFY_BYTES and file_digest(folder / name) != stated["blake2b"]:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest


def corpus_writer(folder: Path) -> TableWriter:
    """Writer of `corpus.arrow`."""
    return MediaTableWriter(folder / "corpus.arrow", corpus.SCHEMA)


def record_writer(folder: Path, schema: pa.Schema = RECORD_SCHEMA) -> TableWriter:
    """Writer of `records.arrow`."""
    return MediaTableWriter(folder / "records.arrow", schema)
