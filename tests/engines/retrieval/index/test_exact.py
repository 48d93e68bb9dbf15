"""Exact search against the full sort."""

import pytest
import torch

from engines.retrieval.index.exact import top_k


def unit_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=generator), dim=1)


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
