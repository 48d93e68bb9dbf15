"""How many different captions there are: the first thing to look at before any other score.

A model that says one sentence about everything may score well elsewhere (the mode collapse of the
SigLIP study). Diversity falls with the number of captions by nature: compare it at equal n only.

Intervals: a bootstrap would draw captions twice and so call any set less diverse than it is (0.63
for one without repetition), so they come from the jackknife (Efron and Stein 1981), which leaves
one caption out at a time, and from Wilson's interval where no single caption makes a difference.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Final, NamedTuple

import numpy as np

from engines.captioning.metrics import Scored
from engines.captioning.metrics.tokenizers import ngrams, normal, tokenizer
from results.statistics import wilson_interval

COLLAPSED: Final = 0.5
"""Diversity below which the SigLIP study warns of mode collapse."""
Z: Final = 1.959964
ROUNDING: Final = 1e-12
"""A smaller spread is that of equal numbers: no caption alone makes a difference."""


class Diversity(NamedTuple):
    """Shares between 0 and 1."""

    unique: float
    """Different captions / captions."""
    distinct_1: float
    """Different words / words (Li et al. 2016)."""
    distinct_2: float
    """Different pairs of neighbouring words / such pairs."""
    most_frequent: float
    """Share of the most frequent caption."""
    caption: str
    """The most frequent one."""

    @property
    def collapsed(self) -> bool:
        """Mode collapse by the study's rule."""
        return self.unique < COLLAPSED


def measure(candidates: Sequence[str], language: str) -> Diversity:
    """Diversity of captions, by whole captions and by words; all 0 without captions."""
    said = Counter(normal(one) for one in candidates)
    if not said:
        return Diversity(0.0, 0.0, 0.0, 0.0, "")
    split = tokenizer(language).split
    words = [split(one) for one in candidates]
    caption, often = min(said.items(), key=lambda item: (-item[1], item[0]))
    one, two = (_distinct([ngrams(line, n) for line in words]) for n in (1, 2))
    return Diversity(len(said) / len(candidates), one, two, often / len(candidates), caption)


def score(candidates: Sequence[str], references: Sequence[Sequence[str]], language: str) -> Scored:
    """Unique captions / captions; a caption said k times counts 1/k. References play no part."""
    del references, language
    return of_captions(candidates)


def of_captions(candidates: Sequence[str]) -> Scored:
    """Diversity, without references."""
    said = [normal(one) for one in candidates]
    count = Counter(said)
    per_item = np.asarray([1 / count[one] for one in said], np.float64)
    return _shared("diversity", [[one] for one in said], per_item)


def all_scores(candidates: Sequence[str], language: str) -> list[Scored]:
    """Diversity, distinct-1, distinct-2 and the most frequent caption's share (lower is better)."""
    way = tokenizer(language)
    words = [way.split(one) for one in candidates]
    count = Counter(normal(one) for one in candidates)
    top, often = min(count.items(), key=lambda item: (-item[1], item[0]))
    is_top = np.asarray([normal(one) == top for one in candidates], np.float64)
    bounds = wilson_interval(often, len(candidates))
    return [
        of_captions(candidates),
        *(
            _shared(f"distinct-{n} ({way.name})", [ngrams(line, n) for line in words], None)
            for n in (1, 2)
        ),
        Scored(
            "most frequent caption", is_top, often / len(candidates), bounds.low, bounds.high,
            bounds.method, higher_is_better=False,
        ),
    ]  # fmt: skip


def _distinct(lines: Sequence[Sequence[Hashable]]) -> float:
    total = sum(map(len, lines))
    return len({one for line in lines for one in line}) / total if total else 0.0


def _shared(
    name: str,
    lines: Sequence[Sequence[Hashable]],
    per_item: np.ndarray[tuple[int], np.dtype[np.float64]] | None,
) -> Scored:
    """Different things / things over all lines, with a jackknife over lines."""
    count = Counter(one for line in lines for one in line)
    total, kinds, n = count.total(), len(count), len(lines)
    own = np.asarray([_only_here(line, count) for line in lines], np.float64)
    sizes = np.asarray([len(line) for line in lines], np.float64)
    if per_item is None:
        shares = [sum(1 / count[one] for one in line) / max(1, len(line)) for line in lines]
        per_item = np.asarray(shares, np.float64)
    value = kinds / total if total else 0.0
    left = total - sizes
    without = np.divide(kinds - own, left, out=np.zeros(n), where=left > 0)
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum())) if n > 1 else 0
    if error < ROUNDING:
        low, high, method = wilson_interval(kinds, total)
        return Scored(name, per_item, value, low, high, f"{method}; of n = {n}")
    low, high = max(0.0, value - Z * error), min(1.0, value + Z * error)
    return Scored(name, per_item, value, low, high, f"jackknife over captions, 95%; of n = {n}")


def _only_here(line: Sequence[Hashable], count: Counter[Hashable]) -> int:
    """Things that would be gone without this line."""
    return sum(1 for one, often in Counter(line).items() if count[one] == often)
