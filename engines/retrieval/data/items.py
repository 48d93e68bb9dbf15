"""Item stores: tokenized texts, decoded images and features, one row per distinct item.

Each distinct text is tokenized once, each image decoded once. Records and passages hold row numbers
only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

Rows = npt.NDArray[np.int64]

CHUNK: Final = 8192
"""Texts tokenized at once: keeps the tokenizer's objects below some 100 MB."""


class ItemStore(Protocol):
    """Store of one modality's distinct items."""

    def gather(self, rows: Rows) -> Tensor:
        """The rows as one CPU tensor, first dimension len(rows)."""

    def costs(self) -> Rows:
        """Relative cost of encoding each row (its length, say), for batches of like cost."""


class Vocabulary:
    """Distinct strings, numbered in order of first appearance."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, values: Iterable[str | None]) -> Rows:
        """Row of each value, added where new; -1 for None and the empty string."""
        rows = self._rows
        return np.fromiter((rows.setdefault(v, len(rows)) if v else -1 for v in values), np.int64)

    def values(self) -> list[str]:
        """All strings by row."""
        return list(self._rows)


class TokenItems:
    """Tokenized texts, without padding: one flat array and the offsets of each text."""

    def __init__(
        self, flat: npt.NDArray[np.int32], offsets: Rows, pad: int, length: int = 0
    ) -> None:
        """`length`: every text is padded to it; 0: to the longest of those that are gathered."""
        self.flat = flat
        self.offsets = offsets
        self.pad = pad
        self.length = length
        self.multiple = 1
        """Lengths of gathered texts are rounded up to a multiple, at most to the longest text."""
        self.truncated = 0

    @classmethod
    def tokenize(
        cls, texts: Sequence[str], tokenizer: Tokenizer, max_length: int, pad: int
    ) -> TokenItems:
        """Tokenize all texts; `truncated` counts those that were cut at `max_length`."""
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
        pieces, lengths, truncated = [], [0], 0
        for start in range(0, len(texts), CHUNK):
            for encoding in tokenizer.encode_batch(list(texts[start : start + CHUNK])):
                ids = np.asarray(encoding.ids, np.int32)
                pieces.append(ids)
                lengths.append(len(ids))
                truncated += bool(encoding.overflowing)
        flat = np.concatenate(pieces) if pieces else np.empty(0, np.int32)
        items = cls(flat, np.cumsum(lengths, dtype=np.int64), pad)
        items.truncated = truncated
        return items

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def gather(self, rows: Rows) -> Tensor:
        """Token ids [n, width], padded on the right."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        columns = np.arange(self.width(rows))
        inside = columns < lengths[:, None]
        out = np.full(inside.shape, self.pad, np.int64)
        out[inside] = self.flat[(starts[:, None] + columns)[inside]]
        return torch.from_numpy(out)

    def width(self, rows: Rows) -> int:
        """Padded length, in tokens, of these texts when gathered."""
        longest = int((self.offsets[rows + 1] - self.offsets[rows]).max(initial=1))
        rounded = -(-longest // self.multiple) * self.multiple
        return max(self.length, longest, min(rounded, self._longest))

    @cached_property
    def _longest(self) -> int:
        return int(np.diff(self.offsets).max(initial=1))

    def costs(self) -> Rows:
        """Tokens of each text, with padding to `length`."""
        return np.maximum(np.diff(self.offsets), self.length)


class ArrayItems:
    """Rows of arrays: decoded images (uint8 [N, S, S, 3]) or features (float16 [N, W]).

    `positions` [n, 2]: array and row of each item; row -1: unreadable, gathered as zeros. Arrays
    may be memory maps; only gathered rows are read.
    """

    def __init__(self, arrays: Sequence[npt.NDArray[Any]], positions: Rows | None = None) -> None:
        self.arrays = list(arrays)
        if positions is None:
            rows = np.arange(len(self.arrays[0]))
            positions = np.stack([np.zeros_like(rows), rows], 1)
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def readable(self) -> npt.NDArray[np.bool_]:
        """Whether each item could be read."""
        return self.positions[:, 1] >= 0

    def gather(self, rows: Rows) -> Tensor:
        """The rows, copied."""
        arrays, at = self.positions[rows].T
        if len(self.arrays) == 1 and (at >= 0).all():
            return torch.from_numpy(self.arrays[0][at])
        first = self.arrays[0]
        out = np.zeros((len(rows), *first.shape[1:]), first.dtype)
        for number, array in enumerate(self.arrays):
            chosen = np.flatnonzero((arrays == number) & (at >= 0))
            out[chosen] = array[at[chosen]]
        return torch.from_numpy(out)

    def costs(self) -> Rows:
        """All rows cost the same."""
        return np.ones(len(self), np.int64)


def batch_by_cost(costs: npt.NDArray[np.int64], most: int) -> Iterator[npt.NDArray[np.int64]]:
    """Indices in batches of like cost, highest first; `most`: cost of a padded batch."""
    order = np.argsort(-costs, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, most // max(1, int(costs[order[start]])))
        yield order[start : start + size]
        start += size
