"""Retrieval metrics per query, in numpy. Definitions and sources: docs/retrieval.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

KS: Final = (1, 5, 10, 50)
CUT: Final = 10
"""Cut-off of MRR and nDCG."""

Scores = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def hit_matrix(ranked: Rows, positives: Sequence[Rows]) -> npt.NDArray[np.bool_]:
    """[Q, K]: is the passage at this rank one of the query's positives?"""
    hits = [np.isin(row, wanted) for row, wanted in zip(ranked, positives, strict=True)]
    return np.asarray(hits, bool).reshape(ranked.shape)


def per_query(hits: npt.NDArray[np.bool_], positive_counts: Rows) -> dict[str, Scores]:
    """Recall@K (a hit rate: any positive in the top K), MRR@10 and nDCG@10 of each query.

    nDCG has binary gains; its ideal ranks all positives first, also those outside the corpus.
    """
    ranks = np.arange(hits.shape[1]) + 1
    scores: dict[str, Scores] = {
        f"recall@{k}": np.asarray(hits[:, :k].any(1), np.float64) for k in KS
    }
    reciprocal = np.where(hits[:, :CUT], 1 / ranks[:CUT], 0.0)
    scores[f"mrr@{CUT}"] = np.asarray(reciprocal.max(1, initial=0.0))
    discounts = 1 / np.log2(np.arange(CUT) + 2)
    gained = hits[:, :CUT] @ discounts[: hits[:, :CUT].shape[1]]
    ideal = np.cumsum(discounts)[np.clip(positive_counts, 1, CUT) - 1]
    scores[f"ndcg@{CUT}"] = gained / ideal
    return scores


def pseudo_recall(
    ranked: Rows, texts: Sequence[str], answers: Sequence[Sequence[str]]
) -> dict[str, Scores]:
    """Pseudo-Recall@K of each query that has an answer, as FLMR defines it.

    1 if any of the top K passages contains any answer as a substring, without regard to case.
    Queries without an answer are left out (NaN): an empty answer would match everything.
    """
    depth = max(KS)
    first = np.full(len(ranked), np.inf)
    lowered: dict[int, str] = {}
    for query, (row, wanted) in enumerate(zip(ranked, answers, strict=True)):
        needles = [answer.strip().lower() for answer in wanted]
        if not needles:
            first[query] = np.nan
            continue
        for rank, passage in enumerate(row[:depth].tolist(), 1):
            text = lowered.setdefault(passage, texts[passage].lower())
            if any(needle in text for needle in needles):
                first[query] = rank
                break
    missing = np.isnan(first)
    return {f"pseudo_recall@{k}": np.where(missing, np.nan, first <= k) for k in KS}


def chance(k: int, positive_counts: Rows, corpus: int) -> float:
    """Recall@K that a random order of the corpus has in the mean."""
    miss = np.ones(len(positive_counts))
    for i in range(min(k, corpus)):
        miss *= np.clip((corpus - positive_counts - i) / (corpus - i), 0, 1)
    return float((1 - miss).mean())
