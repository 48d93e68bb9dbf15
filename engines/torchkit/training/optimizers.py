"""AdamW with two groups: matrices decay; biases, norms, embeddings of scale and scalars do not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def decay_groups(
    named: Iterable[tuple[str, nn.Parameter]], weight_decay: float
) -> list[dict[str, Any]]:
    """Trainable parameters in two groups; one with fewer than two dimensions never decays."""
    trainable = [parameter for _, parameter in named if parameter.requires_grad]
    matrices = [p for p in trainable if p.ndim >= 2]
    vectors = [p for p in trainable if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adamw(
    model: nn.Module, lr: float, weight_decay: float, betas: tuple[float, float], *, fused: bool
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of a model.

    `fused` is one kernel for all parameters on CUDA and one pass over memory on a CPU.
    """
    groups = decay_groups(model.named_parameters(), weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=fused)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups. A number, not a tensor: nothing here is captured.

    A group with `lr_scale` gets so many times the rate.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
