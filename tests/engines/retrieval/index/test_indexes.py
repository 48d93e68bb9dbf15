"""Search against a full sort: same rows, same order, ties and all; and FAISS against it."""

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.emitter import EngineError
from engines.retrieval.index import exact
from engines.retrieval.index.encoding import ModalityVectors, VectorStorage
from engines.retrieval.index.indexes import ExactIndex, FaissIndex


def naive(queries: torch.Tensor, corpus: torch.Tensor, k: int) -> np.ndarray:
    """Rows by score, then by row, from the whole matrix in float64."""
    scores = queries.double().numpy() @ corpus.double().numpy().T
    order = [np.lexsort((np.arange(len(corpus)), -row)) for row in scores]
    return np.asarray(order, int).reshape(len(queries), len(corpus))[:, :k]


def whole_numbers(rows: int, width: int, largest: int, seed: int) -> torch.Tensor:
    """Vectors whose scores are exact in float32, so that equal is equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-largest, largest + 1, (rows, width), generator=generator).float()


def small_blocks(sample: int):
    return mock.patch.multiple(
        exact, SAMPLE=sample, PASSAGES_AT_ONCE={"cpu": 97}, QUERIES_AT_ONCE={"cpu": 5},
        QUERIES_HELD=11, PLAIN_QUERIES=3,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 900), queries=st.integers(0, 25), k=st.integers(1, 60),
    largest=st.integers(0, 3), sample=st.sampled_from([8, 32, 100_000]), seed=st.integers(0, 99),
)  # fmt: skip
def test_search_is_the_full_sort_with_ties_by_row(rows, queries, k, largest, sample, seed):
    """largest = 0: all scores are 0; 1: nearly all are tied; samples of 8 are often wrong."""
    asked, corpus = whole_numbers(queries, 6, largest, seed), whole_numbers(rows, 6, largest, seed)
    with small_blocks(sample):
        scores, found = exact.top_k(asked, corpus, k)
    wanted = naive(asked, corpus, k)
    assert found.shape == (queries, min(k, rows))
    assert np.array_equal(found.numpy(), wanted)
    assert torch.equal(scores, (asked @ corpus.T).gather(1, found))


@pytest.mark.parametrize("largest", [1, 4])
def test_the_way_of_a_gpu_gives_the_same(largest):
    """Its selections are torch's own, which run anywhere."""
    asked, corpus = whole_numbers(12, 6, largest, 0), whole_numbers(900, 6, largest, 1)
    with small_blocks(32), mock.patch.object(exact, "_uses_torch", return_value=True):
        _, found = exact.top_k(asked, corpus, 30)
    assert np.array_equal(found.numpy(), naive(asked, corpus, 30))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("stored", ["fp32", "bf16", "fp16"])
def test_a_gpu_finds_what_the_cpu_finds(stored):
    """Whole numbers up to 4 are exact in half precision too, and so are their scores."""
    asked, corpus = whole_numbers(300, 16, 4, 0), whole_numbers(40_000, 16, 4, 1)
    for queries, passages in ((asked.cuda(), corpus.cuda()), (asked.cuda(), corpus)):
        scores, found = ExactIndex(passages, stored).search(queries, 500)
        assert found.is_cuda
        wanted, rows = exact.top_k(asked, corpus, 500)
        assert torch.equal(found.cpu(), rows)
        assert torch.equal(scores.cpu(), wanted)


@pytest.mark.parametrize("order", ["rising", "falling", "periodic"])
def test_a_sorted_corpus_or_one_in_step_with_the_sample_changes_nothing(order):
    generator = torch.Generator().manual_seed(0)
    corpus = torch.rand(6000, 1, generator=generator).sort(0).values
    if order == "falling":
        corpus = corpus.flip(0)
    elif order == "periodic":  # the sample sees every best passage, and the thresholds are too high
        corpus = torch.zeros(6000, 1)
        corpus[torch.linspace(0, 5999, 64).long()] = 1.0
    with small_blocks(64):
        _, found = exact.top_k(torch.ones(7, 1), corpus, 40)
    assert np.array_equal(found.numpy(), naive(torch.ones(7, 1), corpus, 40))


