"""The dual encoder: what all families share. Fusion, temperature, and one interface.

Fusion: text and image are projected into one space and normalised each; an item is the sum of what
it has, normalised again. A missing modality adds nothing. The sum keeps both sides comparable with
any mix of modalities, needs no parameters, and lets a question say what kind of passage is wanted
while the image says of which thing.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.retrieval.pairs import Inputs

MAX_SCALE: Final = 100.0
"""Largest inverse temperature, as in CLIP (Radford et al. 2021)."""


class DualEncoder(nn.Module):
    """Subclasses embed texts and images; everything else is here.

    `side` is "query" or "passage", for families with a head for each.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.text_blocks = 0
        self.vision_blocks = 0
        self.text_layers: tuple[int, ...] = ()
        self.vision_layers: tuple[int, ...] = ()
        """Blocks whose features are averaged; empty: the tower's own output."""
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def embed_texts(self, texts: Tensor, side: str) -> Tensor:
        """[n, D], not normalised."""
        raise NotImplementedError

    def embed_images(self, images: Tensor, side: str) -> Tensor:
        """[n, D], not normalised."""
        raise NotImplementedError

    def compile_towers(self) -> None:
        """torch.compile what is worth it; nothing unless a family says otherwise."""

    def scale(self) -> Tensor:
        """Inverse temperature."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def forward(self, queries: Inputs, passages: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Query and passage vectors, [B, D] each, unit length, and the inverse temperature."""
        return self._side(queries, "query"), self._side(passages, "passage"), self.scale()

    def _side(self, inputs: Inputs, side: str) -> Tensor:
        parts = []
        if len(inputs.text_at):
            texts = unit(self.embed_texts(inputs.texts, side))
            parts.append(_placed(texts, inputs.text_at, inputs.size))
        if len(inputs.image_at):
            images = unit(self.embed_images(inputs.images, side))
            parts.append(_placed(images, inputs.image_at, inputs.size))
        return unit(torch.stack(parts).sum(0)) if len(parts) > 1 else parts[0]


def unit(vectors: Tensor) -> Tensor:
    """Each row at length 1, in float32; a zero row stays zero."""
    return functional.normalize(vectors.float(), dim=-1)


def _placed(vectors: Tensor, at: Tensor, size: int) -> Tensor:
    """Rows put into a [size, D] tensor of zeros."""
    if len(at) == size:
        return vectors
    return vectors.new_zeros(size, vectors.shape[1]).index_copy(0, at, vectors)


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """All parameters, and those that are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)
