"""Weight averaging: EMA and SWA of the trainable weights, swapped in for evaluation.

Only what is trained is averaged: a copy of the whole model would hold a frozen 4-bit base twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn

STEPS: Final = "averaged"
"""Key of the number of steps among the saved tensors."""

SKIPPED: Final = "skipped"
"""Key of the number of skipped steps, which are not averaged."""


class WeightAverage(ABC):
    """Base of weight averages: one tensor for every trainable parameter."""

    def __init__(self, model: nn.Module) -> None:
        self._named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._shadow = [p.detach().clone() for _, p in self._named]

    @abstractmethod
    def update(self, overflow: Tensor | None = None) -> None:
        """Update after a step. `overflow`: 0-d, 1 where fp16 scaling skipped it; None: it was done.

        A skipped step changes no average: its weights are those of the step before.
        """

    @property
    def started(self) -> bool:
        """Whether there is an average yet."""
        return True

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Copy the averages into the model."""
        for (_, weight), shadow in zip(self._named, self._shadow, strict=True):
            weight.copy_(shadow)

    @torch.no_grad()
    def reset_to_weights(self) -> None:
        """Set the averages to the current weights."""
        for (_, weight), shadow in zip(self._named, self._shadow, strict=True):
            shadow.copy_(weight)

    def tensors(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return {name: t for (name, _), t in zip(self._named, self._shadow, strict=True)}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Continue from saved averages."""
        for (name, _), shadow in zip(self._named, self._shadow, strict=True):
            shadow.copy_(tensors[name])

    @torch.no_grad()
    def _move(self, weight: float | Tensor) -> None:
        """Move the averages by the factor `weight` towards the weights; one fused call.

        A factor on the device (0-d) is one call a tensor inside of torch.
        """
        weights: list[Tensor] = [p for _, p in self._named]
        if isinstance(weight, Tensor):
            torch._foreach_lerp_(self._shadow, weights, [weight] * len(weights))
        else:
            torch._foreach_lerp_(self._shadow, weights, weight)

    @torch.no_grad()
    def _swap(self) -> None:
        for (_, weight), shadow in zip(self._named, self._shadow, strict=True):
            kept = weight.detach().clone()
            weight.copy_(shadow)
            shadow.copy_(kept)


class Ema(WeightAverage):
    """Keeps `shadow = decay * shadow + (1 - decay) * weight` for every trainable parameter."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay

    def update(self, overflow: Tensor | None = None) -> None:
        """See `WeightAverage.update`."""
        part = 1 - self.decay
        self._move(part if overflow is None else (1 - overflow) * part)


class Swa(WeightAverage):
    """The plain mean of the weights after every step from number `start` (from 1) on.

    Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima"; no layer here has running
    statistics that would have to be found anew.
    """

    def __init__(self, model: nn.Module, start: int) -> None:
        super().__init__(model)
        self._start = start
        self._steps = 0
        self._skipped: Tensor | None = None
        """Steps from `start` on that fp16 scaling skipped: 0-d, on the device; None: no scaling."""

    @property
    def started(self) -> bool:
        """Whether a step has been averaged; waits for the device where steps can be skipped."""
        skipped = 0 if self._skipped is None else int(self._skipped)
        return self._steps - skipped >= self._start

    def update(self, overflow: Tensor | None = None) -> None:
        """See `WeightAverage.update`."""
        self._steps += 1
        number = self._steps - self._start + 1
        if number < 1:
            return
        if overflow is None and self._skipped is None:
            self._move(1 / number)
            return
        overflow = torch.zeros(()) if overflow is None else overflow
        earlier = 0.0 if self._skipped is None else self._skipped.to(overflow.device)
        self._skipped = earlier + overflow
        self._move((1 - overflow) / (number - self._skipped).clamp(min=1))

    def tensors(self) -> dict[str, Tensor]:
        """The means by parameter name, how many steps are over and how many of them skipped."""
        skipped = {} if self._skipped is None else {SKIPPED: self._skipped}
        return {**super().tensors(), STEPS: torch.tensor(self._steps), **skipped}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Continue from saved means."""
        super().load(tensors)
        self._steps = int(tensors[STEPS])
        self._skipped = tensors.get(SKIPPED)
