"""The contrastive loss and its batch metrics against loops over single cosines."""

import math

import numpy as np
import pytest
import torch

from engines.retrieval.loss import contrastive


def unit_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=generator), dim=1)


def losses_by_loops(q: torch.Tensor, p: torch.Tensor, positive: np.ndarray, scale: float) -> dict:
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
    expected = losses_by_loops(q.tolist(), p.tolist(), positive, 9.0)
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
