"""MaxSim, the score of late interaction: computed from all tokens of query and passage.

MaxSim (ColBERT, Khattab & Zaharia 2020; FLMR, Lin et al. 2023; ReT, Caffagni et al. 2025): each
query token takes its best passage token, and a query sums over its tokens. Tokens have unit length;
a row of zeros is a missing token, so that masks need no tensors of their own and survive gathering,
slicing and indexing.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from engines.torchkit.runtime.matmul_precision import ieee_matmul

SIMILARITIES_AT_ONCE: Final = 1 << 25
"""Token pairs held at a time: 128 MiB in float32."""

NEVER: Final = -2.0
"""Below every cosine, so that a padding token of a passage is never the maximum."""


def token_mask(tokens: Tensor) -> Tensor:
    """Mask of tokens [N, T, D] that are not zero: bool [N, T]."""
    return tokens.detach().abs().amax(-1) > 0


def max_sim(queries: Tensor, passages: Tensor) -> Tensor:
    """MaxSim of all pairs, differentiable, without holding all token pairs.

    Args:
        queries: [Q, Tq, D].
        passages: [P, Tp, D].

    Returns:
        [Q, P]: the sum over a query's tokens of the largest cosine with a token of the passage. A
        passage without any token scores -2 a query token, below all others.
    """
    query_mask, passage_mask = token_mask(queries), token_mask(passages)
    flat = passages.flatten(0, 1).T
    # Gradients need the index of each maximum only, so a part's token pairs can be freed.
    size = max(1, SIMILARITIES_AT_ONCE // max(1, queries.shape[1] * flat.shape[1]))
    rows = []
    for part, mask in zip(torch.split(queries, size), torch.split(query_mask, size), strict=True):
        pairs = ieee_matmul(part.flatten(0, 1), flat).view(
            -1, *passages.shape[:2]
        )  # [part * Tq, P, Tp]
        best = pairs.masked_fill(~passage_mask, NEVER).max(-1).values
        best = best.view(*part.shape[:2], -1)
        rows.append((best * mask[:, :, None]).sum(1))
    return torch.cat(rows)


def mean_max_sim(queries: Tensor, passages: Tensor) -> Tensor:
    """MaxSim divided by the number of the query's tokens: [Q, P], between -1 and 1.

    The order of passages of a query is that of the sum. In a loss one temperature then fits
    any number of tokens, and long queries do not outweigh short ones.
    """
    counts = token_mask(queries).sum(1, keepdim=True).clamp(min=1)
    return max_sim(queries, passages) / counts


def score(queries: Tensor, passages: Tensor) -> Tensor:
    """`max_sim` for a search: [Q, P] in float32, for passages of any dtype."""
    return max_sim(queries.float(), passages.float())
