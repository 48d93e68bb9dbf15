"""Collator: makes a rank's share of a training micro-batch from rows of the subset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from engines.torchkit.data.data_loader import Rows, rank_share
from engines.torchkit.data.prefetch import pin_memory

Batch = TypeVar("Batch")


class Collator(ABC, Generic[Batch]):
    """Collates training micro-batches; the loader calls it from several threads at once."""

    pin = False
    """Whether batches lie in pinned memory."""
    rank_and_size = (0, 1)
    """Rank of the process and number of ranks."""

    def __call__(self, rows: Rows, epoch: int) -> Batch:
        """The share of this rank of the micro-batch `rows` in epoch `epoch`.

        A rank with an empty share gets one row as a stand-in, so that all ranks compute.
        """
        first, last = rank_share(len(rows), *self.rank_and_size)
        share = slice(first, last) if last > first else slice(0, 1)
        batch = self.collate(rows, epoch, share)
        return pin_memory(batch) if self.pin else batch

    @abstractmethod
    def collate(self, rows: Rows, epoch: int, share: slice) -> Batch:
        """The batch of `rows[share]`, on the host; `rows` are those of all ranks."""
