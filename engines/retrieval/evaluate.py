"""Evaluation on whole corpora: encode, search, score, and keep what every query scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from engines import protocol
from engines.emitter import Emitter
from engines.retrieval import metrics
from engines.retrieval.items import Items, Rows
from engines.retrieval.metrics import Scores
from engines.retrieval.params import Modality
from engines.retrieval.search import Encoded, Encoder, top_k
from engines.retrieval.subsets import SearchCorpus, Split
from results.statistics import bootstrap_mean

SUFFIX: Final[Mapping[Modality, str]] = {
    "both": "", "text": "[text only]", "image": "[image only]",
}  # fmt: skip
ABLATED: Final = ("recall@1", "recall@5", "recall@10", "mrr@10")
"""What is said of the query ablations."""


class Evaluator:
    """Evaluates one model on splits; a corpus is encoded once for all that search it."""

    def __init__(self, encoder: Encoder, texts: Items, images: Items, emit: Emitter) -> None:
        self._encoder = encoder
        self._texts = texts
        self._images = images
        self._emit = emit
        self._corpora: dict[str, Encoded] = {}

    def run(
        self, split: Split, modalities: Sequence[Modality], run_dir: Path, *, pseudo: bool
    ) -> None:
        """Send the metrics of a split and write its predictions."""
        corpus = self._corpus(split.corpus)
        self._emit.phase("encode", f"queries of {split.name}")
        queries = self._encoder.encode(split.queries, "query", self._texts, self._images)
        self._emit.phase("search", split.name)
        folder = run_dir / "predictions"
        folder.mkdir(exist_ok=True, mode=0o700)
        passages = corpus.fused()
        for modality in modalities:
            self._emit.check_stop()
            found, rows = top_k(queries.fused(modality), passages, max(metrics.KS))
            ranked = rows.cpu().numpy()
            hits = metrics.hit_matrix(ranked, split.positives)
            scores = metrics.per_query(hits, split.positive_counts)
            if modality == "both" and pseudo and any(split.answers):
                scores |= metrics.pseudo_recall(ranked, split.corpus.texts, split.answers)
            name = split.name if modality == "both" else f"{split.name}.{modality}"
            file = folder / f"{name}.jsonl"
            write_scores(file, split, ranked, hits, scores)
            if modality == "both":
                write_trec(folder / f"{name}.trec", split, ranked, found.cpu())
            kept = scores if modality == "both" else {k: scores[k] for k in ABLATED}
            self._send(split, kept, SUFFIX[modality], str(file.relative_to(run_dir)))
        self._send_chance(split)

    def _corpus(self, corpus: SearchCorpus) -> Encoded:
        if corpus.fingerprint not in self._corpora:
            self._emit.phase("encode", f"corpus of {len(corpus.ids)} passages")
            self._corpora[corpus.fingerprint] = self._encoder.encode(
                corpus.passages, "passage", self._texts, self._images
            )
        return self._corpora[corpus.fingerprint]

    def _send(self, split: Split, scores: Mapping[str, Scores], suffix: str, file: str) -> None:
        for name, values in scores.items():
            known = values[~np.isnan(values)]
            if not len(known):
                continue
            low, high, method = bootstrap_mean(known, resamples=1000, seed=0)
            self._emit.send(
                protocol.Metric(
                    name=name + suffix,
                    value=float(known.mean()),
                    split=split.name,
                    n=len(known),
                    low=low,
                    high=high,
                    method=method,
                    scores_file=file,
                )
            )

    def _send_chance(self, split: Split) -> None:
        for k in (1, 10):
            value = metrics.chance(k, split.positive_counts, len(split.corpus.ids))
            self._emit.send(
                protocol.Metric(
                    name=f"recall@{k}[chance]",
                    value=value,
                    split=split.name,
                    n=len(split.ids),
                    method=f"expected of a random order of {len(split.corpus.ids)} passages",
                )
            )


def write_scores(
    path: Path,
    split: Split,
    ranked: Rows,
    hits: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    scores: Mapping[str, Scores],
) -> None:
    """One JSON line per query: `id`, every score under its metric's name, `rank`, `top`.

    `rank`: of the first positive among the searched depth, from 1, or null. A score that the query
    does not have (no answer for pseudo-recall) is absent.
    """
    names = list(scores)
    with path.open("w", encoding="utf-8") as file:
        for query, name in enumerate(split.ids):
            places = np.flatnonzero(hits[query])
            values = {n: float(scores[n][query]) for n in names if not np.isnan(scores[n][query])}
            line = {
                "id": name,
                **values,
                "rank": int(places[0]) + 1 if len(places) else None,
                "top": [split.corpus.ids[row] for row in ranked[query, :10]],
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def write_trec(path: Path, split: Split, ranked: Rows, scores: torch.Tensor) -> None:
    """The ranking as a TREC run file: `query Q0 passage rank score tag`. Blanks in ids become _."""
    ids = [name.replace(" ", "_") for name in split.corpus.ids]
    with path.open("w", encoding="utf-8") as file:
        for query, name in enumerate(split.ids):
            asked = name.replace(" ", "_")
            lines = (
                f"{asked} Q0 {ids[row]} {rank} {score:.6f} workbench\n"
                for rank, (row, score) in enumerate(
                    zip(ranked[query].tolist(), scores[query].tolist(), strict=True), 1
                )
            )
            file.writelines(lines)
