"""Feature cache of frozen towers: computed once, memory-mapped.

A store belongs to one tower fingerprint (weights, layers, precision); a row is keyed by the content
of its item after the transform, so runs and subsets share equal items. Only the rows that are read
take memory. An item has one row,
or, where the caller gives `sizes`, a number of its own.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from datasets_mm.atomic_files import atomic_folder, locked
from engines.emitter import EngineError

Compute = Callable[[Sequence[int]], Iterator[tuple[Sequence[int], npt.NDArray[Any]]]]
"""Positions of items -> pieces of (positions, rows), in any order."""

KEY_BYTES: Final = 16
SPARE: Final = 0.02
"""Share of the disk that a cache leaves free."""
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def content_key(*parts: bytes) -> bytes:
    """Content key of an item: 128 bits, so collisions are negligible."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def content_keys(rows: npt.NDArray[np.int64], read: Callable[[Any], bytes]) -> list[bytes]:
    """The content key of each row; `read([row])` gives its bytes, from several threads at once.

    Reading and hashing release the interpreter's lock; 51 GB of pixels take 1 minute on one core.
    """
    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        return list(pool.map(lambda row: content_key(read(row)), rows[:, None], chunksize=64))


class NoRoomError(EngineError):
    """The features do not fit on the disk."""


@dataclass(frozen=True)
class StoredFeatures:
    """Rows of a store. `arrays` are memory maps; `places`: array and row of each item."""

    arrays: list[npt.NDArray[Any]]
    positions: npt.NDArray[np.int64]
    """[n, 2]; of items with sizes [n, 3]: array, first row and number of rows."""
    computed: int
    """Number of items that were not cached."""


class FeatureStore:
    """Rows of one tower on disk, in immutable shards.

    `shape`: of a row. float16 by default: a tower's outputs are then normalized or
    projected, and 1e-3 relative is far below what heads learn.
    """

    def __init__(
        self, root: Path, tower: str, shape: int | tuple[int, ...], dtype: str = "float16"
    ) -> None:
        self.folder = root / "features" / tower
        self.shape = (shape,) if isinstance(shape, int) else shape
        self.dtype = np.dtype(dtype)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def disk_bytes(self, rows: int) -> int:
        """Disk space of that many rows."""
        return int(rows * (math.prod(self.shape) * self.dtype.itemsize + KEY_BYTES))

    def count_missing(self, keys: Sequence[bytes]) -> int:
        """Number of distinct keys that are not cached."""
        cached = self._cached_positions(self._shards())
        return len({k for k in keys if k not in cached})

    def open(
        self, keys: Sequence[bytes], compute: Compute, sizes: Sequence[int] | None = None
    ) -> StoredFeatures:
        """One row per key, in order; missing ones are computed first.

        `sizes`: rows of each item, where they are not one each; an item's rows follow each other.

        Raises:
            NoRoomError: the disk is too full, checked before anything is computed; if it fills up
                later, the incomplete shard is removed.
        """
        with locked(self.folder / "lock"):  # a second run waits and then finds them
            cached = self._cached_positions(self._shards())
            unique = list({k: i for i, k in enumerate(keys) if k not in cached}.values())
            if unique:
                self._check_room(sum(sizes[p] for p in unique) if sizes else len(unique))
                self._write(keys, unique, compute, sizes)
        shards = self._shards()
        cached = self._cached_positions(shards)
        positions = np.array([cached[k] for k in keys], np.int64).reshape(-1, 2)
        if sizes is not None:
            positions = self._spans(shards, positions)
        return StoredFeatures([self._rows(shard) for shard in shards], positions, len(unique))

    def _spans(self, shards: list[Path], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """[n, 2] of array and item -> [n, 3] of array, first row and number of rows."""
        offsets = [np.cumsum([0, *np.fromfile(shard / "sizes", np.int64)]) for shard in shards]
        spans = [
            (array, offsets[array][item], offsets[array][item + 1] - offsets[array][item])
            for array, item in positions.tolist()
        ]
        return np.array(spans, np.int64).reshape(-1, 3)

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("rows-*"))

    def _rows(self, shard: Path) -> npt.NDArray[Any]:
        count = (shard / "rows").stat().st_size // (math.prod(self.shape) * self.dtype.itemsize)
        return np.memmap(shard / "rows", self.dtype, "r", shape=(count, *self.shape))

    def _cached_positions(self, shards: list[Path]) -> dict[bytes, tuple[int, int]]:
        positions: dict[bytes, tuple[int, int]] = {}
        for number, shard in enumerate(shards):
            data = (shard / "keys").read_bytes()
            for row in range(len(data) // KEY_BYTES):
                positions[data[row * KEY_BYTES : (row + 1) * KEY_BYTES]] = (number, row)
        return positions

    def _check_room(self, rows: int) -> None:
        need, disk = self.disk_bytes(rows), shutil.disk_usage(self.folder)
        if need > disk.free - SPARE * disk.total:
            raise NoRoomError(
                f"{self.folder}: {rows} rows of features need {need / 2**30:.2f} GiB and "
                f"{disk.free / 2**30:.2f} GiB are free; set feature_cache = false, or make room"
            )

    def _write(
        self,
        keys: Sequence[bytes],
        positions: list[int],
        compute: Compute,
        sizes: Sequence[int] | None,
    ) -> None:
        """Write a new shard, in the order in which its rows are computed.

        Not memory-mapped: on a full disk a write fails, whereas a map ends the process.
        """
        names = hashlib.blake2b(b"".join(keys[p] for p in positions), digest_size=8).hexdigest()
        shard = self.folder / f"rows-{names}"
        done: list[int] = []
        try:
            with atomic_folder(shard) as draft:
                with (draft / "rows").open("wb") as file:
                    for computed, values in compute(positions):
                        rows = sum(sizes[p] for p in computed) if sizes else len(computed)
                        if values.shape != (rows, *self.shape):
                            shape = f"{values.shape} came for {rows} of {self.shape}"
                            raise RuntimeError(f"{self.folder}: rows of {shape}")
                        file.write(np.ascontiguousarray(values, self.dtype).data)
                        done += computed
                    file.flush()
                    os.fsync(file.fileno())
                if sorted(done) != sorted(positions):
                    raise RuntimeError(f"{self.folder}: {len(done)} of {len(positions)} rows came")
                (draft / "keys").write_bytes(b"".join(keys[p] for p in done))
                if sizes is not None:
                    np.array([sizes[p] for p in done], np.int64).tofile(draft / "sizes")
                about = {"shape": self.shape, "dtype": self.dtype.name, "rows": len(done)}
                (draft / "about.json").write_text(json.dumps(about))
        except OSError as error:
            if error.errno in FULL:
                raise NoRoomError(
                    f"{self.folder}: the disk was full after {len(done)} of {len(positions)} rows "
                    f"of features ({error.strerror}); set feature_cache = false, or make room"
                ) from None
            raise
