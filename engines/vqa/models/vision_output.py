"""Conversion of the output of a model's vision tower to rows of features and back.

Models of transformers take precomputed features as `mm_encoder_outputs`, in the form that their
`get_image_features` returns: one tensor, or a list with one tensor per picture, and for some models
further tensors for the first decoder layers (Qwen3-VL's deepstack). Here they are rows [n, width],
picture by picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Form:
    """The form of the output of one model. Its repr is part of `ModelVisionTower.fingerprint`."""

    kind: type[Any]
    """Class (transformers) of the output."""
    listed: bool
    """Whether it is a list of tensors; models concatenate it, so one entry may hold all."""
    tail: tuple[int, ...]
    """Dimensions after the first: width, or tokens of a tile and width."""
    layers: int
    """Number of decoder layers with further features of the same shape."""

    @classmethod
    def from_output(cls, output: Any) -> Self | None:
        """The form of an output for one picture; None: an unknown form."""
        parts = _parts(output)
        if parts is None:
            return None
        listed = not isinstance(output.pooler_output, Tensor)
        return cls(type(output), listed, tuple(parts[0].shape[1:]), len(parts) - 1)

    def rows(self, output: Any) -> Tensor:
        """Features of one picture as rows, [n, width]."""
        return torch.cat([part.flatten(1) for part in _parts(output) or ()], 1)

    def output(self, rows: Tensor) -> Any:
        """The output object of the model from the rows of all pictures of a batch."""
        first, *others = rows.view(len(rows), self.layers + 1, *self.tail).unbind(1)
        named = {"deepstack_features": [self._listed(layer) for layer in others]} if others else {}
        return self.kind(pooler_output=self._listed(first), **named)

    def _listed(self, features: Tensor) -> Any:
        return (features,) if self.listed else features


def _parts(output: Any) -> list[Tensor] | None:
    """Features of one picture, then those for decoder layers, all of one shape; else None."""
    parts: list[Tensor] = []
    for value in (
        getattr(output, "pooler_output", None),
        *(getattr(output, "deepstack_features", None) or ()),
    ):
        single = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
        if not isinstance(single, Tensor) or single.dim() < 2:
            return None
        parts.append(single)
    return parts if len({value.shape for value in parts}) == 1 else None
