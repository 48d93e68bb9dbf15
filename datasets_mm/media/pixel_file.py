"""Atomic appending of pixel rows: a row is complete or absent, however the process ends.

`rows.u8` holds the pixels and `hashes.bin` a content hash per row; a row counts when it has both.
So a hash is written only after its pixels are on the disk.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from typing import BinaryIO, Final, Self

from datasets_mm.sources.fingerprint import SourceError

HASH_BYTES: Final = 32
SYNC_BYTES: Final = 1 << 30
SYNC_SECONDS: Final = 20.0
"""Rows are committed after so many bytes or seconds: a kill costs at most that, and a disk that
takes 30 ms for a sync is waited for in 0.2 % of the time and not once for every 256 pictures."""

SPARE: Final = 0.02
"""Of the disk, left free by a cache."""
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REMEDY: Final = "make room there, or set WORKBENCH_CACHE to a folder on a larger disk"


class DiskFullError(SourceError):
    """The pictures do not fit on the disk; one sentence with the remedy."""


def free_bytes(folder: Path) -> float:
    """Bytes that a cache may use of the folder's disk."""
    disk = shutil.disk_usage(folder)
    return disk.free - SPARE * disk.total


class RowWriter:
    """Appends rows to the two files of a folder; `rows` of them are there already.

    As a context: leaving it commits what was added, whatever it was left for.
    """

    def __init__(self, folder: Path, row_bytes: int, rows: int) -> None:
        self._folder = folder
        self._keys: list[bytes] = []
        self._bytes = 0
        self._committed = time.monotonic()
        self._pixels = _open_truncated(folder / "rows.u8", rows * row_bytes)
        self._hashes = _open_truncated(folder / "hashes.bin", rows * HASH_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.commit()
        finally:
            self._pixels.close()
            self._hashes.close()

    def add(self, key: bytes, pixels: bytes) -> None:
        """One row.

        Raises:
            DiskFullError: the disk is full; the rows before stay.
        """
        self._write(self._pixels, pixels)
        self._keys.append(key)
        self._bytes += len(pixels)

    def commit_if_due(self) -> None:
        """Commit when SYNC_BYTES or SYNC_SECONDS have gathered."""
        if self._bytes >= SYNC_BYTES or time.monotonic() - self._committed >= SYNC_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Pixels to the disk, then their hashes: a hash never names a row that is not whole.

        The hashes too before anything refers to their rows: a row number that a power cut takes
        back would later be another picture's.
        """
        if self._keys:
            os.fsync(self._pixels.fileno())
            self._write(self._hashes, b"".join(self._keys))
            os.fsync(self._hashes.fileno())
        self._keys, self._bytes, self._committed = [], 0, time.monotonic()

    def _write(self, file: BinaryIO, data: bytes) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise DiskFullError(
                f"{self._folder}: the disk is full ({error.strerror}); {REMEDY}"
            ) from None


def _open_truncated(path: Path, size: int) -> BinaryIO:
    """The file, unbuffered, at its end; bytes of a killed writer beyond `size` are cut off."""
    file = path.open("ab", buffering=0)
    file.truncate(size)
    return file


def count_rows(folder: Path, row_bytes: int) -> int:
    """Whole rows: those that have both their pixels and their hash."""
    try:
        pixels = (folder / "rows.u8").stat().st_size // row_bytes
        return min(pixels, (folder / "hashes.bin").stat().st_size // HASH_BYTES)
    except OSError:
        return 0


def read_hashes(folder: Path, row_bytes: int) -> dict[bytes, int]:
    """Content hash -> row."""
    rows = count_rows(folder, row_bytes)
    data = (folder / "hashes.bin").read_bytes() if rows else b""
    return {data[row * HASH_BYTES : (row + 1) * HASH_BYTES]: row for row in range(rows)}
