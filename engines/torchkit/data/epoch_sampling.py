"""Chances that are functions of (seed, epoch, record) alone.

Apart from the loaders of the engines, which share it: neither the order of the batches nor the
number of workers may change what is drawn.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def draw(offsets: Rows, rows: Rows, seed: int, epoch: int) -> Rows:
    """One of each record's choices, as a place: record i has offsets[i] to offsets[i + 1]."""
    starts = offsets[rows]
    counts = (offsets[rows + 1] - starts).astype(np.uint64)
    chance = hashed(rows, seed, epoch, salt=1)
    return starts + (chance % counts).astype(np.int64)


def hashed(rows: Rows, seed: int, epoch: int, salt: int) -> npt.NDArray[np.uint64]:
    """splitmix64 of (seed, epoch, salt, row): 64 even bits for each row (Steele et al. 2014)."""
    base = np.random.SeedSequence([seed, epoch, salt]).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):
        x = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + base
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)
