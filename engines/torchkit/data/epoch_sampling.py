"""Random choices that are functions of (seed, epoch, record) alone.

Neither the order of the batches nor the number of workers changes them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def sample_per_epoch(offsets: Rows, rows: Rows, seed: int, epoch: int) -> Rows:
    """Index [n] of one random choice per record; record i has offsets[i] to offsets[i + 1]."""
    starts = offsets[rows]
    counts = (offsets[rows + 1] - starts).astype(np.uint64)
    chance = splitmix64(rows, seed, epoch, salt=1)
    return starts + (chance % counts).astype(np.int64)


def splitmix64(rows: Rows, seed: int, epoch: int, salt: int) -> npt.NDArray[np.uint64]:
    """splitmix64 of (seed, epoch, salt, row): 64 uniform bits for each row (Steele et al. 2014)."""
    base = np.random.SeedSequence([seed, epoch, salt]).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):
        x = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + base
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)
