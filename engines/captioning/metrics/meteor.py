"""METEOR: matched words of caption and reference, with a penalty for fragmented order.

Implements Lavie and Agarwal 2007 with the parameters and the alignment that NLTK uses
(alpha 0.9, beta 3, gamma 0.5; stages exact, stem, synonym; matched greedily from the end), so the
scores are NLTK's, not those of the Java program 1.5, which differ by ten points and more. Unlike
NLTK, synonyms are looked up for words: NLTK looks up stems (`automobile` -> `automobil`), which
have almost none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Final

import numpy as np

from engines.captioning.metrics import CaptionScore, mean_score, validate_captions
from engines.captioning.metrics.tokenizers import get_tokenizer
from engines.captioning.metrics.wordnet import WordNet, find_wordnet

ALPHA: Final = 0.9
BETA: Final = 3.0
GAMMA: Final = 0.5

Pairs = list[tuple[int, int]]
Test = Callable[[str, str], bool]


def score(
    candidates: Sequence[str], references: Sequence[Sequence[str]], language: str
) -> CaptionScore:
    """METEOR of each caption against the best of its references.

    Raises:
        ValueError: see `validate_captions`.
    """
    validate_captions(candidates, references)
    splitter = get_tokenizer(language)
    stages, stage_names = _matching_stages(language)
    values = [
        max(score_pair(splitter.split(candidate), splitter.split(text), stages) for text in texts)
        for candidate, texts in zip(candidates, references, strict=True)
    ]
    return mean_score(f"METEOR ({stage_names}, {splitter.name})", np.asarray(values, np.float64))


def score_pair(candidate: Sequence[str], reference: Sequence[str], stages: Sequence[Test]) -> float:
    """METEOR of two lists of words; 0 when nothing matches."""
    pairs = align_words(candidate, reference, stages)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(candidate), len(pairs) / len(reference)
    harmonic = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    penalty = GAMMA * (_chunks(pairs) / len(pairs)) ** BETA
    return float((1 - penalty) * harmonic)


def align_words(
    candidate: Sequence[str], reference: Sequence[str], stages: Sequence[Test]
) -> Pairs:
    """Pairs of matching positions in the order of the candidate.

    Each stage matches the words that earlier stages left unmatched.
    """
    open_candidate = list(range(len(candidate)))[::-1]
    open_reference = list(range(len(reference)))[::-1]
    pairs: Pairs = []
    for test in stages:
        for position in tuple(open_candidate):
            match = next(
                (t for t in open_reference if test(candidate[position], reference[t])), None
            )
            if match is not None:
                pairs.append((position, match))
                open_candidate.remove(position)
                open_reference.remove(match)
    return sorted(pairs)


def _chunks(pairs: Pairs) -> int:
    """Number of runs of matches that are adjacent in both texts."""
    return 1 + sum((b[0] - a[0], b[1] - a[1]) != (1, 1) for a, b in pairwise(pairs))


def _matching_stages(language: str) -> tuple[list[Test], str]:
    """Tests of two words from strict to loose, and their names; English has stems and synonyms."""
    if language != "en":
        return [_match_exact], "exact"
    stem = _porter_stemmer()
    stages: list[Test] = [_match_exact, lambda first, second: stem(first) == stem(second)]
    lexicon = find_wordnet()
    if lexicon is None:
        return stages, "exact+stem"
    return [*stages, _synonym_test(lexicon)], f"exact+stem+synonym by {lexicon.name}"


def _match_exact(first: str, second: str) -> bool:
    return first == second


def _synonym_test(lexicon: WordNet) -> Test:
    synonyms: Callable[[str], Collection[str]] = cache(lexicon.synonyms)
    return lambda first, second: second in synonyms(first)


@cache
def _porter_stemmer() -> Callable[[str], str]:
    """NLTK's Porter stemmer, with its few irregular forms (`lying` -> `lie`)."""
    from nltk.stem.porter import PorterStemmer

    stemmer: Any = PorterStemmer()
    stem: Callable[[str], str] = cache(stemmer.stem)
    return stem
