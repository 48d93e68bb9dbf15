"""Retrieval metrics per query, in numpy. Definitions and sources: docs/retrieval.md."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

KS: Final = (1, 5, 10, 20, 50, 100, 500)
"""Cut-offs of FLMR; its published numbers need the 500."""
CUT: Final = 10
"""Cut-off of MRR and nDCG."""

Scores = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def cutoffs(depth: int) -> tuple[int, ...]:
    """The K of Recall@K that a ranking of this depth has."""
    return tuple(k for k in KS if k <= depth)


def hit_matrix(ranked: Rows, positives: Sequence[Rows]) -> npt.NDArray[np.bool_]:
    """[Q, K]: whether the passage at this rank is a positive of the query."""
    hits = [
        np.isin(row, positive_rows) for row, positive_rows in zip(ranked, positives, strict=True)
    ]
    return np.asarray(hits, bool).reshape(ranked.shape)


def score_queries(hits: npt.NDArray[np.bool_], positive_counts: Rows) -> dict[str, Scores]:
    """Recall@K (a hit rate: any positive in the top K), MRR@10 and nDCG@10 of each query.

    K is at most the depth of the ranking. nDCG has binary gains; its ideal ranks all
    positives first, also those outside the corpus.
    """
    ranks = np.arange(hits.shape[1]) + 1
    scores: dict[str, Scores] = {
        f"recall@{k}": np.asarray(hits[:, :k].any(1), np.float64) for k in cutoffs(hits.shape[1])
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
    first = np.full(len(ranked), np.inf)
    lowered = {row: texts[row].lower() for row in np.unique(ranked).tolist()}
    for query, (row, query_answers) in enumerate(zip(ranked, answers, strict=True)):
        needles = _needles(query_answers)
        if not needles:
            first[query] = np.nan
            continue
        first[query] = _first_match_rank(needles, [lowered[passage] for passage in row.tolist()])
    missing = np.isnan(first)
    return {
        f"pseudo_recall@{k}": np.where(missing, np.nan, first <= k)
        for k in cutoffs(ranked.shape[1])
    }


def _needles(answers: Sequence[str]) -> list[str]:
    """Distinct lower-case answers, without those that contain another one."""
    distinct = sorted({answer.strip().lower() for answer in answers} - {""}, key=len)
    kept: list[str] = []
    for answer in distinct:
        if not any(shorter in answer for shorter in kept):
            kept.append(answer)
    return kept


def _first_match_rank(needles: Sequence[str], texts: Sequence[str]) -> float:
    """Rank of the first text that contains a needle, from 1; infinity when none does.

    Needle by needle is a third faster than text by text, but only within the first few: most
    queries find an answer there, and need not look for the others down to rank 500.
    """
    for start, stop in pairwise((0, min(5, len(texts)), min(50, len(texts)), len(texts))):
        best = stop
        for needle in needles:
            best = next((rank for rank in range(start, best) if needle in texts[rank]), best)
        if best < stop:
            return best + 1
    return np.inf


def chance_recall(k: int, positive_counts: Rows, corpus: int) -> float:
    """Expected Recall@K of a random order of the corpus."""
    miss = np.ones(len(positive_counts))
    for i in range(min(k, corpus)):
        miss *= np.clip((corpus - positive_counts - i) / (corpus - i), 0, 1)
    return float((1 - miss).mean())
