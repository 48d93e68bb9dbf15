"""Features of frozen towers, computed once and kept.

A store belongs to one tower fingerprint (weights, layers, precision); a row is keyed by the content
of its item after the transform, so all runs and subsets share what they have in common. float16:
a tower's outputs are then normalised or projected, and 1e-3 relative is far below what heads learn.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float16]
Compute = Callable[[Sequence[int]], Iterator[tuple[Sequence[int], npt.NDArray[np.float32]]]]
"""Positions of items -> pieces of (positions, rows), in any order."""

KEY_BYTES: Final = 16


def key(*parts: bytes) -> bytes:
    """Content key of an item. 128 bits: collisions are out of question at any size here."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


class FeatureStore:
    """Rows of one tower on disk: shards that are written once and never changed."""

    def __init__(self, root: Path, tower: str, width: int) -> None:
        self.folder = root / "features" / tower
        self.width = width
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def rows(self, keys: Sequence[bytes], compute: Compute) -> tuple[Features, int]:
        """One row per key, in order, and how many had to be computed."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second run waits and then finds them
            out = np.empty((len(keys), self.width), np.float16)
            missing = self._fill(out, keys)
            if missing:
                unique = list({keys[i]: i for i in missing}.values())
                self._write(keys, unique, compute)
                if self._fill(out, keys):
                    raise RuntimeError(f"{self.folder}: computed features did not arrive")
        return out, len(missing)

    def _fill(self, out: Features, keys: Sequence[bytes]) -> list[int]:
        """Copy known rows into place; returns the positions of unknown ones."""
        known: dict[bytes, tuple[int, int]] = {}
        shards = sorted(self.folder.glob("shard-*"))
        arrays = [np.load(shard / "rows.npy", mmap_mode="r") for shard in shards]
        for number, shard in enumerate(shards):
            for row, found in enumerate(np.load(shard / "keys.npy")):
                known[found.tobytes()] = (number, row)
        where = np.array([known.get(k, (-1, -1)) for k in keys], np.int64).reshape(-1, 2)
        for number, rows in enumerate(arrays):
            at = np.flatnonzero(where[:, 0] == number)
            out[at] = rows[where[at, 1]]
        return np.flatnonzero(where[:, 0] < 0).tolist()

    def _write(self, keys: Sequence[bytes], positions: list[int], compute: Compute) -> None:
        place = {position: row for row, position in enumerate(positions)}
        rows = np.zeros((len(positions), self.width), np.float16)
        for computed, values in compute(positions):
            rows[[place[p] for p in computed]] = values
        names = np.frombuffer(b"".join(keys[p] for p in positions), np.uint8)
        shard = self.folder / f"shard-{hashlib.blake2b(names.tobytes(), digest_size=8).hexdigest()}"
        temporary = shard.with_name(f".{shard.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, array in (("keys", names.reshape(-1, KEY_BYTES)), ("rows", rows)):
            with (temporary / f"{name}.npy").open("wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(shard)
