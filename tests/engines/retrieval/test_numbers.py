"""Every number of the retrieval engine against something independent of it."""

import math

import ir_measures
import numpy as np
import pytest
import torch
from ir_measures import RR, Success, nDCG

from engines.emitter import EngineError
from engines.retrieval.data.items import ArrayItems, TokenItems, Vocabulary, batch_by_cost
from engines.retrieval.data.pairs import (
    NONE,
    ItemRows,
    TrainingPairs,
    drop_modality,
    gather_inputs,
    positive_matrix,
    sample_per_epoch,
)
from engines.retrieval.evaluation import metrics
from engines.retrieval.index.exact import top_k
from engines.retrieval.loss import contrastive
from engines.retrieval.models import layers


def unit_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=generator), dim=1)


def by_hand(q: torch.Tensor, p: torch.Tensor, positive: np.ndarray, scale: float) -> dict:
    """Loss, r@1 and duplicate rate by loops over single cosines."""
    size = len(q)
    s = [[scale * sum(a * b for a, b in zip(q[i], p[j], strict=True)) for j in range(size)]
         for i in range(size)]  # fmt: skip
    rows = columns = hits = duplicates = 0.0
    for i in range(size):
        ok = [j for j in range(size) if j == i or not positive[i][j]]
        rows -= s[i][i] - math.log(sum(math.exp(s[i][j]) for j in ok))
        ok = [k for k in range(size) if k == i or not positive[k][i]]
        columns -= s[i][i] - math.log(sum(math.exp(s[k][i]) for k in ok))
        best = max(range(size), key=lambda j: s[i][j])
        hits += positive[i][best]
        duplicates += any(positive[i][j] for j in range(size) if j != i)
    return {
        "loss": (rows + columns) / size / 2,
        "r@1": hits / size,
        "duplicate_rate": duplicates / size,
    }


@pytest.mark.parametrize("seed", range(5))
def test_loss_and_batch_metrics_are_those_of_loops(seed):
    rng = np.random.default_rng(seed)
    size = 7
    q, p = unit_rows(size, 6, seed).double(), unit_rows(size, 6, seed + 100).double()
    positive = rng.random((size, size)) < 0.2
    np.fill_diagonal(positive, True)
    loss, found = contrastive(q, p, torch.from_numpy(positive), torch.tensor(9.0))
    expected = by_hand(q.tolist(), p.tolist(), positive, 9.0)
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-5)
    assert found["r@1"].item() == pytest.approx(expected["r@1"])
    assert found["duplicate_rate"].item() == pytest.approx(expected["duplicate_rate"])
    assert found["temperature"].item() == pytest.approx(1 / 9)


def test_a_duplicate_passage_costs_nothing():
    """Two queries drew the same passage: with it as a negative the loss could not come near 0."""
    q = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    positive = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    masked, _ = contrastive(q, q, positive, torch.tensor(50.0))
    naive, _ = contrastive(q, q, torch.eye(3, dtype=torch.bool), torch.tensor(50.0))
    assert masked.item() < 1e-6
    assert naive.item() > 0.4


def test_batch_recall_is_not_fooled_by_hits_of_other_queries():
    """Each query prefers its neighbour's passage: 0, where counting any query's hit gives 1."""
    q = torch.eye(4)
    found = contrastive(q, q.roll(1, 0), torch.eye(4, dtype=torch.bool), torch.tensor(1.0))[1]
    assert found["r@1"].item() == 0.0


