"""A uniform sample of records, drawn in one pass by several processes."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappush, heapreplace
from random import Random


@dataclass(frozen=True, slots=True, order=True)
class SampledRecord:
    """A record of the sample, and one of its positives as a training step draws it."""

    rank: float
    query: str
    passage: str


class ReservoirSample:
    """Uniform sample without replacement: the records with the smallest independent random ranks.

    It depends on the seed and the parts of the file alone, not on which process reads which part.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._seed = seed
        self._random = Random(seed)
        # A heap gives its smallest: ranks are stored negated, so that the largest one leaves first.
        self._heap: list[tuple[float, str, str]] = []
        self._limit = 1.0

    def begin(self, part: int) -> None:
        """Another part of the file."""
        self._random = Random(f"{self._seed}:{part}")

    def offer(self, query: str, texts: list[str]) -> None:
        """Offer a record to the sample."""
        rank = self._random.random()
        if rank >= self._limit:
            return
        passage = texts[int(rank * 2**53) % len(texts)] if texts else ""
        entry = (-rank, query, passage)
        if len(self._heap) < self.size:
            heappush(self._heap, entry)
        else:
            heapreplace(self._heap, entry)
        if len(self._heap) == self.size:
            self._limit = -self._heap[0][0]

    def finish(self) -> list[SampledRecord]:
        """The sampled records, by rank."""
        return sorted(SampledRecord(-rank, query, text) for rank, query, text in self._heap)