def test_thresholds_do_their_work_at_full_size():
    """Blocks as shipped: few queries go the plain way, and all are right."""
    generator = torch.Generator().manual_seed(1)
    corpus = torch.randn(20_000, 16, generator=generator)
    asked = torch.randn(300, 16, generator=generator)
    with mock.patch.object(exact, "_search_by_merge", wraps=exact._search_by_merge) as plain:
        scores, found = exact.top_k(asked, corpus, 100)
    assert sum(len(call.args[0]) for call in plain.call_args_list) < 15
    full = asked @ corpus.T
    torch.testing.assert_close(scores, full.topk(100).values)
    torch.testing.assert_close(full.gather(1, found), scores)
    assert all(len(set(row)) == 100 for row in found.tolist())


def test_minus_zero_is_zero():
    corpus = torch.tensor([[-0.0], [0.0], [-1.0]])
    assert exact.top_k(torch.ones(1, 1), corpus, 3)[1].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e20])
@pytest.mark.parametrize("where", ["query", "passage"])
def test_what_is_not_finite_is_refused(bad, where):
    asked, corpus = torch.ones(3, 4), torch.ones(5, 4)
    (asked if where == "query" else corpus)[1, 2] = bad
    with pytest.raises(EngineError, match=f"a {where} vector is NaN or infinite"):
        exact.top_k(asked, corpus, 2)


def test_any_score_of_blocks_can_be_searched():
    """Late interaction: rows are tokens; a query's score is summed over its best tokens."""
    generator = torch.Generator().manual_seed(0)
    asked = torch.randn(9, 3, 8, generator=generator)
    corpus = torch.randn(700, 4, 8, generator=generator)

    def best_tokens(queries, passages):
        return torch.einsum("qtd,psd->qpts", queries, passages).amax(3).sum(2)

    with small_blocks(32):
        _, found = exact.top_k(asked, corpus, 20, best_tokens)
    full = best_tokens(asked, corpus)
    torch.testing.assert_close(full.gather(1, found), full.topk(20).values)


@pytest.mark.parametrize(("stored", "most"), [("bf16", 1e-2), ("fp16", 1e-3)])
def test_half_precision_rounds_vectors_but_not_scores(stored, most):
    generator = torch.Generator().manual_seed(0)
    corpus = torch.nn.functional.normalize(torch.randn(500, 64, generator=generator), dim=1)
    scores, rows = ExactIndex(corpus, stored).search(corpus[:20], 5)
    assert rows[:, 0].tolist() == list(range(20))
    assert scores.dtype == torch.float32
    full = (corpus[:20] @ corpus.T).gather(1, rows)
    assert (scores - full).abs().max() < most
    steps = (scores[:, 1:] - scores[:, 1:].bfloat16().float()).abs()
    assert steps.max() > 0, "scores rounded to half precision would be their own rounding"


def test_vectors_beyond_the_limit_lie_in_a_file_without_a_name(tmp_path):
    room = VectorStorage(torch.device("cpu"), 1e-6, tmp_path)
    kept = room.zeros(300, 16)
    assert room.uses_file
    assert not list(tmp_path.iterdir()), "a killed run leaves nothing"
    maps = Path("/proc/self/maps").read_text()
    assert "(deleted)" in next(line for line in maps.splitlines() if str(tmp_path) in line)
    kept[:] = torch.randn(300, 16)
    memory = torch.Tensor(kept.numpy().copy())
    assert torch.equal(exact.top_k(kept[:9], kept, 7)[1], exact.top_k(memory[:9], memory, 7)[1])
    assert not VectorStorage(torch.device("cpu"), 1.0, tmp_path).uses_file


def test_vectors_that_do_not_fit_on_the_disk_are_a_sentence(tmp_path, monkeypatch):
    """A write into a mapped file of a full disk would end the process by SIGBUS."""
    full = mock.Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(EngineError, match="vectors do not fit on the disk .*corpus_memory_gib"):
        VectorStorage(torch.device("cpu"), 1e-6, tmp_path).zeros(300, 16)
    assert full.call_args.args[1:] == (0, 4 * 300 * 16)
    assert not list(tmp_path.iterdir())


