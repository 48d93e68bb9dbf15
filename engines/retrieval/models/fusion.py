"""Recurrent gated fusion of the layers of both towers, as in ReT.

Caffagni et al., "Recurrence-Enhanced Vision-and-Language Transformers for Robust Multimodal
Document Retrieval", CVPR 2025. One cell runs over the chosen layers, from shallow to deep. It
carries a few query tokens; at each layer they attend to each other and to that layer's text and
vision tokens, and gates decide how much of the past, the text and the image they keep. A missing
modality closes its gate.

Equal to the authors' code (aimagelab/ReT) in its output and, but for a LayerNorm of 2 x 1024 that
the code has and never uses, in its number of parameters. Queries and passages share the cell here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

Tokens = tuple[Tensor, Tensor]
"""Tokens of one modality at one layer [B, T, width], and their mask: bool [B, T]."""

HEAD_WIDTH: Final = 64
DROPOUT: Final = 0.05
QUERY_STD: Final = 0.2
"""Standard deviation of the query tokens' initialization, as published."""


@dataclass(frozen=True)
class FusionSizes:
    """Sizes of the recurrent fusion; defaults are the published configuration."""

    width: int = 1024
    queries: int = 32
    out: int = 128
    """Width of the vectors that are compared (ReT's late projection)."""


@dataclass(frozen=True)
class LayerStates:
    """One modality of a batch of B items, at every chosen layer, from shallow to deep."""

    states: Sequence[Tensor]
    """[B, T, tower width] each; zeros where an item lacks the modality."""
    present: Tensor
    """Mask of the tokens: bool [B, T]."""

    def has(self) -> Tensor:
        """Which items have the modality: bool [B]."""
        return self.present.any(1)


class RecurrentFusion(nn.Module):
    """Layers of both towers -> tokens [B, queries, out], not normalized."""

    def __init__(self, text_width: int, vision_width: int, layers: int, sizes: FusionSizes) -> None:
        super().__init__()
        self.layers = layers
        self.from_text = nn.ModuleList(nn.Linear(text_width, sizes.width) for _ in range(layers))
        self.from_vision = nn.ModuleList(
            nn.Linear(vision_width, sizes.width) for _ in range(layers)
        )
        self.queries = nn.Parameter(torch.empty(sizes.queries, sizes.width).normal_(std=QUERY_STD))
        self.register_buffer(
            "positions", make_sinusoids(sizes.queries, sizes.width), persistent=False
        )
        self.positions: Tensor
        self.cell = RecurrentCell(sizes.width)
        self.project = nn.Linear(sizes.width, sizes.out, bias=False)

    def forward(self, text: LayerStates, vision: LayerStates, *, pool: bool) -> Tensor:
        """[B, queries, out]; with `pool`, the mean over the queries, projected: [B, out]."""
        state = self.queries.expand(len(text.present), -1, -1)
        for layer in range(self.layers):
            state = self.cell(
                state + self.positions,
                (self.from_text[layer](text.states[layer]), text.present),
                (self.from_vision[layer](vision.states[layer]), vision.present),
            )
        return self.project(state.mean(1) if pool else state)  # type: ignore[no-any-return]


class RecurrentCell(nn.Module):
    """One step of the recurrence; the same weights at every layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        heads = max(1, width // HEAD_WIDTH)
        self.query_norm = nn.LayerNorm(width)
        self.itself = nn.MultiheadAttention(width, heads, DROPOUT, batch_first=True)
        self.text = GatedCrossAttention(width, heads)
        self.vision = GatedCrossAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.Dropout(DROPOUT),
            nn.GELU(),
            nn.Linear(4 * width, width),
            nn.Dropout(DROPOUT),
        )

    def forward(self, state: Tensor, text: Tokens, vision: Tokens) -> Tensor:
        """[B, Q, width] -> the next state."""
        queries = self.query_norm(state)
        attended = state + self.itself(queries, queries, queries, need_weights=False)[0]
        words, word_gate, word_forget = self.text(queries, *text)
        sights, sight_gate, sight_forget = self.vision(queries, *vision)
        forget = torch.sigmoid(word_forget + sight_forget)
        mixed = attended * forget + words * word_gate + sights * sight_gate
        return mixed + self.mlp(self.mlp_norm(mixed))  # type: ignore[no-any-return]


class GatedCrossAttention(nn.Module):
    """Cross-attention to one modality and its gates; zeros where the modality is missing."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, DROPOUT, bias=False, batch_first=True)
        self.input_gate = nn.Linear(width, width)
        self.forget_gate = nn.Linear(width, width)

    def forward(
        self, queries: Tensor, tokens: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attended values, input gate, and term of the forget gate: [B, Q, width] each."""
        tokens = self.norm(tokens)
        has = present.any(1)
        # A row without tokens would attend to NaN; its gates are closed instead.
        hidden = ~present & has[:, None]
        attended, _ = self.attention(
            queries, tokens, tokens, key_padding_mask=hidden, need_weights=False
        )
        there = has[:, None, None].to(attended.dtype)
        gate = torch.sigmoid(self.input_gate(attended)) * there
        return attended, gate, self.forget_gate(attended) * there


def make_sinusoids(rows: int, width: int) -> Tensor:
    """Sinusoidal position encoding (Vaswani et al. 2017): [rows, width]."""
    angles = torch.arange(rows)[:, None] * torch.exp(
        torch.arange(0, width, 2) * (-math.log(10_000.0) / width)
    )
    positions = torch.zeros(rows, width)
    positions[:, 0::2] = angles.sin()
    positions[:, 1::2] = angles.cos()[:, : width // 2]
    return positions
