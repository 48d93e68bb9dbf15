"""The image cache: every image decoded and resized once, into one memory-mapped uint8 array.

A row is keyed by the image's content and the transform, so that subsets, runs and loader workers
share it without copies. Images that decode.py refuses are skipped, with the reason stored for their
path.

Files of one transform: `rows.u8` (pixels) and `hashes.bin` (32 bytes a row) only grow; one
`index-*.arrow` per image root maps each path to its row, or to the reason why it has none.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from datasets_mm.atomic_files import atomic_path, folder_lock, locked
from datasets_mm.child_messages import Progress, ignore_progress
from datasets_mm.media.decode import Resample, UnusableError, decode, read_inside
from datasets_mm.media.pixel_file import (
    HASH_BYTES,
    REMEDY,
    DiskFullError,
    RowWriter,
    count_rows,
    free_bytes,
    read_hashes,
)
from datasets_mm.media_paths import find_on_disk
from datasets_mm.storage.corpus import map_table

VERSION: Final = 2
"""Raised when equal files give other pixels: the old rows are then left alone. 2: large JPEGs are
decoded smaller."""

DecodeResult = tuple[bytes, bytes] | str
"""Content hash and pixels of an image, or the reason for skipping it."""

WINDOW: Final = 256
"""Pictures decoded before their rows are written: 37 MiB at 224 px."""

WINDOWS_AHEAD: Final = 3
"""Windows decoded behind the one that is written: a write that stalls stops no thread."""

SAMPLED: Final = 64
"""Pictures that tell how many of all have a row already."""

STAT_THREADS: Final = 16
STATS_AT_ONCE: Final = 512


@dataclass(frozen=True)
class CacheEntry:
    """Cache entry of a path, valid while the file's mark (size and time) is unchanged."""

    mark: int
    row: int
    reason: str


