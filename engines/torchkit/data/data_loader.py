"""Training batches: epoch permutation and loader.

A batch is a function of (seed, step) alone, so a resumed run sees the same batches, and the number
of workers changes nothing but the speed. Data are decoded in memory maps and gathering them
releases the GIL, so workers are threads: no copies, no pickling, no orphans.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Batch = TypeVar("Batch")
Batch_co = TypeVar("Batch_co", covariant=True)

DEPTH: Final = 2
"""Batches in preparation per worker: one ready, one in work."""


def rank_share(rows: int, rank: int, size: int) -> tuple[int, int]:
    """Start and end (exclusive) of a rank's share of `rows`; sizes differ by at most one."""
    each, more = divmod(rows, size)
    first = rank * each + min(rank, more)
    return first, first + each + (rank < more)


def choose_others(size: int) -> Rows:
    """Another row for each of `size` rows, each of them once, [size]; equal in every run."""
    order = np.random.default_rng(0).permutation(size)
    others = np.empty(size, np.int64)
    others[order] = np.roll(order, 1)
    return others


class EpochPermutation:
    """The rows of each optimizer step.

    Every epoch is a permutation seeded by (seed, epoch). A step takes `batch * accumulation` rows
    as micro-batches of `batch`; the last step of an epoch takes what is left, never dropping a row.
    """

    def __init__(self, rows: int, batch: int, gradient_accumulation_steps: int, seed: int) -> None:
        self.rows = rows
        self.batch = batch
        self.per_step = batch * gradient_accumulation_steps
        self.seed = seed
        self.steps_per_epoch = -(-rows // self.per_step)
        self.short_last = bool(rows % self.per_step)
        """Whether the last step of an epoch has fewer rows than the others."""
        self._epoch = -1
        self._permutation: Rows = np.empty(0, np.int64)

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that step number `step` (from 0) belongs to."""
        return step // self.steps_per_epoch

    def micro_batch_count(self, step: int) -> int:
        """Number of micro-batches of a step."""
        start = step % self.steps_per_epoch * self.per_step
        return -(-min(self.per_step, self.rows - start) // self.batch)

    def micro_batches(self, step: int) -> list[Rows]:
        """Rows of each micro-batch of a step."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = np.random.default_rng([self.seed, epoch])
            self._permutation = generator.permutation(self.rows)
            self._epoch = epoch
        rows = self._permutation[index * self.per_step : (index + 1) * self.per_step]
        return [rows[i : i + self.batch] for i in range(0, len(rows), self.batch)]


def split_rows(rows: Rows, size: int) -> Iterator[Rows]:
    """The rows in order, `size` at a time."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


class PendingBatch(Protocol[Batch_co]):
    """A batch in preparation (as `concurrent.futures.Future`)."""

    def done(self) -> bool:
        """Whether `result` returns at once."""

    def result(self) -> Batch_co:
        """The batch; waits for it."""


@dataclass(frozen=True)
class _InlineBatch(Generic[Batch]):
    """A batch that is made when `result` is called."""

    result: Callable[[], Batch]

    def done(self) -> bool:
        return False


def make_ahead(
    makers: Iterable[Callable[[], Batch]], pool: Executor | None, depth: int
) -> Iterator[PendingBatch[Batch]]:
    """Results of the makers in order, `depth` at once in the pool; without a pool, inline.

    Closing the iterator cancels makers that have not begun.
    """
    if pool is None:
        yield from map(_InlineBatch, makers)
        return
    waiting: deque[Future[Batch]] = deque()
    try:
        for maker in makers:
            waiting.append(pool.submit(maker))
            if len(waiting) >= depth:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for future in waiting:
            future.cancel()


class Loader(Generic[Batch]):
    """Data loader: micro-batches in order, prepared ahead by `num_workers` threads."""

    def __init__(
        self, order: EpochPermutation, gather: Callable[[Rows, int], Batch], num_workers: int = 0
    ) -> None:
        """`gather(rows, epoch)` makes one micro-batch; with workers it runs in other threads."""
        self.order = order
        self._gather = gather
        self._workers = num_workers

    def batches(self, start: int, end: int) -> Iterator[PendingBatch[Batch]]:
        """The micro-batches of the steps `start` to `end` (exclusive), in order."""
        makers = self._makers(start, end)
        if not self._workers:
            yield from make_ahead(makers, None, 0)
            return
        with ThreadPoolExecutor(self._workers, thread_name_prefix="loader") as pool:
            yield from make_ahead(makers, pool, DEPTH * self._workers)

    def _makers(self, start: int, end: int) -> Iterator[Callable[[], Batch]]:
        for step in range(start, end):
            epoch = self.order.epoch(step)
            for rows in self.order.micro_batches(step):
                yield partial(self._gather, rows, epoch)
