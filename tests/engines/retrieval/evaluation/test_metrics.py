"""Metrics of retrieval against ir_measures and simulation."""

import math

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, Success, nDCG

from engines.retrieval.evaluation import metrics


@pytest.fixture(scope="module")
def ranking():
    rng = np.random.default_rng(0)
    queries, corpus = 60, 200
    scores = rng.random((queries, corpus))
    positives = [
        np.sort(rng.choice(corpus, rng.integers(1, 15), replace=False)) for _ in range(queries)
    ]
    for query, rows in enumerate(positives):  # some are easy, so that all ranks occur
        scores[query, rows] += rng.random(len(rows)) * 0.3
    ranked = np.argsort(-scores, axis=1)[:, :50]
    return scores, ranked, positives


def test_metrics_are_those_of_ir_measures(ranking):
    scores, ranked, positives = ranking
    counts = np.array([len(p) for p in positives])
    found = metrics.score_queries(metrics.hit_matrix(ranked, positives), counts)
    qrels = [ir_measures.Qrel(str(q), str(d), 1) for q, rows in enumerate(positives) for d in rows]
    run = [
        ir_measures.ScoredDoc(str(q), str(d), scores[q, d])
        for q in range(len(ranked))
        for d in ranked[q]
    ]
    wanted = {
        "recall@1": Success @ 1, "recall@5": Success @ 5, "recall@10": Success @ 10,
        "recall@50": Success @ 50, "mrr@10": RR @ 10, "ndcg@10": nDCG @ 10,
    }  # fmt: skip
    oracle = {}
    for value in ir_measures.iter_calc(list(wanted.values()), qrels, run):
        oracle[str(value.measure), int(value.query_id)] = value.value
    for name, measure in wanted.items():
        expected = [oracle[str(measure), q] for q in range(len(ranked))]
        np.testing.assert_allclose(found[name], expected, atol=1e-9, err_msg=name)
    assert 0 < found["recall@1"].mean() < 1


def test_positives_outside_the_corpus_count_in_the_ideal():
    hits = metrics.hit_matrix(np.array([[3, 1, 2]]), [np.array([3])])
    gain = metrics.score_queries(hits, np.array([2]))["ndcg@10"][0]
    assert gain == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_pseudo_recall_as_flmr_defines_it():
    texts = ["Andorra la Vella is a city.", "A Cat.", "nothing", "concatenate", ""]
    ranked = np.array([[2, 0, 1, 3, 4], [2, 3, 1, 0, 4], [2, 1, 3, 0, 4], [0, 1, 2, 3, 4]])
    answers = [["ANDORRA LA VELLA"], ["dog", " cat "], [], ["unknown"]]
    found = metrics.pseudo_recall(ranked, texts, answers)
    assert list(found["pseudo_recall@1"][[0, 1, 3]]) == [0, 0, 0]
    assert list(found["pseudo_recall@5"][[0, 1, 3]]) == [1, 1, 0]
    assert all(np.isnan(values[2]) for values in found.values()), "no answer, no score"


def test_chance_is_what_random_orders_reach():
    rng = np.random.default_rng(0)
    counts, corpus = np.array([1, 2, 5]), 40
    draws = np.argsort(rng.random((4000, corpus)), axis=1)
    for k in (1, 10):
        simulated = np.mean([(draws[:, :k] < c).any(1).mean() for c in counts])
        assert metrics.chance_recall(k, counts, corpus) == pytest.approx(simulated, abs=0.02)
    assert metrics.chance_recall(10, np.array([1]), 5) == 1.0
