"""Diversity of captions: shares of unique captions, words and word pairs.

A model that gives every picture one sentence may score well elsewhere (the mode collapse of the
SigLIP study). Diversity falls with the number of captions: compare it at equal n only.

Intervals: a bootstrap draws captions twice and underestimates diversity (0.63 for a set without
repetition). They come from the jackknife (Efron and Stein 1981), which leaves out one caption at a
time, and from Wilson's interval where no single caption makes a difference.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Final, NamedTuple

import numpy as np

from engines.captioning.metrics import CaptionScore
from engines.captioning.metrics.tokenizers import get_tokenizer, ngrams, normalize_text
from results.statistics import wilson_interval

COLLAPSED: Final = 0.5
"""Diversity below which the SigLIP study warns of mode collapse."""
Z: Final = 1.959964
ROUNDING: Final = 1e-12
"""A smaller jackknife error counts as 0: no single caption makes a difference."""


class Diversity(NamedTuple):
    """Shares between 0 and 1."""

    unique: float
    """Different captions / captions."""
    distinct_1: float
    """Different words / words (Li et al. 2016)."""
    distinct_2: float
    """Different pairs of neighbouring words / pairs."""
    most_frequent: float
    """Share of the most frequent caption."""
    caption: str
    """The most frequent caption."""

    @property
    def collapsed(self) -> bool:
        """Whether `unique` is below `COLLAPSED`."""
        return self.unique < COLLAPSED


def measure_diversity(candidates: Sequence[str], language: str) -> Diversity:
    """Diversity of captions, by captions and by words; all 0 without captions."""
    counts = Counter(normalize_text(candidate) for candidate in candidates)
    if not counts:
        return Diversity(0.0, 0.0, 0.0, 0.0, "")
    split = get_tokenizer(language).split
    words = [split(candidate) for candidate in candidates]
    caption, occurrences = min(counts.items(), key=lambda item: (-item[1], item[0]))
    distinct_1, distinct_2 = (_distinct_share([ngrams(line, n) for line in words]) for n in (1, 2))
    n = len(candidates)
    return Diversity(len(counts) / n, distinct_1, distinct_2, occurrences / n, caption)


def diversity_score(candidates: Sequence[str]) -> CaptionScore:
    """Diversity, without references."""
    captions = [normalize_text(caption) for caption in candidates]
    counts = Counter(captions)
    per_item = np.asarray([1 / counts[caption] for caption in captions], np.float64)
    return _jackknife_share("diversity", [[caption] for caption in captions], per_item)


def all_scores(candidates: Sequence[str], language: str) -> list[CaptionScore]:
    """Diversity, distinct-1, distinct-2 and the most frequent caption's share (lower is better)."""
    splitter = get_tokenizer(language)
    words = [splitter.split(caption) for caption in candidates]
    counts = Counter(normalize_text(caption) for caption in candidates)
    top_caption, occurrences = min(counts.items(), key=lambda item: (-item[1], item[0]))
    is_top = np.asarray(
        [normalize_text(caption) == top_caption for caption in candidates], np.float64
    )
    bounds = wilson_interval(occurrences, len(candidates))
    return [
        diversity_score(candidates),
        *(
            _jackknife_share(
                f"distinct-{n} ({splitter.name})", [ngrams(line, n) for line in words], None
            )
            for n in (1, 2)
        ),
        CaptionScore(
            "most frequent caption", is_top, occurrences / len(candidates), bounds.low, bounds.high,
            bounds.method, higher_is_better=False,
        ),
    ]  # fmt: skip


def _distinct_share(lines: Sequence[Sequence[Hashable]]) -> float:
    total = sum(map(len, lines))
    return len({element for line in lines for element in line}) / total if total else 0.0


def _jackknife_share(
    name: str,
    lines: Sequence[Sequence[Hashable]],
    per_item: np.ndarray[tuple[int], np.dtype[np.float64]] | None,
) -> CaptionScore:
    """Distinct elements / elements of all lines, with a jackknife interval over lines."""
    counts = Counter(element for line in lines for element in line)
    total, distinct, n = counts.total(), len(counts), len(lines)
    exclusive = np.asarray([_count_exclusive(line, counts) for line in lines], np.float64)
    sizes = np.asarray([len(line) for line in lines], np.float64)
    if per_item is None:
        shares = [
            sum(1 / counts[element] for element in line) / max(1, len(line)) for line in lines
        ]
        per_item = np.asarray(shares, np.float64)
    value = distinct / total if total else 0.0
    remaining = total - sizes
    leave_one_out = np.divide(distinct - exclusive, remaining, out=np.zeros(n), where=remaining > 0)
    error = (
        math.sqrt((n - 1) / n * float(((leave_one_out - leave_one_out.mean()) ** 2).sum()))
        if n > 1
        else 0
    )
    if error < ROUNDING:
        low, high, method = wilson_interval(distinct, total)
        return CaptionScore(name, per_item, value, low, high, f"{method}; of n = {n}")
    low, high = max(0.0, value - Z * error), min(1.0, value + Z * error)
    return CaptionScore(
        name, per_item, value, low, high, f"jackknife over captions, 95%; of n = {n}"
    )


def _count_exclusive(line: Sequence[Hashable], counts: Counter[Hashable]) -> int:
    """Number of distinct elements that occur in this line only."""
    return sum(
        1 for element, occurrences in Counter(line).items() if counts[element] == occurrences
    )
