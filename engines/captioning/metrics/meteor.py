"""METEOR (Lavie and Agarwal 2007), computed by NLTK's `meteor_score`.

English words match exactly, by Porter stem, or by synonym where NLTK finds a WordNet; words of
other languages match exactly. Korean is scored by two rules, each under its own name. The Java
program METEOR 1.5 differs by ten points and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from engines.captioning.metrics import CaptionScore, mean_score, validate_captions
from engines.captioning.metrics.tokenizers import Tokenizer, get_tokenizers


def score(
    candidates: Sequence[str], references: Sequence[Sequence[str]], language: str
) -> list[CaptionScore]:
    """METEOR of each caption against the best of its references, by each rule of the language.

    Raises:
        ValueError: see `validate_captions`.
    """
    validate_captions(candidates, references)
    return [
        score_by_rule(candidates, references, language, tokenizer)
        for tokenizer in get_tokenizers(language)
    ]


def score_by_rule(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    language: str,
    tokenizer: Tokenizer,
) -> CaptionScore:
    """METEOR of each caption, its words as `tokenizer` splits them."""
    from nltk.translate.meteor_score import meteor_score

    stemmer, wordnet, stages = _matching_stages(language)
    values = [
        meteor_score(
            [tokenizer.split(text) for text in texts], tokenizer.split(candidate),
            preprocess=str, stemmer=stemmer, wordnet=wordnet,
        )
        for candidate, texts in zip(candidates, references, strict=True)
    ]  # fmt: skip
    return mean_score(f"METEOR ({stages}, {tokenizer.name})", np.asarray(values, np.float64))


class ExactMatch:
    """Replaces NLTK's stemmer and WordNet in a stage that must match nothing."""

    def stem(self, word: str) -> str:
        """The word itself."""
        return word

    def synsets(self, _word: str) -> list[Any]:
        """No synsets."""
        return []


def _matching_stages(language: str) -> tuple[Any, Any, str]:
    """Stemmer, WordNet, and the names of the stages in which words match."""
    if language != "en":
        return ExactMatch(), ExactMatch(), "exact"
    wordnet = find_wordnet()
    if wordnet is None:
        return _porter_stemmer(), ExactMatch(), "exact+stem"
    # NLTK looks up the synonyms of stems: `automobile` as `automobil`, which has none.
    stages = f"exact+stem+synonym of stems by WordNet {wordnet.get_version()}"
    return _porter_stemmer(), wordnet, stages


@cache
def find_wordnet() -> Any | None:
    """NLTK's reader of the WordNet in its data folders (NLTK_DATA); None: missing or damaged."""
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except (LookupError, OSError, ValueError, AssertionError):
        return None
    wordnet.synsets = cache(wordnet.synsets)
    return wordnet


@cache
def _porter_stemmer() -> Any:
    """NLTK's Porter stemmer; stems are cached, since captions repeat words."""
    from nltk.stem.porter import PorterStemmer

    stemmer = PorterStemmer()
    stemmer.stem = cache(stemmer.stem)
    return stemmer
