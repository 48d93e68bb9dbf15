"""Exponential moving average of the trainable weights, swapped in for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Keeps `shadow = decay * shadow + (1 - decay) * weight` for every trainable parameter."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._shadow = [p.detach().clone() for _, p in self._named]

    @torch.no_grad()
    def update(self) -> None:
        """One step; one fused call for all tensors."""
        weights: list[Tensor] = [p for _, p in self._named]
        torch._foreach_lerp_(self._shadow, weights, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the averaged weights, for the time of the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def tensors(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return {name: t for (name, _), t in zip(self._named, self._shadow, strict=True)}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Continue from saved averages."""
        for (name, _), shadow in zip(self._named, self._shadow, strict=True):
            shadow.copy_(tensors[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for (_, weight), shadow in zip(self._named, self._shadow, strict=True):
            kept = weight.detach().clone()
            weight.copy_(shadow)
            shadow.copy_(kept)
