"""CIDEr-D: similarity of the tf-idf vectors of n-grams of a caption and its references.

Vedantam et al. 2015, sections 4 and 5: tf-idf vectors of 1- to 4-grams, counts clipped, a Gaussian
penalty for other lengths (sigma 6), the mean over n times 10. Document frequencies are those of the
evaluated references: values of different splits are not comparable, and one caption alone has 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from engines.captioning.metrics import CaptionScore, mean_score, validate_captions
from engines.captioning.metrics.tokenizers import get_tokenizer, ngrams

LONGEST: Final = 4
SIGMA: Final = 6.0

Gram = tuple[str, ...]
Vector = list[dict[Gram, float]]
"""Weights of n-grams, for n from 1."""


def score(
    candidates: Sequence[str], references: Sequence[Sequence[str]], language: str
) -> CaptionScore:
    """CIDEr-D of each caption, 0 to 10; captions of fewer than four words cannot reach 10.

    Raises:
        ValueError: see `validate_captions`.
    """
    validate_captions(candidates, references)
    splitter = get_tokenizer(language)
    split = [[splitter.split(text) for text in texts] for texts in references]
    frequencies = Counter(
        gram for texts in split for gram in {g for text in texts for g in _all_ngrams(text)}
    )
    values = [
        score_caption(splitter.split(text), texts, frequencies, len(split))
        for text, texts in zip(candidates, split, strict=True)
    ]
    remark = f"document frequencies of these {len(split)} references"
    return mean_score(f"CIDEr-D ({splitter.name})", np.asarray(values, np.float64), remark)


def score_caption(
    candidate: list[str],
    references: Sequence[list[str]],
    frequencies: Mapping[Gram, int],
    documents: int,
) -> float:
    """CIDEr-D of one caption. `frequencies`: how many of the `documents` contain each n-gram."""
    candidate_vector = _tf_idf(candidate, frequencies, documents)
    total = 0.0
    for reference in references:
        length_penalty = math.exp(-((len(candidate) - len(reference)) ** 2) / (2 * SIGMA**2))
        reference_vector = _tf_idf(reference, frequencies, documents)
        total += (
            length_penalty * sum(map(_clipped_cosine, candidate_vector, reference_vector)) / LONGEST
        )
    return 10 * total / len(references)


def _clipped_cosine(candidate: Mapping[Gram, float], reference: Mapping[Gram, float]) -> float:
    """Cosine with the weights of the candidate clipped to those of the reference."""
    norms = math.sqrt(
        sum(w * w for w in candidate.values()) * sum(w * w for w in reference.values())
    )
    shared = sum(
        min(weight, reference[g]) * reference[g]
        for g, weight in candidate.items()
        if g in reference
    )
    return shared / norms if norms else 0.0


def _tf_idf(words: list[str], frequencies: Mapping[Gram, int], documents: int) -> Vector:
    return [
        {
            gram: count * (math.log(documents) - math.log(max(1, frequencies.get(gram, 0))))
            for gram, count in Counter(ngrams(words, n)).items()
        }
        for n in range(1, LONGEST + 1)
    ]


def _all_ngrams(words: list[str]) -> list[Gram]:
    return [gram for n in range(1, LONGEST + 1) for gram in ngrams(words, n)]
