"""METEOR: matched words between caption and reference, punished for being out of order.

Own implementation of Lavie and Agarwal 2007 with the parameters and the alignment that NLTK uses
(alpha 0.9, beta 3, gamma 0.5; stages exact, stem, synonym; matched greedily from the end), so the
numbers are NLTK's, not those of the Java program 1.5, which differ by ten points and more. One
thing is done otherwise: synonyms are looked up for words, where NLTK looks up what its stemmer left
of them (`automobile` -> `automobil`) and so finds almost none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Final

import numpy as np

from engines.captioning.metrics import Scored, checked, mean_score
from engines.captioning.metrics.tokenizers import tokenizer
from engines.captioning.metrics.wordnet import WordNet, find

ALPHA: Final = 0.9
BETA: Final = 3.0
GAMMA: Final = 0.5

Pairs = list[tuple[int, int]]
Test = Callable[[str, str], bool]


def score(candidates: Sequence[str], references: Sequence[Sequence[str]], language: str) -> Scored:
    """METEOR of each caption against the best of its references.

    Raises:
        ValueError: see `checked`.
    """
    checked(candidates, references)
    way = tokenizer(language)
    stages, said = _stages(language)
    values = [
        max(meteor(way.split(one), way.split(other), stages) for other in many)
        for one, many in zip(candidates, references, strict=True)
    ]
    return mean_score(f"METEOR ({said}, {way.name})", np.asarray(values, np.float64))


def meteor(candidate: Sequence[str], reference: Sequence[str], stages: Sequence[Test]) -> float:
    """METEOR of two lists of words; 0 when nothing matches."""
    pairs = align(candidate, reference, stages)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(candidate), len(pairs) / len(reference)
    harmonic = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    penalty = GAMMA * (_chunks(pairs) / len(pairs)) ** BETA
    return float((1 - penalty) * harmonic)


def align(candidate: Sequence[str], reference: Sequence[str], stages: Sequence[Test]) -> Pairs:
    """Places that match, in the candidate's order: each stage pairs what the earlier ones left."""
    open_here = list(range(len(candidate)))[::-1]
    open_there = list(range(len(reference)))[::-1]
    pairs: Pairs = []
    for fits in stages:
        for here in tuple(open_here):
            found = next((t for t in open_there if fits(candidate[here], reference[t])), None)
            if found is not None:
                pairs.append((here, found))
                open_here.remove(here)
                open_there.remove(found)
    return sorted(pairs)


def _chunks(pairs: Pairs) -> int:
    """Runs of matches that are neighbours in both."""
    return 1 + sum((b[0] - a[0], b[1] - a[1]) != (1, 1) for a, b in pairwise(pairs))


def _stages(language: str) -> tuple[list[Test], str]:
    """Tests from strict to loose and their names. Only English has stems and synonyms."""
    if language != "en":
        return [_exact], "exact"
    stem = _porter()
    stages: list[Test] = [_exact, lambda one, other: stem(one) == stem(other)]
    lexicon = find()
    if lexicon is None:
        return stages, "exact+stem"
    return [*stages, _synonym(lexicon)], f"exact+stem+synonym by {lexicon.name}"


def _exact(one: str, other: str) -> bool:
    return one == other


def _synonym(lexicon: WordNet) -> Test:
    known: Callable[[str], Collection[str]] = cache(lexicon.synonyms)
    return lambda one, other: other in known(one)


@cache
def _porter() -> Callable[[str], str]:
    """NLTK's Porter stemmer, with its few irregular forms (`lying` -> `lie`)."""
    from nltk.stem.porter import PorterStemmer

    stemmer: Any = PorterStemmer()
    stem: Callable[[str], str] = cache(stemmer.stem)
    return stem
