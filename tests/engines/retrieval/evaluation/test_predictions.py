"""The files of an evaluation, read by others' tools; and what is said about its queries."""

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, Success, nDCG

from engines.emitter import Emitter
from engines.retrieval.data.dataset import EvaluationSplit, SearchCorpus
from engines.retrieval.data.pairs import ItemRows
from engines.retrieval.evaluation import evaluate, metrics, predictions
from results.statistics import bootstrap_mean, bootstrap_means

NOTHING = ItemRows(np.zeros(0, np.int64), np.zeros(0, np.int64))


def split_of(
    positives: list[list[int]], ids: list[str], asked: list[str], lost=()
) -> EvaluationSplit:
    """Query i has these rows as positives; those in `lost` have one more, outside the corpus."""
    named = [
        [ids[row] for row in rows] + ["gone"] * (i in lost) for i, rows in enumerate(positives)
    ]
    return EvaluationSplit(
        name="tiny", queries=NOTHING, ids=asked,
        positives=[np.asarray(rows, np.int64) for rows in positives], positive_ids=named,
        answers=[[] for _ in asked], corpus=SearchCorpus("f", NOTHING, ids, [""] * len(ids)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A ranking full of ties over ids that are hard on files, and the files of it."""
    rng = np.random.default_rng(0)
    size, depth = 300, 120
    ids = [f"p{i}" for i in range(size)]
    ids[:6] = ["with blank", "with_blank", 'a "quoted" one', "50%", "한국어\u3000글", "tab\there"]
    asked = [f"q {i}" for i in range(40)]
    positives = [sorted(rng.choice(size, rng.integers(1, 12), replace=False)) for _ in asked]
    positives[3] = []
    scores = rng.integers(0, 9, (40, size)).astype(np.float32) / 8
    for query, rows in enumerate(positives):
        scores[query, rows] += rng.integers(0, 4, len(rows)) / 8
    order = np.stack([np.lexsort((np.arange(size), -row)) for row in scores])[:, :depth]
    split = split_of([list(map(int, rows)) for rows in positives], ids, asked, lost=(3, 5))
    folder = tmp_path_factory.mktemp("run")
    predictions.write_trec(folder, split, order, np.take_along_axis(scores, order, 1))
    predictions.write_qrels(folder, split)
    hits = metrics.hit_matrix(order, split.positives)
    return folder / "predictions", metrics.score_queries(hits, split.positive_counts), split


MEASURES = {
    "recall@1": Success @ 1, "recall@5": Success @ 5, "recall@20": Success @ 20,
    "recall@100": Success @ 100, "mrr@10": RR @ 10, "ndcg@10": nDCG @ 10,
}  # fmt: skip


def test_ir_measures_finds_our_numbers_in_our_files(written):
    folder, ours, split = written
    qrels = list(ir_measures.read_trec_qrels(str(folder / "tiny.qrels")))
    run = list(ir_measures.read_trec_run(str(folder / "tiny.trec")))
    assert len(run) == 40 * 120
    oracle = {
        (str(v.measure), v.query_id): v.value
        for v in ir_measures.iter_calc(list(MEASURES.values()), qrels, run)
    }
    for name, measure in MEASURES.items():
        theirs = [oracle[str(measure), predictions.escape_trec_id(q)] for q in split.ids]
        np.testing.assert_allclose(ours[name], theirs, atol=1e-9, err_msg=name)
    assert 0 < ours["recall@1"].mean() < 1


def test_pytrec_eval_finds_our_numbers_in_our_files(written):
    folder, ours, split = written
    with (folder / "tiny.qrels").open() as qrels, (folder / "tiny.trec").open() as run:
        wanted, ranked = pytrec_eval.parse_qrel(qrels), pytrec_eval.parse_run(run)
    found = pytrec_eval.RelevanceEvaluator(wanted, {"success", "ndcg_cut"}).evaluate(ranked)
    for query, name in enumerate(split.ids):
        theirs = found[predictions.escape_trec_id(name)]
        assert theirs["success_5"] == ours["recall@5"][query], name
        assert theirs["ndcg_cut_10"] == pytest.approx(ours["ndcg@10"][query]), name


def test_ids_stay_apart_and_are_one_word(written):
    _, _, split = written
    words = [predictions.escape_trec_id(name) for name in [*split.corpus.ids, "", "%"]]
    assert len(set(words)) == len(words)
    assert all(len(word.split()) == 1 for word in words)
    assert predictions.escape_trec_id("with blank") == "with%20blank"
    assert predictions.escape_trec_id("p7") == "p7"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40))
def test_scores_fall_strictly_and_hardly_move(values):
    scores = np.sort(np.asarray([values], np.float32))[:, ::-1]
    fallen = predictions.make_strictly_falling(scores)
    assert (np.diff(fallen) < 0).all()
    assert (fallen <= scores + 0).all()
    np.testing.assert_allclose(fallen, scores, atol=40 * np.finfo(np.float32).eps)


def test_a_query_without_a_positive_in_the_corpus_is_counted_and_named():
    split = split_of([[0], [], [1], []], ["a", "b"], ["q0", "q1", "q2", "q3"], lost=(1, 2, 3))
    emit = Emitter()
    evaluate._report_missing_positives(split, emit)
    (notice,) = emit.sent
    assert notice.count == 2
    assert "2 of 4 queries (50.0%)" in notice.text
    assert notice.text.endswith("q1, q3")
    hits = metrics.hit_matrix(np.array([[0, 1]] * 4), split.positives)
    assert metrics.score_queries(hits, split.positive_counts)["recall@1"].tolist() == [1, 0, 0, 0]
    evaluate._report_missing_positives(split_of([[0]], ["a"], ["q"]), emit)
    assert len(emit.sent) == 1


@pytest.mark.parametrize(("depth", "deepest"), [(500, 500), (499, 100), (144, 100), (3, 1), (0, 0)])
def test_metrics_go_as_deep_as_the_ranking(depth, deepest):
    found = metrics.score_queries(np.zeros((2, depth), bool), np.array([1, 2]))
    recalls = [int(name.split("@")[1]) for name in found if name.startswith("recall")]
    assert recalls == [k for k in (1, 5, 10, 20, 50, 100, 500) if k <= deepest]
    emit = Emitter()
    evaluate._report_depth(split_of([[0]], ["a"], ["q"]), depth, emit)
    assert len(emit.sent) == (depth < 500)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pseudo_recall_is_the_rule_of_flmr(data):
    """The oracle is the sentence of the definition, answer by answer and passage by passage."""
    word = st.text("aAbß ", max_size=3)
    texts = data.draw(st.lists(st.text("aAbBßẞ. ", max_size=6), min_size=5, max_size=9))
    answers = data.draw(st.lists(st.lists(word, max_size=3), min_size=1, max_size=4))
    ranked = np.stack(
        [np.random.default_rng(i).permutation(len(texts)) for i, _ in enumerate(answers)]
    )
    found = metrics.pseudo_recall(ranked, texts, answers)
    assert list(found) == ["pseudo_recall@1", "pseudo_recall@5"]
    for query, given_answers in enumerate(answers):
        wanted = [a for a in given_answers if a.strip()]
        for k in (1, 5):
            hit = any(
                a.strip().lower() in texts[row].lower() for row in ranked[query, :k] for a in wanted
            )
            value = found[f"pseudo_recall@{k}"][query]
            assert np.isnan(value) if not wanted else value == hit


def test_many_metrics_have_the_intervals_of_single_ones():
    rng = np.random.default_rng(3)
    values = np.stack([
        rng.random(3000), rng.random(3000) < 0.3, np.zeros(3000), np.ones(3000),
        np.full(3000, 0.5), np.where(np.arange(3000) == 7, np.nan, 1.0),
    ])  # fmt: skip
    for row, interval in zip(values, bootstrap_means(values, 700, seed=5), strict=True):
        single = bootstrap_mean(row, 700, seed=5)
        assert interval.method == single.method
        if single.low is not None:
            assert interval[:2] == pytest.approx(single[:2], abs=1e-12)
    assert bootstrap_means(np.ones((2, 1)))[0].low is None
    assert bootstrap_means(np.empty((0, 9))) == []
