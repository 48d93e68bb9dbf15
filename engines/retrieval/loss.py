"""In-batch contrastive losses, in which duplicates are no negatives.

Every other passage of the batch is a negative, unless it is a positive of the query too: the same
passage drawn for two queries, or another one of the query's list. Under softmax those are taken out
of the denominators, in both directions. Soft labels over all positives would do as well, but put
the smallest reachable loss at the entropy of the labels, so losses of subsets with different
duplicate rates could not be compared; masked, the smallest loss is 0 for all.

Pure functions of vectors: gathering over ranks and chunking are done by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from engines.retrieval.models import max_sim
from engines.torchkit.runtime.matmul_precision import ieee_matmul

Objective = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]
"""(queries, passages, positive, scale) -> loss and metrics."""


def similarity(queries: Tensor, passages: Tensor) -> Tensor:
    """[B, P] of [B, D] and [P, D] (cosines), or of [B, T, D] and [P, T, D] (mean MaxSim).

    Autocast is off: it would round cosines to bf16, steps of 1/256, which the scale makes 0.4.
    TF32 is off too, in the gradients as well: 64 x 64 products of width 512 cost nothing.
    """
    with torch.autocast(queries.device.type, enabled=False):
        if queries.ndim == 3:
            return max_sim.mean_max_sim(queries.float(), passages.float())
        return ieee_matmul(queries.float(), passages.float().T)


def contrastive(
    queries: Tensor, passages: Tensor, positive: Tensor, scale: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Softmax loss (CLIP, Radford et al. 2021) and metrics of one micro-batch.

    Args:
        queries: [B, D], unit length; or tokens [B, T, D], see `max_sim`.
        passages: the same of passages; row i was drawn for query i.
        positive: [B, B] bool; (i, j): passage j is a positive of query i. The diagonal is true.
        scale: inverse temperature, 0-d.

    Returns:
        The mean of both directions, and `r@1` (in the batch, query to passage), `duplicate_rate`
        (share of queries with a second positive in the batch) and `temperature`.
    """
    logits = scale.float() * similarity(queries, passages)
    size = len(logits)
    others = _other_positives(positive)
    masked = logits.masked_fill(others, float("-inf"))
    target = torch.arange(size, device=logits.device)
    loss = (
        functional.cross_entropy(masked, target) + functional.cross_entropy(masked.T, target)
    ) / 2
    return loss, _metrics(logits, positive, others, scale)


def sigmoid(
    queries: Tensor, passages: Tensor, positive: Tensor, scale: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Pairwise sigmoid loss (SigLIP, Zhai et al. 2023): a binary decision for each pair.

    Duplicates are positives here, so nothing is masked. Arguments and metrics as of
    `contrastive`, but `scale` is [2]: the inverse temperature and the bias.
    """
    logits = scale[0].float() * similarity(queries, passages) + scale[1].float()
    signs = positive.to(logits.dtype) * 2 - 1
    loss = -functional.logsigmoid(signs * logits).sum() / len(logits)
    metrics = _metrics(logits, positive, _other_positives(positive), scale[0])
    return loss, metrics | {"bias": scale[1].detach().float()}


OBJECTIVES: Final[dict[str, Objective]] = {"softmax": contrastive, "sigmoid": sigmoid}


def _other_positives(positive: Tensor) -> Tensor:
    return positive & ~torch.eye(len(positive), dtype=torch.bool, device=positive.device)


@torch.no_grad()
def _metrics(logits: Tensor, positive: Tensor, others: Tensor, scale: Tensor) -> dict[str, Tensor]:
    best = logits.argmax(1, keepdim=True)
    return {
        "r@1": positive.gather(1, best).float().mean(),
        "duplicate_rate": others.any(1).float().mean(),
        "temperature": 1 / scale.detach().float(),
    }
