"""Evaluation on whole corpora: encode, search and score, timed separately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from torch import Tensor

from engines import messages
from engines.emitter import Emitter, EngineError
from engines.retrieval.data.dataset import EvaluationSplit, SearchCorpus
from engines.retrieval.data.items import ItemStore, Rows
from engines.retrieval.evaluation import metrics, predictions
from engines.retrieval.evaluation.metrics import Scores
from engines.retrieval.index.encoding import CorpusEncoder, EncodedItems
from engines.retrieval.index.indexes import ExactIndex, FaissIndex, SearchIndex
from engines.retrieval.models import max_sim
from engines.retrieval.params import Modality, Params
from results.statistics import Interval, bootstrap_means

SUFFIX: Final[Mapping[Modality, str]] = {
    "both": "", "text": "[text only]", "image": "[image only]", "shuffled": "[shuffled images]",
}  # fmt: skip
ABLATED: Final = ("recall@1", "recall@5", "recall@10", "mrr@10")
"""Metrics of the query ablations."""
CHANCES: Final = (1, 5, 10, 100)
"""K whose chance recall is sent: those that reports show."""
COMPARED: Final = 256
"""Queries on which an approximate search is compared with the exact one."""
NAMED: Final = 5


@dataclass
class _EncodedCorpus:
    """An encoded corpus with its index; `seconds`: cost, None once a split has reported it."""

    vectors: Tensor
    index: SearchIndex
    seconds: float | None


class RetrievalEvaluator:
    """Evaluates a model on splits; a corpus is encoded once for all of them."""

    def __init__(
        self,
        encoder: CorpusEncoder,
        texts: ItemStore,
        images: ItemStore,
        params: Params,
        emit: Emitter,
    ) -> None:
        self._encoder = encoder
        self._texts = texts
        self._images = images
        self._params = params
        self._emit = emit
        self._corpora: dict[str, _EncodedCorpus] = {}

    def run(self, split: EvaluationSplit, run_dir: Path) -> messages.Evaluation:
        """Send metrics and cost of a split, and write its predictions."""
        _report_missing_positives(split, self._emit)
        before, first = self._encoder.batches, self._encoder.first_batch_seconds is None
        corpus = self._corpus(split.corpus, run_dir)
        paid, corpus.seconds = corpus.seconds, None
        self._emit.phase("encode", f"queries of {split.name}")
        began = self._now()
        queries = self._encoder.encode(split.queries, "query", self._texts, self._images)
        whole = queries.fuse()
        self._emit.phase("search", split.name)
        searching = self._now()
        scores, rows = corpus.index.search(whole, self._params.search_depth)
        searched = self._now()
        self._emit.phase("eval", split.name)
        self._score(split, scores, rows, run_dir)
        self._ablate(split, queries, corpus.index, run_dir)
        if self._params.search == "faiss-ivf":
            self._compare(split, whole, corpus.vectors, rows)
        cost = messages.Evaluation(
            split=split.name,
            queries=len(split.ids),
            passages=len(split.corpus.ids),
            batches=self._encoder.batches - before,
            depth=rows.shape[1],
            search=self._params.search,
            precision=self._params.search_precision if self._params.search == "exact" else "fp32",
            time_to_first_batch=self._encoder.first_batch_seconds if first else None,
            corpus_seconds=paid,
            query_seconds=searching - began,
            search_seconds=searched - searching,
            score_seconds=self._now() - searched,
        )
        self._emit.send(cost)
        return cost

    def _now(self) -> float:
        """Seconds since the attempt's start, after waiting for the device."""
        self._encoder.synchronize()
        return self._emit.now()

    def _corpus(self, corpus: SearchCorpus, run_dir: Path) -> _EncodedCorpus:
        if corpus.fingerprint not in self._corpora:
            self._emit.phase("encode", f"corpus of {len(corpus.ids)} passages")
            began = self._now()
            encoded = self._encoder.encode(corpus.passages, "passage", self._texts, self._images)
            vectors = encoded.fuse()
            index = self._index(vectors, run_dir if encoded.storage.uses_file else None)
            self._corpora[corpus.fingerprint] = _EncodedCorpus(vectors, index, self._now() - began)
        return self._corpora[corpus.fingerprint]

    def _index(self, vectors: Tensor, folder: Path | None) -> SearchIndex:
        params = self._params
        late_score = max_sim.score if vectors.ndim == 3 else None
        if params.search == "exact":
            return ExactIndex(vectors, params.search_precision, late_score)
        if late_score is not None:
            raise EngineError(
                f"search = {params.search}: FAISS compares one vector per item; with "
                "scoring = late use search = exact"
            )
        return FaissIndex(vectors, params.search, params.search_probes, folder)

    def _score(
        self, split: EvaluationSplit, ranked_scores: Tensor, rows: Tensor, run_dir: Path
    ) -> None:
        ranked = rows.cpu().numpy()
        hits = metrics.hit_matrix(ranked, split.positives)
        scores = metrics.score_queries(hits, split.positive_counts)
        if self._params.pseudo_recall and any(split.answers):
            scores |= metrics.pseudo_recall(ranked, split.corpus.texts, split.answers)
        file = predictions.write_scores(run_dir, split.name, split, ranked, hits, scores)
        predictions.write_trec(run_dir, split, ranked, ranked_scores.cpu().numpy())
        predictions.write_qrels(run_dir, split)
        self._send(split, scores, "", file)
        _report_depth(split, rows.shape[1], self._emit)
        self._send_chance(split, rows.shape[1])

    def _ablate(
        self, split: EvaluationSplit, queries: EncodedItems, index: SearchIndex, run_dir: Path
    ) -> None:
        for modality in self._params.evaluate_modalities:
            if modality == "both":
                continue
            self._emit.check_stop()
            _, rows = index.search(queries.fuse(modality), self._params.search_depth)
            ranked = rows.cpu().numpy()
            hits = metrics.hit_matrix(ranked, split.positives)
            scores = metrics.score_queries(hits, split.positive_counts)
            name = f"{split.name}.{modality}"
            file = predictions.write_scores(run_dir, name, split, ranked, hits, scores)
            self._send(
                split, {k: scores[k] for k in ABLATED if k in scores}, SUFFIX[modality], file
            )

    def _send(
        self, split: EvaluationSplit, scores: Mapping[str, Scores], suffix: str, file: str
    ) -> None:
        """Send all metrics of a ranking; those of the same queries share their resamples."""
        groups: dict[bytes, list[str]] = {}
        for name, values in scores.items():
            groups.setdefault((~np.isnan(values)).tobytes(), []).append(name)
        for key, names in groups.items():
            has_value = np.frombuffer(key, bool)
            if not has_value.any():
                continue
            stacked = np.stack([scores[name][has_value] for name in names])
            sampled = bootstrap_means(stacked, resamples=1000, seed=0)
            for name, values, interval in zip(names, stacked, sampled, strict=True):
                metric = _mean_metric(name + suffix, split.name, values, interval)
                self._emit.send(metric.model_copy(update={"scores_file": file}))

    def _send_chance(self, split: EvaluationSplit, depth: int) -> None:
        counts, size = np.asarray([len(p) for p in split.positives]), len(split.corpus.ids)
        for k in (k for k in metrics.cutoffs(depth) if k in CHANCES):
            self._emit.send(
                messages.Metric(
                    name=f"recall@{k}[chance]",
                    value=metrics.chance_recall(k, counts, size),
                    split=split.name,
                    n=len(split.ids),
                    method=f"expected of a random order of {size} passages",
                )
            )

    def _compare(
        self, split: EvaluationSplit, queries: Tensor, vectors: Tensor, rows: Tensor
    ) -> None:
        """Send the share of the exact top k that an approximate search found."""
        spread = np.linspace(0, len(queries) - 1, min(COMPARED, len(queries))).astype(np.int64)
        _, exact_rows = ExactIndex(vectors).search(queries[spread], 100)
        approximate, exact = rows.cpu().numpy()[spread], exact_rows.cpu().numpy()
        names = [k for k in (10, 100) if k <= min(exact.shape[1], approximate.shape[1])]
        if not names:
            return
        shares = [_overlap(approximate[:, :k], exact[:, :k]) for k in names]
        sampled = bootstrap_means(np.stack(shares))
        for k, share, interval in zip(names, shares, sampled, strict=True):
            self._emit.send(_mean_metric(f"search_recall@{k}", split.name, share, interval))


