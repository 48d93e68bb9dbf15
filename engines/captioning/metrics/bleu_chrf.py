"""BLEU and chrF by sacrebleu, for comparison with published numbers.

BLEU pools the n-gram counts of all captions; its bootstrap pools those of the drawn captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from engines.captioning.metrics import LEVEL, RESAMPLES, CaptionScore, mean_score, validate_captions
from engines.captioning.metrics.tokenizers import get_tokenizer

ORDERS: Final = 4


def score(
    candidates: Sequence[str], references: Sequence[Sequence[str]], language: str
) -> list[CaptionScore]:
    """BLEU-4 over all captions, and chrF2 as a mean over captions; both 0 to 100.

    Raises:
        ValueError: see `validate_captions`.
    """
    validate_captions(candidates, references)
    return [score_bleu(candidates, references, language), score_chrf(candidates, references)]


def score_bleu(
    candidates: Sequence[str], references: Sequence[Sequence[str]], language: str
) -> CaptionScore:
    """Corpus BLEU-4; per caption, smoothed sentence BLEU of the n-gram orders that it has."""
    from sacrebleu.metrics.bleu import BLEU

    sacrebleu_tokenizer, tokenizer_name = _tokenizer_names(language)
    if language == "ko":
        candidates = [_join_tokens(text, language) for text in candidates]
        references = [[_join_tokens(text, language) for text in texts] for texts in references]
    corpus_bleu, sentence_bleu = (
        BLEU(tokenize=sacrebleu_tokenizer, lowercase=True),
        BLEU(tokenize=sacrebleu_tokenizer, lowercase=True, effective_order=True),
    )
    sentence_scores: list[Any] = [
        sentence_bleu.sentence_score(text, list(texts))
        for text, texts in zip(candidates, references, strict=True)
    ]
    counts = np.asarray(
        [
            [*sentence.counts, *sentence.totals, sentence.sys_len, sentence.ref_len]
            for sentence in sentence_scores
        ],
        np.int64,
    )
    drawn = np.random.default_rng(0).integers(0, len(counts), (RESAMPLES, len(counts)))
    values = np.asarray([_pooled_bleu(corpus_bleu, counts[rows].sum(0)) for rows in drawn])
    tail = (1 - LEVEL) / 2
    low, high = (float(edge) for edge in np.quantile(values, [tail, 1 - tail]))
    return CaptionScore(
        f"BLEU-4 (sacrebleu {_sacrebleu_version()}, {tokenizer_name})",
        np.asarray([sentence.score for sentence in sentence_scores], np.float64),
        _pooled_bleu(corpus_bleu, counts.sum(0)),
        low if len(counts) > 1 else None,
        high if len(counts) > 1 else None,
        f"bootstrap over captions, {RESAMPLES}, {LEVEL:.0%}; all captions scored as one text",
    )


def score_chrf(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScore:
    """chrF2 (Popović 2015): character n-grams, independent of a tokenizer."""
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF(lowercase=True)
    scores = [
        metric.sentence_score(candidate, list(texts)).score
        for candidate, texts in zip(candidates, references, strict=True)
    ]
    name = f"chrF2 (sacrebleu {_sacrebleu_version()}, mean of captions)"
    return mean_score(name, np.asarray(scores, np.float64))


def _pooled_bleu(metric: Any, sums: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    counts, totals = sums[:ORDERS].tolist(), sums[ORDERS : 2 * ORDERS].tolist()
    lengths = sums[2 * ORDERS :].tolist()
    result = metric.compute_bleu(counts, totals, lengths[0], lengths[1], smooth_method="exp")
    return float(result.score)


def _tokenizer_names(language: str) -> tuple[str, str]:
    """sacrebleu's name of the tokenizer of a language, and its name in metrics."""
    match language:
        case "ko":
            return "none", get_tokenizer(language).name
        case "zh" | "ja" | "th":
            return "char", "char"
    return "13a", "13a"


def _join_tokens(text: str, language: str) -> str:
    return " ".join(get_tokenizer(language).split(text))


def _sacrebleu_version() -> str:
    from importlib.metadata import version

    return ".".join(version("sacrebleu").split(".")[:2])
