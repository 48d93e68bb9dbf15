"""Greedy decoding of captions, many at once, with a key-value cache.

The prompts of a run are equally long, since every medium gives as many tokens, so a batch needs no
padding and no mask, and every row of the cache has the same length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

NextLogits = Callable[[Tensor, Any], Tensor]
"""Logits [B, V] of the next token after inputs [B, T, W] and the contents of a cache."""
KEPT_SHARE: Final = 0.75
"""Of the rows in a batch: when no more are unfinished, the others leave it. The cache is copied
then, as it is for every token."""


@torch.no_grad()
def decode_greedily(
    prompt: Tensor,
    next_logits: NextLogits,
    embeddings: nn.Module,
    end: int,
    longest: int,
    repetition_penalty: float = 1.0,
) -> list[list[int]]:
    """Ids of each caption after prompts [B, P, W], without the end token; `longest` ids: cut off.

    A row leaves the batch soon after its end token, and decoding ends with the last row.
    `repetition_penalty`: see `penalize_repetition`; 1: none.
    """
    from transformers import DynamicCache

    cache, inputs = DynamicCache(), prompt
    rows = torch.arange(len(prompt), device=prompt.device)
    tokens = torch.full((len(prompt), longest), end, device=prompt.device)
    unfinished = torch.ones_like(rows, dtype=torch.bool)
    for step in range(longest):
        logits = next_logits(inputs, cache)
        if step and repetition_penalty != 1:
            logits = penalize_repetition(logits, tokens[rows, :step], repetition_penalty)
        token = torch.where(unfinished, logits.argmax(-1), end)
        tokens[rows, step] = token
        unfinished = token != end
        remaining = int(unfinished.sum())
        if not remaining:
            break
        if remaining <= KEPT_SHARE * len(rows):
            kept = unfinished.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            rows, token, unfinished = rows[kept], token[kept], unfinished[kept]
        inputs = embeddings(token)[:, None].to(prompt.dtype)
    return [row[: row.index(end)] if end in row else row for row in tokens.tolist()]


def penalize_repetition(logits: Tensor, generated: Tensor, penalty: float) -> Tensor:
    """Logits [B, V] in which the tokens `generated` [B, T] so far are less probable.

    Keskar et al. 2019, "CTRL", section 4.1: positive logits are divided by the penalty, negative
    ones multiplied by it, as in transformers.
    """
    scores = logits.gather(1, generated)
    return logits.scatter(1, generated, torch.where(scores < 0, scores * penalty, scores / penalty))