def _mean_metric(name: str, split: str, values: Scores, interval: Interval) -> messages.Metric:
    return messages.Metric(
        name=name,
        value=float(values.mean()),
        split=split,
        n=len(values),
        low=interval.low,
        high=interval.high,
        method=interval.method,
    )


def make_epoch_timing(costs: Sequence[messages.Evaluation]) -> messages.Timing:
    """`Timing` of an evaluation: one epoch is encoding and searching over every split once."""
    seconds = sum(cost.epoch_seconds for cost in costs)
    queries = sum(cost.queries for cost in costs)
    timing = messages.Timing(
        time_to_first_step=next((c.time_to_first_batch for c in costs), None),
        epoch_wall_seconds=seconds,
        epoch_steps=sum(c.batches for c in costs),
        samples_per_second=queries / seconds if seconds else None,
    )
    return timing.with_reason("an evaluation has no optimizer steps")


def _overlap(approximate: Rows, exact: Rows) -> Scores:
    """Share of `exact` in `approximate`, per query."""
    pairs = zip(approximate, exact, strict=True)
    return np.asarray([np.isin(best, near).mean() for near, best in pairs], np.float64)


def _report_missing_positives(split: EvaluationSplit, emit: Emitter) -> None:
    """Send a notice of queries without a positive in the corpus, whose recall is 0."""
    without = [i for i, rows in enumerate(split.positives) if not len(rows)]
    if not without:
        return
    share = len(without) / len(split.ids)
    named = ", ".join(split.ids[i] for i in without[:NAMED])
    more = ", …" if len(without) > NAMED else ""
    emit.notice(
        "positives-missing",
        f"{split.name}: {len(without)} of {len(split.ids)} queries ({share:.1%}) have no positive "
        f"among the {len(split.corpus.ids)} passages; their recall is 0: {named}{more}",
        len(without),
    )


def _report_depth(split: EvaluationSplit, depth: int, emit: Emitter) -> None:
    cutoffs: Sequence[int] = [k for k in metrics.KS if k > depth]
    if cutoffs:
        named = ", ".join(map(str, cutoffs))
        emit.notice(
            "metrics-depth",
            f"{split.name}: {depth} passages were ranked; K = {named} is deeper and left out",
        )
