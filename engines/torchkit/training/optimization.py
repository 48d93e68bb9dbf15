"""AdamW with two groups, of which matrices decay, and learning-rate schedules.

Schedules are pure functions of the step: nothing to save, nothing to resume.
"""

from __future__ import annotations

import math
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


def warmup_cosine(step: int, total: int, warmup: int, floor: float = 0.0) -> float:
    """Factor of the peak rate for step number `step` (from 0).

    Linear from 1/warmup to 1 over `warmup` steps, then half a cosine down to `floor`, which the
    last step reaches.
    """
    if step < warmup:
        return (step + 1) / warmup
    if total - warmup <= 1:
        return 1.0
    progress = min(1.0, (step - warmup) / (total - warmup - 1))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def planned_steps(epochs: float, most: int | None, steps_per_epoch: int) -> int:
    """Optimizer steps of a run; a part of an epoch is rounded up, `most` is not exceeded."""
    steps = math.ceil(epochs * steps_per_epoch)
    return min(steps, most) if most else steps


def warmup_steps(total: int, ratio: float, steps: int | None) -> int:
    """Warm-up steps: the number if given, else the ratio of all steps, rounded up."""
    count = math.ceil(ratio * total) if steps is None else steps
    return min(count, total)
