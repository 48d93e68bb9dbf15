"""Averages of the trainable weights, swapped in for evaluation: exponential, or of the last steps.

Only what is trained is averaged: a copy of the whole model would hold a frozen 4-bit base twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn

SEEN: Final = "averaged"
"""Name of the number of averaged steps among the saved tensors; no parameter is called so."""


class Average(ABC):
    """One averaged tensor for every trainable parameter."""

    def __init__(self, model: nn.Module) -> None:
        self._named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._shadow = [p.detach().clone() for _, p in self._named]

    @abstractmethod
    def update(self) -> None:
        """One step was done."""

    @property
    def begun(self) -> bool:
        """Whether there is anything to put in the weights' place."""
        return True

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the averaged weights, for the time of the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def settle(self) -> None:
        """The averages take the place of the weights, for good."""
        for (_, weight), shadow in zip(self._named, self._shadow, strict=True):
            weight.copy_(shadow)

    @torch.no_grad()
    def follow(self) -> None:
        """The weights take the place of the averages."""
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
    def _move(self, weight: float) -> None:
        """The averages go this part of the way to the weights; one fused call for all tensors."""
        weights: list[Tensor] = [p for _, p in self._named]
        torch._foreach_lerp_(self._shadow, weights, weight)

    @torch.no_grad()
    def _swap(self) -> None:
        for (_, weight), shadow in zip(self._named, self._shadow, strict=True):
            kept = weight.detach().clone()
            weight.copy_(shadow)
            shadow.copy_(kept)


class Ema(Average):
    """Keeps `shadow = decay * shadow + (1 - decay) * weight` for every trainable parameter."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay

    def update(self) -> None:
        """One step."""
        self._move(1 - self.decay)


class Swa(Average):
    """The plain mean of the weights after every step from number `start` (from 1) on.

    Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima"; no layer here has running
    statistics that would have to be found anew.
    """

    def __init__(self, model: nn.Module, start: int) -> None:
        super().__init__(model)
        self._start = start
        self._steps = 0

    @property
    def begun(self) -> bool:
        """Whether a step has been averaged."""
        return self._steps >= self._start

    def update(self) -> None:
        """One step."""
        self._steps += 1
        if self.begun:
            self._move(1 / (self._steps - self._start + 1))

    def tensors(self) -> dict[str, Tensor]:
        """The means by parameter name, and how many steps were seen."""
        return {**super().tensors(), SEEN: torch.tensor(self._steps)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Continue from saved means."""
        super().load(tensors)
        self._steps = int(tensors[SEEN])
