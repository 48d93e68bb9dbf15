"""The form in which a model's vision tower hands its features on to the language model.

transformers' models take features that exist already as `mm_encoder_outputs`, in the form that
their own `get_image_features` returns: one tensor, or a list with one for each picture, and of some
kinds more of the same for the first decoder layers (Qwen3-VL's deepstack). Here all of it is rows
of numbers, one picture's after the other's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Form:
    """Of one model."""

    kind: type[Any]
    """transformers' class of the output."""
    listed: bool
    """A list of pictures, not one tensor. Whoever takes it joins it, so one entry may have all."""
    tail: tuple[int, ...]
    """Dimensions behind the first: width, or tokens of a tile and width."""
    layers: int
    """Further features of the same shape, for so many decoder layers."""

    @classmethod
    def of(cls, output: Any) -> Self | None:
        """Of what `get_image_features` returned for one picture; None: of no form known here."""
        parts = _parts(output)
        if parts is None:
            return None
        listed = not isinstance(output.pooler_output, Tensor)
        return cls(type(output), listed, tuple(parts[0].shape[1:]), len(parts) - 1)

    def rows(self, output: Any) -> Tensor:
        """One picture's features as rows, [n, width]."""
        return torch.cat([one.flatten(1) for one in _parts(output) or ()], 1)

    def output(self, rows: Tensor) -> Any:
        """The model's own form of the rows of all pictures of a batch."""
        first, *others = rows.view(len(rows), self.layers + 1, *self.tail).unbind(1)
        named = {"deepstack_features": [self._listed(one) for one in others]} if others else {}
        return self.kind(pooler_output=self._listed(first), **named)

    def _listed(self, features: Tensor) -> Any:
        return (features,) if self.listed else features


def _parts(output: Any) -> list[Tensor] | None:
    """Features of one picture, those for decoder layers behind them, all of one shape."""
    found: list[Tensor] = []
    for one in (getattr(output, "pooler_output", None), *(_deep(output) or ())):
        single = one[0] if isinstance(one, list | tuple) and len(one) == 1 else one
        if not isinstance(single, Tensor) or single.dim() < 2:
            return None
        found.append(single)
    return found if len({one.shape for one in found}) == 1 else None


def _deep(output: Any) -> Any:
    return getattr(output, "deepstack_features", None)
