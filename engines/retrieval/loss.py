"""The symmetric in-batch contrastive loss, with duplicates that are not mistaken for negatives.

Every other passage of the batch is a negative, unless it is a positive of the query too: the same
passage drawn for two queries, or another one of the query's list. Those are taken out of the
denominators, in both directions. Soft labels over all positives would do as well, but put the
smallest reachable loss at the entropy of the labels, so losses of subsets with different duplicate
rates could not be compared; masked, the smallest loss is 0 for all.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def contrastive(
    queries: Tensor, passages: Tensor, positive: Tensor, scale: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and metrics of one micro-batch.

    Args:
        queries: [B, D], unit length.
        passages: [B, D], unit length; row i was drawn for query i.
        positive: [B, B] bool; (i, j): passage j is a positive of query i. The diagonal is true.
        scale: inverse temperature, 0-d.

    Returns:
        The mean of both directions, and `r@1` (in the batch, query to passage), `duplicate_rate`
        (share of queries with a second positive in the batch) and `temperature`.
    """
    with torch.autocast(queries.device.type, enabled=False):
        # Autocast would round cosines to bf16: steps of 1/256, which the scale makes 0.4.
        logits = scale.float() * (queries.float() @ passages.float().T)
    size = len(logits)
    diagonal = torch.eye(size, dtype=torch.bool, device=logits.device)
    others = positive & ~diagonal
    masked = logits.masked_fill(others, float("-inf"))
    target = torch.arange(size, device=logits.device)
    loss = (
        functional.cross_entropy(masked, target) + functional.cross_entropy(masked.T, target)
    ) / 2
    with torch.no_grad():
        best = logits.argmax(1, keepdim=True)
        metrics = {
            "r@1": positive.gather(1, best).float().mean(),
            "duplicate_rate": others.any(1).float().mean(),
            "temperature": 1 / scale.detach().float(),
        }
    return loss, metrics