class ImageCache:
    """Pixels by path. `array`: uint8 [N, size, size, 3], RGB, read-only, N rows of all subsets."""

    def __init__(self, folder: Path, size: int, entries: dict[str, CacheEntry]) -> None:
        self.folder = folder
        self.size = size
        self._rows = {path: entry.row for path, entry in entries.items() if entry.row >= 0}
        self.skipped = {path: entry.reason for path, entry in entries.items() if entry.reason}
        """Path -> why it has no row."""
        self.array = self._map()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (self.size, self.size, 3)

    def _map(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        shape = (count_rows(self.folder, math.prod(self.shape)), *self.shape)
        if not shape[0]:
            return np.zeros(shape, np.uint8)
        return np.memmap(self.folder / "rows.u8", np.uint8, "r", shape=shape)

    def row(self, path: str) -> int:
        """Row of a picture in `array`; -1: skipped, or no picture at all ("")."""
        return self._rows.get(path, -1)

    def contents(self, paths: Iterable[str]) -> str:
        """Digest of the contents of these images, in order, independent of their rows."""
        keys = (self.folder / "hashes.bin").read_bytes() if self._rows else b""
        hasher = hashlib.blake2b(digest_size=16)
        for path in paths:
            row = self.row(path)
            hasher.update(keys[row * HASH_BYTES : (row + 1) * HASH_BYTES] if row >= 0 else b"-")
        return hasher.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """Spawned workers map the file again: a pickled memmap would be a full copy."""
        return {name: value for name, value in vars(self).items() if name != "array"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.array = self._map()

    @classmethod
    def open(
        cls,
        paths: Sequence[str],
        root: Path,
        size: int,
        cache_root: Path,
        resample: Resample = "bicubic",
        progress: Progress | None = None,
    ) -> Self:
        """Map the rows of these paths (relative to `root`), decoding those that are new."""
        folder = cache_root / "images" / f"{size}-{resample}-center-v{VERSION}"
        builder = ImageCacheBuilder(root.resolve(), folder, size, resample)
        return cls(folder, size, builder.load_entries(paths, progress or ignore_progress))


class ImageCacheBuilder:
    """Adds rows to the files of one transform; used under their lock."""

    def __init__(self, root: Path, folder: Path, size: int, resample: Resample) -> None:
        self.root = root
        self.folder = folder
        self.size = size
        self.resample: Resample = resample
        self.rows: dict[bytes, int] = {}
        """Content hash -> row, as of the last `decode_new`."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.size * self.size * 3

    @property
    def window(self) -> int:
        """Rows that are decoded before they are written."""
        return WINDOW

    def load_entries(self, paths: Sequence[str], progress: Progress) -> dict[str, CacheEntry]:
        """Entries of these paths; new ones are decoded first, under the lock."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        unique_paths = [path for path in dict.fromkeys(paths) if path]
        entries = _read_index(self.folder, self.root, self.row_bytes)
        if _find_stale(unique_paths, self.root, entries):
            with locked(folder_lock(self.folder)):
                entries = _read_index(self.folder, self.root, self.row_bytes)
                entries |= self.decode_new(_find_stale(unique_paths, self.root, entries), progress)
                _write_index(self.folder, self.root, entries)
        return {path: entries[path] for path in unique_paths}

    def decode_new(self, marks: dict[str, int], progress: Progress) -> dict[str, CacheEntry]:
        """Decode these paths, in order, and return their entries."""
        self.rows = read_hashes(self.folder, self.row_bytes)
        paths, entries = list(marks), dict[str, CacheEntry]()
        self._check_disk_space(paths)
        # Pillow decodes and resizes outside the interpreter lock: threads scale, and copy nothing.
        pool = ThreadPoolExecutor(min(16, len(os.sched_getaffinity(0))))
        try:
            with RowWriter(self.folder, self.row_bytes, len(self.rows)) as writer:
                for window, loading in _decode_ahead(
                    pool, self._load, _split_windows(paths, self.window)
                ):
                    for path, result in zip(window, loading, strict=True):
                        entries[path] = self._store(marks[path], result.result(), writer)
                    writer.commit_if_due()
                    progress(len(entries), len(paths), "pictures")
        finally:
            pool.shutdown(cancel_futures=True)
        return entries

    def _store(self, mark: int, result: DecodeResult, writer: RowWriter) -> CacheEntry:
        if isinstance(result, str):
            return CacheEntry(mark, -1, result)
        key, raw = result
        if key not in self.rows:
            writer.add(key, raw)
            self.rows[key] = len(self.rows)
        return CacheEntry(mark, self.rows[key], "")

    def _check_disk_space(self, paths: list[str]) -> None:
        """Before hours of decoding: do the rows fit on the disk?

        Images whose content has a row already need no space. Their share is estimated on a sample,
        and only where it matters.

        Raises:
            DiskFullError: they do not.
        """
        free, size = free_bytes(self.folder), len(paths) * self.row_bytes
        if size <= free:
            return
        sample = paths[:: max(1, len(paths) // SAMPLED)]
        with ThreadPoolExecutor(min(16, len(os.sched_getaffinity(0)))) as pool:
            new = sum(
                not isinstance(result, str) and bool(result[1])
                for result in pool.map(self._load, sample)
            )
        size = size * new // len(sample)
        if size > free:
            raise DiskFullError(
                f"{self.folder}: {len(paths):,} pictures need about {size / 2**30:.2f} GiB and "
                f"{max(0.0, free) / 2**30:.2f} GiB are free; {REMEDY}"
            )

    def _load(self, path: str) -> DecodeResult:
        """(content hash, pixels), or the reason for skipping; b"" pixels for known content."""
        try:
            data = read_inside(self.root, path)
            key = content_key(data)
            if key in self.rows:
                return key, b""
            return key, self._decode(data).tobytes()
        except UnusableError as reason:
            return str(reason)

    def _decode(self, data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return decode(data, self.size, self.resample)


def content_key(data: bytes) -> bytes:
    """Key of a row: digest of the image file."""
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def _decode_ahead(
    pool: ThreadPoolExecutor, load: Callable[[str], DecodeResult], windows: Iterator[list[str]]
) -> Iterator[tuple[list[str], list[Future[DecodeResult]]]]:
    """Windows with their results; up to `WINDOWS_AHEAD` further windows are decoded meanwhile."""
    pending: deque[tuple[list[str], list[Future[DecodeResult]]]] = deque()
    for window in windows:
        pending.append((window, [pool.submit(load, path) for path in window]))
        if len(pending) > WINDOWS_AHEAD:
            yield pending.popleft()
    yield from pending


def _split_windows(paths: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(paths), size):
        yield paths[start : start + size]


def _mark(root: Path, path: str) -> int:
    """One number for size and time of a file; -1 when there is none."""
    try:
        status = os.stat(root / path)  # noqa: PTH116 - 3x faster than Path.stat over 300,000 paths
    except (OSError, ValueError):
        spelling = find_on_disk(root, path)
        return -1 if spelling == path else _mark(root, spelling)
    return hash((status.st_size, status.st_mtime_ns, status.st_ino)) & (2**63 - 1)


def _marks(root: Path, paths: list[str]) -> Iterator[int]:
    """The mark of each path. A network file system answers in 0.5 ms, but many at once."""
    parts = list(_split_windows(paths, STATS_AT_ONCE))
    if len(parts) < 2:
        yield from (_mark(root, path) for path in paths)
        return
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        for marks in pool.map(lambda part: [_mark(root, path) for path in part], parts):
            yield from marks


def _find_stale(paths: list[str], root: Path, entries: dict[str, CacheEntry]) -> dict[str, int]:
    """Paths that are new, or whose file has changed -> their mark."""
    marks = zip(paths, _marks(root, paths), strict=True)
    return {path: mark for path, mark in marks if path not in entries or entries[path].mark != mark}


def _index_path(folder: Path, root: Path) -> Path:
    name = hashlib.blake2b(os.fsencode(root), digest_size=8).hexdigest()
    return folder / f"index-{name}.arrow"


def _read_index(folder: Path, root: Path, row_bytes: int) -> dict[str, CacheEntry]:
    """Path -> entry. A damaged index is an empty one: contents are still found by their hash."""
    try:
        table = map_table(_index_path(folder, root))
        columns = [table[name].to_pylist() for name in ("path", "mark", "row", "reason")]
    except (OSError, KeyError, pa.ArrowException):
        return {}
    rows = count_rows(folder, row_bytes)
    return {
        path: CacheEntry(mark, row, reason)
        for path, mark, row, reason in zip(*columns, strict=True)
        if row < rows
    }


def _write_index(folder: Path, root: Path, entries: dict[str, CacheEntry]) -> None:
    path = _index_path(folder, root)
    table = pa.table(
        {
            "path": list(entries),
            "mark": pa.array([entry.mark for entry in entries.values()], pa.int64()),
            "row": pa.array([entry.row for entry in entries.values()], pa.int64()),
            "reason": [entry.reason for entry in entries.values()],
        }
    ).replace_schema_metadata(
        {"root": os.fsencode(root)}
    )  # so that cache_health.py finds the files again
    with (
        atomic_path(path) as draft,
        pa.OSFile(str(draft), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
