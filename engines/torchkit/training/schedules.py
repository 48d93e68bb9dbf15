"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to resume."""

from __future__ import annotations

import math


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
