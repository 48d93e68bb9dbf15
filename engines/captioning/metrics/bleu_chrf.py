"""BLEU and chrF, by sacrebleu: the numbers that other papers can be compared with.

Separate from the own scores, because here the library is the definition; only the intervals are
ours. BLEU pools the counts of all captions, so its bootstrap pools those of the drawn ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from engines.captioning.metrics import LEVEL, RESAMPLES, Scored, checked, mean_score
from engines.captioning.metrics.tokenizers import tokenizer

ORDERS: Final = 4


def score(
    candidates: Sequence[str], references: Sequence[Sequence[str]], language: str
) -> list[Scored]:
    """BLEU-4 over all captions, and chrF2 as a mean over captions; both 0 to 100.

    Raises:
        ValueError: see `checked`.
    """
    checked(candidates, references)
    return [bleu(candidates, references, language), chrf(candidates, references)]


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]], language: str) -> Scored:
    """BLEU-4 of the whole set; each caption's own is sentence BLEU (orders it has, smoothed)."""
    from sacrebleu.metrics.bleu import BLEU

    way, said = _tokens(language)
    if language == "ko":
        candidates = [_joined(one, language) for one in candidates]
        references = [[_joined(one, language) for one in many] for many in references]
    whole, single = (
        BLEU(tokenize=way, lowercase=True),
        BLEU(tokenize=way, lowercase=True, effective_order=True),
    )
    found: list[Any] = [
        single.sentence_score(one, list(many))
        for one, many in zip(candidates, references, strict=True)
    ]
    counts = np.asarray([[*f.counts, *f.totals, f.sys_len, f.ref_len] for f in found], np.int64)
    drawn = np.random.default_rng(0).integers(0, len(counts), (RESAMPLES, len(counts)))
    values = np.asarray([_pooled(whole, counts[rows].sum(0)) for rows in drawn])
    tail = (1 - LEVEL) / 2
    low, high = (float(edge) for edge in np.quantile(values, [tail, 1 - tail]))
    return Scored(
        f"BLEU-4 (sacrebleu {_version()}, {said})",
        np.asarray([f.score for f in found], np.float64),
        _pooled(whole, counts.sum(0)),
        low if len(counts) > 1 else None,
        high if len(counts) > 1 else None,
        f"bootstrap over captions, {RESAMPLES}, {LEVEL:.0%}; all captions scored as one text",
    )


def chrf(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Scored:
    """chrF2 (Popović 2015): letters, no tokenizer, so the same test in every language."""
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF(lowercase=True)
    found = [
        metric.sentence_score(one, list(many)).score
        for one, many in zip(candidates, references, strict=True)
    ]
    name = f"chrF2 (sacrebleu {_version()}, mean of captions)"
    return mean_score(name, np.asarray(found, np.float64))


def _pooled(metric: Any, sums: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    counts, totals = sums[:ORDERS].tolist(), sums[ORDERS : 2 * ORDERS].tolist()
    lengths = sums[2 * ORDERS :].tolist()
    found = metric.compute_bleu(counts, totals, lengths[0], lengths[1], smooth_method="exp")
    return float(found.score)


def _tokens(language: str) -> tuple[str, str]:
    """sacrebleu's tokenizer, and the name of the way that words were found."""
    match language:
        case "ko":
            return "none", tokenizer(language).name
        case "zh" | "ja" | "th":
            return "char", "char"
    return "13a", "13a"


def _joined(text: str, language: str) -> str:
    return " ".join(tokenizer(language).split(text))


def _version() -> str:
    from importlib.metadata import version

    return ".".join(version("sacrebleu").split(".")[:2])