def test_the_loss_is_not_rounded_by_autocast():
    q, p = unit_rows(32, 16, 0), unit_rows(32, 16, 1)
    eye = torch.eye(32, dtype=torch.bool)
    exact, _ = contrastive(q, p, eye, torch.tensor(100.0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = contrastive(q, p, eye, torch.tensor(100.0))
    assert mixed.item() == exact.item()


# Metrics


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


# Search


@pytest.mark.parametrize("corpus", [30, 16_384 + 500])
def test_search_is_the_full_sort(corpus):
    queries, passages = unit_rows(300, 8, 0), unit_rows(corpus, 8, 1)
    scores, rows = top_k(queries, passages, 50)
    full = queries @ passages.T
    depth = min(50, corpus)
    expected = full.argsort(dim=1, descending=True, stable=True)[:, :depth]
    assert rows.shape == (300, depth)
    torch.testing.assert_close(scores, full.gather(1, expected))
    torch.testing.assert_close(full.gather(1, rows), full.gather(1, expected))


def test_equal_scores_are_ordered_by_row():
    passages = unit_rows(1, 4, 0).repeat(20, 1)
    _, rows = top_k(passages[:1], passages, 20)
    assert rows[0].tolist() == list(range(20))


# Items and pairs


def pool() -> TrainingPairs:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, 40)
    total = int(counts.sum())
    return TrainingPairs(
        ItemRows(np.arange(40), np.where(np.arange(40) % 3, np.arange(40), NONE)),
        ItemRows(np.arange(total), np.full(total, NONE)),
        rng.integers(0, 25, total),
        np.concatenate([[0], np.cumsum(counts)]),
    )


def test_positive_matrix_is_that_of_sets():
    records = pool()
    rows = np.array([5, 0, 17, 39, 5, 22])
    drawn = sample_per_epoch(records.offsets, rows, 1, 0)
    found = positive_matrix(records, rows, drawn)
    for i, row in enumerate(rows):
        mine = set(records.codes[records.offsets[row] : records.offsets[row + 1]])
        assert [bool(x) for x in found[i]] == [records.codes[d] in mine for d in drawn]
    assert found.diagonal().all()


def test_the_drawn_positive_depends_on_nothing_but_seed_epoch_and_record():
    offsets = pool().offsets
    rows = np.arange(40)
    drawn = sample_per_epoch(offsets, rows, 42, 3)
    shuffled = np.random.default_rng(5).permutation(40)
    assert np.array_equal(sample_per_epoch(offsets, shuffled, 42, 3), drawn[shuffled])
    assert np.array_equal(sample_per_epoch(offsets, rows[7:9], 42, 3), drawn[7:9])
    assert ((drawn >= offsets[:-1]) & (drawn < offsets[1:])).all()
    assert not np.array_equal(sample_per_epoch(offsets, rows, 42, 4), drawn)
    assert not np.array_equal(sample_per_epoch(offsets, rows, 43, 3), drawn)


def test_positives_are_drawn_evenly():
    offsets = np.array([0, 4])
    drawn = [sample_per_epoch(offsets, np.array([0]), 0, epoch)[0] for epoch in range(4000)]
    counts = np.bincount(drawn, minlength=4)
    assert counts.min() > 900, counts


def test_modality_dropout_takes_one_of_two_at_the_asked_rate():
    both = ItemRows(np.zeros(20_000, np.int64), np.zeros(20_000, np.int64))
    kept = drop_modality(both, np.arange(20_000), 0, 0, 0.3)
    no_text, no_image = (kept.texts == NONE), (kept.images == NONE)
    assert not (no_text & no_image).any()
    assert no_text.mean() == pytest.approx(0.15, abs=0.01)
    assert no_image.mean() == pytest.approx(0.15, abs=0.01)
    single = ItemRows(np.zeros(100, np.int64), np.full(100, NONE))
    assert (drop_modality(single, np.arange(100), 0, 0, 1.0).texts == 0).all()


def test_tokens_are_padded_to_the_longest_of_the_batch():
    items = TokenItems(np.arange(9, dtype=np.int32), np.array([0, 2, 2, 9]), pad=77)
    assert items.gather(np.array([0, 1])).tolist() == [[0, 1], [77, 77]]
    assert items.gather(np.array([2, 0]))[1].tolist() == [0, 1, *[77] * 5]
    assert items.gather(np.array([], np.int64)).shape[0] == 0
    assert list(items.costs()) == [2, 0, 7]


def test_images_of_several_roots_and_unreadable_ones():
    first = np.full((2, 4, 4, 3), 1, np.uint8)
    second = np.full((1, 4, 4, 3), 2, np.uint8)
    items = ArrayItems([first, second], np.array([[0, 1], [1, 0], [0, -1]]))
    assert items.gather(np.array([1, 0, 2])).float().mean((1, 2, 3)).tolist() == [2, 1, 0]
    assert items.readable().tolist() == [True, True, False]


def test_gather_says_which_rows_have_what():
    texts = TokenItems(np.arange(4, dtype=np.int32), np.array([0, 2, 4]), pad=0)
    images = ArrayItems([np.arange(3 * 48, dtype=np.uint8).reshape(3, 4, 4, 3)])
    inputs = gather_inputs(ItemRows(np.array([1, NONE, 0]), np.array([NONE, 2, 1])), texts, images)
    assert inputs.text_at.tolist() == [0, 2]
    assert inputs.image_at.tolist() == [1, 2]
    assert inputs.texts.tolist() == [[2, 3], [0, 1]]
    assert torch.equal(inputs.images[0], torch.from_numpy(images.arrays[0][2]))


def test_equal_strings_are_one_row():
    words = Vocabulary()
    assert list(words.rows(["a", None, "b", "", "a"])) == [0, NONE, 1, NONE, 0]
    assert list(words.rows(["b", "c"])) == [1, 2]
    assert words.values() == ["a", "b", "c"]


def test_batches_of_like_cost_hold_everything_and_no_more_than_allowed():
    costs = np.random.default_rng(0).integers(1, 60, 500)
    parts = list(batch_by_cost(costs, 256))
    assert sorted(np.concatenate(parts)) == list(range(500))
    assert all(len(p) * costs[p].max() <= 256 for p in parts)


# Layers


def test_the_reports_layers_on_each_depth():
    assert layers.map_layers([3, 7, 11], 12, 12) == (3, 7, 11)
    assert layers.map_layers([3, 7, 11], 9, 12) == (2, 5, 8), "TinyCLIP's text tower"
    assert layers.map_layers([3, 7, 11], 6, 12) == (1, 3, 5)
    assert layers.map_layers([3, 7, 11], 24, 24) == (3, 7, 11)
    assert layers.map_layers([11], 2, 12) == (1,)
    assert layers.describe_layers([3, 7, 11], (2, 5, 8), (3, 7, 11)) == (
        "3,7,11 -> text 2,5,8; vision 3,7,11"
    )


@pytest.mark.parametrize("scale", [12, 24])
@pytest.mark.parametrize("blocks", range(1, 13))
def test_the_last_layer_is_always_the_last(blocks, scale):
    assert layers.map_layers([scale - 1], blocks, scale) == (blocks - 1,)
    every = layers.map_layers(range(scale), blocks, scale)
    assert every == tuple(range(blocks))


def test_layers_out_of_range_name_the_setting():
    with pytest.raises(EngineError, match=r"layers = \[12\]: 12 is out of range"):
        layers.choose_layers([12], [], 9, 12, "text")
    with pytest.raises(
        EngineError, match=r"text_layers = \[9\]: 9 .* text tower has 9 blocks and takes 0 to 8"
    ):
        layers.choose_layers([], [9], 9, 12, "text")
    assert layers.choose_layers([3, 7, 11], [0, 8], 9, 12, "text") == (0, 8)
