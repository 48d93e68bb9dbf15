"""Dual encoder of all families: fusion, scoring, temperature and GradCache.

An item's vector(s), by setting:
  pooled, layers averaged   text and image are projected into one space and normalized each; the
                            item is the sum of what it has, normalized again. A missing modality
                            adds nothing. Comparable with any mix of modalities, no parameters, and
                            a question can say what kind of passage is wanted while the image says
                            of which thing.
  late, layers averaged     all text and image tokens side by side, each at unit length (as FILIP
                            compares them, Yao et al. 2022).
  recurrent                 the query tokens of `fusion.RecurrentFusion`: late, or their mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from engines.retrieval.data.pairs import ItemInputs, count_join_padding, join_inputs
from engines.retrieval.models.fusion import LayerStates, RecurrentFusion
from engines.retrieval.models.towers import EncoderTower
from engines.torchkit.modeling.image_normalization import PixelNormalizer

MAX_SCALE: Final = 100.0
"""Largest inverse temperature, as in CLIP (Radford et al. 2021)."""

INITIAL_BIAS: Final = -10.0
"""Initial bias of the sigmoid loss, where a checkpoint has none (SigLIP, Zhai et al. 2023)."""


@dataclass(frozen=True)
class LateShape:
    """Shape of a late-interaction item: [texts + images, width]; fixed for gathering."""

    texts: int
    images: int
    width: int


class DualEncoder(nn.Module):
    """Base of the families, which set their two towers or override the embedding methods.

    `side` is "query" or "passage", for families with a head for each.
    """

    text_tower: EncoderTower
    vision_tower: EncoderTower

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.text_tower = self.vision_tower = EncoderTower()
        self.text_layers: tuple[int, ...] = ()
        self.vision_layers: tuple[int, ...] = ()
        """Blocks whose features are used; empty: the tower's output."""
        self.late = False
        """Items are tokens [T, D] and compared by MaxSim, not single vectors [D]."""
        self.late_shape = LateShape(0, 0, 0)
        self.sides_share = True
        """Whether queries and passages use the same weights, so that both can be one batch."""
        self.one_pass = False
        """Whether both sides are one batch in training, where possible. See `joins`."""
        self.dtype = torch.float32
        """dtype of activations without autocast."""
        self.chunk = 0
        """Items embedded at once in training; 0: all. See `_embed_in_chunks`."""
        self.fusion: RecurrentFusion | None = None
        self.bias: nn.Parameter | None = None
        """Bias of the sigmoid loss."""
        self.initial_bias = INITIAL_BIAS
        self.frozen = False
        """Whether the towers are frozen."""
        self.pixel_normalizer: PixelNormalizer | None = None
        """Normalization of images; None: the model uses cached features."""
        self.text_limit = 0
        """Largest number of tokens of a text; 0: no limit."""
        self.image_limit = 0
        """The one image size that the model takes; 0: any."""
        self.image_multiple = 1
        """Image sizes are multiples of it."""
        self.compiler: Callable[..., Any] | None = None
        """Calls functions of the towers in training; see `compilation`."""
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    @property
    def text_blocks(self) -> int:
        """Number of blocks of the text tower."""
        return self.text_tower.blocks

    @property
    def vision_blocks(self) -> int:
        """Number of blocks of the vision tower."""
        return self.vision_tower.blocks

    @property
    def joint(self) -> bool:
        """Whether an item's vectors are not a sum of its text and image vectors."""
        return self.late or self.fusion is not None

    def embed_texts(self, texts: Tensor, side: str) -> Tensor:  # noqa: ARG002 - one tower for both
        """[n, D]; late: [n, T, D] with zeros for padding. Not normalized."""
        vectors: Tensor = self._call(self._embed, texts, self.text_tower, self.text_layers)
        return vectors

    def embed_images(self, images: Tensor, side: str) -> Tensor:  # noqa: ARG002 - one for both
        """[n, D]; late: [n, T, D]. Not normalized."""
        vectors: Tensor = self._call(self._embed, images, self.vision_tower, self.vision_layers)
        return vectors

    def train(self, mode: bool = True) -> DualEncoder:
        """Frozen towers stay in evaluation mode: no dropout, and no new running statistics."""
        super().train(mode)
        if self.frozen:
            for tower in (self.text_tower, self.vision_tower):
                for module in tower.modules():
                    module.eval()
        return self

    def scale(self) -> Tensor:
        """Inverse temperature, 0-d; under the sigmoid loss [2], with its bias."""
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        return scale if self.bias is None else torch.stack([scale, self.bias])

    def forward(self, queries: ItemInputs, passages: ItemInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Query and passage vectors, [B, D] or [B, T, D] each, unit length, and `scale()`."""
        if not self.joins(queries, passages):
            return (
                self.encode_items(queries, "query"),
                self.encode_items(passages, "passage"),
                self.scale(),
            )
        sizes = [queries.size, passages.size]
        items = self.encode_items(join_inputs(queries, passages), "query")
        own_queries, own_passages = torch.split(items, sizes)
        return own_queries, own_passages, self.scale()

    def joins(self, queries: ItemInputs, passages: ItemInputs) -> bool:
        """Whether both sides are encoded in one pass: half as many, larger kernels.

        Meant for a GPU (`one_pass`), where the padding of the shorter texts costs less than the
        launches of a second pass: 64 queries of 44 tokens and 64 passages of 77 are 7,744 tokens,
        and 9,856 when padded. A CPU's time goes by tokens, and without padding it gains nothing
        either: 1.04 of two passes' time at batch 64 of `clip-nano`, 0.95 at 16.
        """
        if not (self.one_pass and self.sides_share):
            return False
        return self.text_tower.ignores_padding or not count_join_padding(queries, passages)

    def encode_items(self, inputs: ItemInputs, side: str) -> Tensor:
        """Item vectors [B, D] or [B, T, D]: unit length, zeros where nothing is there."""
        if self.fusion is not None:
            return self._fuse(inputs, self.fusion)
        parts, shape = [], self.late_shape
        for embed, rows, at, tokens in (
            (self.embed_texts, inputs.texts, inputs.text_at, shape.texts),
            (self.embed_images, inputs.images, inputs.image_at, shape.images),
        ):
            if len(at):
                vectors = l2_normalize(self._embed_in_chunks(embed, rows, side))
                parts.append(scatter_rows(vectors, at, inputs.size))
            elif self.late:
                parts.append(self.log_scale.new_zeros(inputs.size, tokens, shape.width))
        if self.late:
            return torch.cat(parts, 1)
        return l2_normalize(torch.stack(parts).sum(0)) if len(parts) > 1 else parts[0]

    def _call(self, function: Callable[..., Any], rows: Tensor, *fixed: Any) -> Any:
        """`function(*fixed, rows)`, by the compiler where there is one."""
        if self.compiler is None:
            return function(*fixed, rows)
        return self.compiler(function, rows, *fixed)

    def _embed(self, tower: EncoderTower, layers: tuple[int, ...], inputs: Tensor) -> Tensor:
        if not self.late and not layers:
            return tower.forward(inputs)
        if not self.late:
            return tower.pool(tower.hidden_states(inputs, layers), inputs)
        if layers:
            tokens = tower.tokens(tower.hidden_states(inputs, layers), inputs)
        else:
            tokens = tower.last_tokens(inputs)
        tokens = tokens * tower.attention_mask(inputs, tokens.shape[1])[:, :, None]
        if tower is self.text_tower:
            tokens = functional.pad(tokens, (0, 0, 0, self.late_shape.texts - tokens.shape[1]))
        return tokens

    def _embed_in_chunks(
        self, embed: Callable[[Tensor, str], Tensor], rows: Tensor, side: str
    ) -> Tensor:
        """Embed rows in chunks without keeping activations (GradCache, Gao et al. 2021).

        The forward pass keeps the vectors only; the backward pass starts from the gradient of the
        whole batch's vectors and recomputes each chunk with the same random numbers. Gradients are
        exact, and activations take the memory of one chunk, for any number of negatives.
        """
        if not self.chunk or not torch.is_grad_enabled():
            return embed(rows, side)
        parts = torch.split(rows, self.chunk)
        return torch.cat([checkpoint(embed, part, side, use_reentrant=False) for part in parts])

    def _fuse(self, inputs: ItemInputs, fusion: RecurrentFusion) -> Tensor:
        def embed(size: int, *tensors: Tensor) -> Tensor:
            return self._fuse_chunk(ItemInputs(size, *tensors), fusion)

        if not self.chunk or not torch.is_grad_enabled():
            return self._fuse_chunk(inputs, fusion)
        # Tensors as arguments: `checkpoint` finds the device of its random state by them.
        return torch.cat(
            [
                checkpoint(
                    embed, p.size, p.texts, p.text_at, p.images, p.image_at, use_reentrant=False
                )
                for p in split_inputs(inputs, self.chunk)
            ]
        )

    def _fuse_chunk(self, inputs: ItemInputs, fusion: RecurrentFusion) -> Tensor:
        text = self._layer_states(self.text_tower, inputs.texts, inputs.text_at, inputs.size)
        vision = self._layer_states(self.vision_tower, inputs.images, inputs.image_at, inputs.size)
        vectors = l2_normalize(fusion(text, vision, pool=not self.late))
        has_any = text.has() | vision.has()
        return vectors * has_any.view(-1, *[1] * (vectors.ndim - 1))

    def _layer_states(
        self, tower: EncoderTower, rows: Tensor, at: Tensor, size: int
    ) -> LayerStates:
        layers = self.text_layers if tower is self.text_tower else self.vision_layers
        if not len(at):
            nothing = self.log_scale.new_zeros(size, 1, tower.width, dtype=self.dtype)
            return LayerStates([nothing] * len(layers), nothing[:, :, 0].bool())
        outputs = self._call(_states, rows, tower, layers)
        states = [scatter_rows(state, at, size) for state in outputs]
        present = tower.attention_mask(rows, states[0].shape[1])
        return LayerStates(states, scatter_rows(present, at, size))


def _states(tower: EncoderTower, layers: tuple[int, ...], rows: Tensor) -> list[Tensor]:
    return tower.hidden_states(rows, layers)


def split_inputs(inputs: ItemInputs, chunk: int) -> list[ItemInputs]:
    """Split inputs into parts of `chunk` items, in order."""
    edges = [min(start, inputs.size) for start in range(0, inputs.size + chunk, chunk)]
    texts, images = (_first_rows(at, edges) for at in (inputs.text_at, inputs.image_at))
    parts = []
    for i, start in enumerate(range(0, inputs.size, chunk)):
        text, image = slice(texts[i], texts[i + 1]), slice(images[i], images[i + 1])
        parts.append(
            ItemInputs(
                min(chunk, inputs.size - start),
                inputs.texts[text],
                inputs.text_at[text] - start,
                inputs.images[image],
                inputs.image_at[image] - start,
            )
        )
    return parts


def _first_rows(at: Tensor, edges: list[int]) -> list[int]:
    """First row of each part, for rows of the items `at`."""
    if len(at) in (0, edges[-1]):
        return [min(edge, len(at)) for edge in edges]
    # One device synchronization per side: rows are ragged, and shapes must be known.
    return torch.searchsorted(at, torch.tensor(edges, device=at.device)).tolist()


def l2_normalize(vectors: Tensor) -> Tensor:
    """Rows scaled to unit length, in float32; a zero row stays zero."""
    return functional.normalize(vectors.float(), dim=-1)


def scatter_rows(vectors: Tensor, at: Tensor, size: int) -> Tensor:
    """Scatter rows to the indices `at` of `size` rows, zeros elsewhere."""
    if len(at) == size:
        return vectors
    return vectors.new_zeros(size, *vectors.shape[1:]).index_copy(0, at, vectors)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Number of all parameters, and of the trained ones."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def count_tower_parameters(model: DualEncoder) -> dict[str, int]:
    """Number of parameters by part: text, vision, fusion, other."""
    counts = {
        "text": sum(p.numel() for p in model.text_tower.parameters()),
        "vision": sum(p.numel() for p in model.vision_tower.parameters()),
        "fusion": sum(p.numel() for p in model.fusion.parameters()) if model.fusion else 0,
    }
    counts["other"] = count_parameters(model)[0] - sum(counts.values())
    return {name: number for name, number in counts.items() if number}