def test_items_share_their_distinct_vectors():
    vectors = ModalityVectors(torch.tensor([[1.0], [2.0], [0.0]]), torch.tensor([1, 2, 0, 1]))
    assert vectors.rows(1, 4).tolist() == [[0.0], [1.0], [2.0]]


def test_shuffled_vectors_are_those_of_other_items_that_have_one():
    at = torch.tensor([0, 4, 1, 2, 3, 4])
    shuffled = ModalityVectors(torch.eye(5, 4), at).shuffle().at
    assert sorted(shuffled.tolist()) == sorted(at.tolist())
    assert [row for row in range(6) if shuffled[row] == at[row]] == [1, 5]  # the two that lack it


# FAISS runs in a process of its own here: its wheel brings a second OpenMP library.

CHILD = """
    import json, sys, torch
    from pathlib import Path
    from engines.retrieval.index.indexes import ExactIndex, FaissIndex
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    def near(n):
        return torch.nn.functional.normalize(torch.randn(n, 16, generator=generator), dim=1)
    corpus, asked = near(6000), near(64)
    exact = ExactIndex(corpus)
    wanted = exact.search(asked, 100)
    flat = FaissIndex(corpus, "faiss-flat", 1).search(asked, 100)
    # Whole numbers have exact scores; FAISS leaves open which of two equal ones comes first.
    whole, few = (corpus * 20).round(), (asked * 20).round()
    ours = exact.__class__(whole).search(few, 100)
    theirs = FaissIndex(whole, "faiss-flat", 1).search(few, 100)
    above = [{(s, r) for s, r in zip(*pair) if s > pair[0][-1]}
             for found in (ours, theirs) for pair in zip(found[0].tolist(), found[1].tolist())]
    folder = Path(sys.argv[1])
    found = {"same": (ours[0] == theirs[0]).all().item() and above[:64] == above[64:],
             "nearly": (flat[1] == wanted[1]).float().mean().item(),
             "gap": (flat[0] - wanted[0]).abs().max().item()}
    for name, probes, where in (("few", 2, None), ("many", 16, None), ("all", 10**6, None),
                                ("filed", 16, folder)):
        index = FaissIndex(corpus, "faiss-ivf", probes, where)
        rows = index.search(asked, 100)[1]
        kept = [len(set(a) & set(b)) / 100 for a, b in zip(rows.tolist(), wanted[1].tolist())]
        found[name] = sum(kept) / len(kept)
        found[name + " deep"] = index.search(asked, 2000)[1].min().item()
    again = exact.search(asked, 100)[1]
    found["after"] = bool((again == wanted[1]).all())
    found["left"] = len(list(folder.iterdir()))
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def beside_faiss(tmp_path_factory):
    pytest.importorskip("faiss", reason="the extra `retrieval` is not installed")
    folder = tmp_path_factory.mktemp("lists")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(folder)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_faiss_flat_finds_what_exact_search_finds(beside_faiss):
    assert beside_faiss["same"]
    assert beside_faiss["nearly"] > 0.999, "neighbours swap where rounding makes them equal"
    assert beside_faiss["gap"] < 1e-5
    assert beside_faiss["after"], "torch computes as before beside the other OpenMP"


def test_an_inverted_file_finds_more_the_more_lists_it_reads(beside_faiss):
    assert 0.1 < beside_faiss["few"] < beside_faiss["many"] < 1.0
    assert beside_faiss["all"] == 1.0
    assert beside_faiss["filed"] == beside_faiss["many"]
    assert beside_faiss["left"] == 0


def test_a_query_whose_lists_hold_too_few_looks_into_more(beside_faiss):
    assert beside_faiss["few deep"] >= 0


def test_faiss_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(EngineError, match="install the extra `retrieval`"):
        FaissIndex(torch.ones(3, 2), "faiss-flat", 1)
