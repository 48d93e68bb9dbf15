"""CIDEr-D: n-grams that a caption shares with its references, weighed by how rare they are.

Vedantam et al. 2015, sections 4 and 5: tf-idf vectors of 1- to 4-grams, counts clipped, a Gaussian
penalty for other lengths (sigma 6), the mean over n times 10. Document frequencies are those of the
evaluated references, so that values of different splits are not comparable, and one alone is 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from engines.captioning.metrics import Scored, checked, mean_score
from engines.captioning.metrics.tokenizers import ngrams, tokenizer

LONGEST: Final = 4
SIGMA: Final = 6.0

Gram = tuple[str, ...]
Vector = list[dict[Gram, float]]
"""Weights of n-grams, for n from 1."""


def score(candidates: Sequence[str], references: Sequence[Sequence[str]], language: str) -> Scored:
    """CIDEr-D of each caption, 0 to 10; captions of fewer than four words cannot reach 10.

    Raises:
        ValueError: see `checked`.
    """
    checked(candidates, references)
    way = tokenizer(language)
    split = [[way.split(one) for one in many] for many in references]
    seen = Counter(gram for many in split for gram in {g for one in many for g in _grams(one)})
    values = [
        cider(way.split(one), many, seen, len(split))
        for one, many in zip(candidates, split, strict=True)
    ]
    remark = f"document frequencies of these {len(split)} references"
    return mean_score(f"CIDEr-D ({way.name})", np.asarray(values, np.float64), remark)


def cider(
    candidate: list[str],
    references: Sequence[list[str]],
    seen: Mapping[Gram, int],
    documents: int,
) -> float:
    """CIDEr-D of one caption. `seen`: how many of the `documents` have the n-gram."""
    mine = _vector(candidate, seen, documents)
    total = 0.0
    for other in references:
        apart = math.exp(-((len(candidate) - len(other)) ** 2) / (2 * SIGMA**2))
        theirs = _vector(other, seen, documents)
        total += apart * sum(map(_likeness, mine, theirs)) / LONGEST
    return 10 * total / len(references)


def _likeness(mine: Mapping[Gram, float], theirs: Mapping[Gram, float]) -> float:
    """Cosine with each of the caption's weights clipped to the reference's."""
    lengths = math.sqrt(sum(w * w for w in mine.values()) * sum(w * w for w in theirs.values()))
    shared = sum(min(weight, theirs[g]) * theirs[g] for g, weight in mine.items() if g in theirs)
    return shared / lengths if lengths else 0.0


def _vector(words: list[str], seen: Mapping[Gram, int], documents: int) -> Vector:
    return [
        {
            gram: often * (math.log(documents) - math.log(max(1, seen.get(gram, 0))))
            for gram, often in Counter(ngrams(words, n)).items()
        }
        for n in range(1, LONGEST + 1)
    ]


def _grams(words: list[str]) -> list[Gram]:
    return [gram for n in range(1, LONGEST + 1) for gram in ngrams(words, n)]
