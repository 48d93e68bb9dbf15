"""Order and delivery of training batches.

A batch is a function of (seed, step) alone, so a resumed run sees exactly what it would have seen,
and the number of workers changes the speed and nothing else. Data lie decoded in memory maps and
gathering them releases the GIL, so workers are threads: no copies, no pickling, no orphans.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Batch = TypeVar("Batch")

DEPTH: Final = 2
"""Batches prepared ahead per worker: one in the hand, one being made."""


def share(rows: int, rank: int, size: int) -> tuple[int, int]:
    """First and last (excluded) of `rows` that are this rank's: sizes differ by at most one."""
    each, more = divmod(rows, size)
    first = rank * each + min(rank, more)
    return first, first + each + (rank < more)


class Order:
    """Which rows make up each optimizer step.

    Every epoch is one permutation seeded by (seed, epoch). A step takes `batch * accumulation` rows
    as micro-batches of `batch`; the last step of an epoch takes what is left, never dropping a row.
    """

    def __init__(self, rows: int, batch: int, accumulation: int, seed: int) -> None:
        self.rows = rows
        self.batch = batch
        self.per_step = batch * accumulation
        self.seed = seed
        self.steps_per_epoch = -(-rows // self.per_step)
        self._epoch = -1
        self._permutation: Rows = np.empty(0, np.int64)

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that step number `step` (from 0) belongs to."""
        return step // self.steps_per_epoch

    def micro_batches(self, step: int) -> list[Rows]:
        """Rows of each micro-batch of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = np.random.default_rng([self.seed, epoch])
            self._permutation = generator.permutation(self.rows)
            self._epoch = epoch
        taken = self._permutation[place * self.per_step : (place + 1) * self.per_step]
        return [taken[i : i + self.batch] for i in range(0, len(taken), self.batch)]


class Loader(Generic[Batch]):
    """Turns rows into batches, in order, `workers` threads ahead of the one who asks."""

    def __init__(
        self, order: Order, gather: Callable[[Rows, int], Batch], workers: int = 0
    ) -> None:
        """`gather(rows, epoch)` makes one micro-batch; with workers it runs in other threads."""
        self.order = order
        self._gather = gather
        self._workers = workers

    def steps(self, start: int, end: int) -> Iterator[tuple[int, Iterator[Batch]]]:
        """For each step: the number of its micro-batches and an iterator over them.

        The iterator must be exhausted before the next step is asked for.
        """
        if not self._workers:
            for step in range(start, end):
                yield self._inline(step)
            return
        with ThreadPoolExecutor(self._workers, thread_name_prefix="loader") as pool:
            yield from self._ahead(pool, start, end)

    def _inline(self, step: int) -> tuple[int, Iterator[Batch]]:
        micro, epoch = self.order.micro_batches(step), self.order.epoch(step)
        return len(micro), (self._gather(rows, epoch) for rows in micro)

    def _ahead(
        self, pool: ThreadPoolExecutor, start: int, end: int
    ) -> Iterator[tuple[int, Iterator[Batch]]]:
        waiting: deque[list[Future[Batch]]] = deque()
        upcoming, ready = start, 0
        try:
            for _ in range(start, end):
                while upcoming < end and (not waiting or ready < DEPTH * self._workers):
                    epoch = self.order.epoch(upcoming)
                    waiting.append(
                        [
                            pool.submit(self._gather, rows, epoch)
                            for rows in self.order.micro_batches(upcoming)
                        ]
                    )
                    ready += len(waiting[-1])
                    upcoming += 1
                futures = waiting.popleft()
                ready -= len(futures)
                yield len(futures), (future.result() for future in futures)
        finally:
            for futures in waiting:
                for future in futures:
                    future.cancel()
