"""Vision towers of Qwen's models on fake tensors: tokens of a picture, pixels, and one pass.

A tower reads values (grids, lengths) that fake tensors lack, so it gets them as numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

Size = tuple[int, int]
"""Height and width of a picture, pixels."""


class VisionPass(NamedTuple):
    """Result of a pass of a tower."""

    features: Tensor
    """[batch x rows, width x (1 + deep layers)]."""
    output: Any
    """The output of the library's model, which its forward pass holds until the decoder's end."""


class FakeTower(Protocol):
    """The vision tower of one type of model."""

    @property
    def factor(self) -> int:
        """Sides of pictures are multiples of it, in pixels."""

    def tokens(self, size: Size) -> int:
        """Tokens of a picture in the prompt."""

    def rows(self, size: Size) -> int:
        """Rows of features of a picture."""

    def sample_bytes(self, size: Size) -> int:
        """Bytes of a picture as it waits on the host."""

    def pixels(self, batch: int, size: Size) -> list[Tensor]:
        """Inputs of the tower for a batch of pictures: float32 pixels first."""

    def encode(self, model: Any, inputs: list[Tensor], batch: int, size: Size) -> VisionPass:
        """The features of a batch of pictures."""

    def decoder_arguments(
        self, mask: Tensor, positions: Tensor, deep: list[Tensor]
    ) -> dict[str, Any]:
        """Arguments of the decoder beside the embeddings.

        Args:
            mask: bool [B, 1, T, T].
            positions: [3, B, T].
            deep: features of the first decoder layers, [n, W] each.
        """

    def prepare(self, model: Any) -> None:
        """Replace code that reads values, before the model is used."""

    def release(self, model: Any) -> None:
        """Release the tower, as a run does whose features are cached."""


@dataclass(frozen=True)
class PatchTower:
    """Qwen2.5-VL's tower: patches of any grid, window attention."""

    config: Mapping[str, Any]

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return int(self.config["vision_config"].get("patch_size", self._default_patch()))

    @staticmethod
    def _default_patch() -> int:
        return 14

    @property
    def merge(self) -> int:
        """Side of a token in patches."""
        return int(self.config["vision_config"].get("spatial_merge_size", 2))

    @property
    def frames(self) -> int:
        """Frames that a still picture is repeated to."""
        return int(self.config["vision_config"].get("temporal_patch_size", 2))

    @property
    def factor(self) -> int:
        """See `FakeTower`."""
        return self.patch * self.merge

    def grid(self, size: Size) -> tuple[int, int]:
        """Rows and columns of patches of a picture."""
        return size[0] // self.patch, size[1] // self.patch

    def tokens(self, size: Size) -> int:
        """See `FakeTower`."""
        return math.prod(self.grid(size)) // self.merge**2

    rows = tokens

    def sample_bytes(self, size: Size) -> int:
        """Patches as uint8, without the repeated frames."""
        return math.prod(self.grid(size)) * 3 * self.patch**2

    def pixels(self, batch: int, size: Size) -> list[Tensor]:
        """Patches [n, values]; positions of patches and order of windows."""
        count = batch * math.prod(self.grid(size))
        patches = torch.zeros(count, 3 * self.patch**2 * self.frames)
        order = torch.zeros(batch * self.tokens(size), dtype=torch.long)
        return [patches, torch.zeros(count, 2, dtype=torch.long), order]

    def encode(self, model: Any, inputs: list[Tensor], batch: int, size: Size) -> VisionPass:
        """One block of each kind: without gradients no layer keeps activations."""
        pixels, places, order = inputs
        tower, grid = model.model.visual, self.grid(size)
        windows = np.cumsum([0, *_window_sizes(grid, tower.config) * batch])
        with _one_block_of_each_kind(tower) as short:
            output = short(
                pixels.to(tower.dtype), grid_thw=None, position_ids=places,
                cu_seqlens=np.arange(batch + 1) * math.prod(grid), window_index=order,
                cu_window_seqlens=windows,
            )  # fmt: skip
        return VisionPass(output.pooler_output, output)

    def decoder_arguments(
        self, mask: Tensor, positions: Tensor, deep: list[Tensor]
    ) -> dict[str, Any]:
        """Masks by kind of layer; linear attention takes none where no question is padded."""
        masks: Any = {"full_attention": mask, "linear_attention": None}
        if not deep:
            return {"attention_mask": masks, "position_ids": positions}
        layers = {"visual_pos_masks": mask, "deepstack_visual_embeds": deep}
        return {"attention_mask": mask, "position_ids": positions, **layers}

    def prepare(self, model: Any) -> None:
        """See `FakeTower`."""

    def release(self, model: Any) -> None:
        """See `FakeTower`."""
        drop_module(model.model, "visual")


class DeepPatchTower(PatchTower):
    """The tower of Qwen3-VL and Qwen3.5: interpolated positions, features for decoder layers."""

    @staticmethod
    def _default_patch() -> int:
        return 16

    def pixels(self, batch: int, size: Size) -> list[Tensor]:
        """Patches [n, values], and the grids [batch, 3], from which the pass computes the rest."""
        patches = super().pixels(batch, size)[0]
        return [patches, torch.zeros(batch, 3, dtype=torch.long)]

    def prepare(self, model: Any) -> None:
        """Features are added to as many rows as are features, not to those of a mask."""
        decoder = model.get_decoder()
        if hasattr(decoder, "_deepstack_process"):
            decoder._deepstack_process = _add_deep_features

    def encode(
        self,
        model: Any,
        inputs: list[Tensor],
        batch: int,
        size: Size,  # noqa: ARG002
    ) -> VisionPass:
        """One block for each layer with features, and one more."""
        pixels, tower = inputs[0], model.model.visual
        count = len(pixels)
        with _few_blocks(tower) as short:
            output = short(
                pixels.to(tower.dtype), grid_thw=None,
                position_ids=torch.zeros(count, 2, dtype=torch.long),
                cu_seqlens=np.arange(batch + 1) * (count // batch), max_seqlen=count // batch,
                interp_indices=torch.zeros(count, 4, dtype=torch.long),
                interp_weights=torch.zeros(count, 4),
            )  # fmt: skip
        deep = getattr(output, "deepstack_features", None) or []
        return VisionPass(torch.cat([output.pooler_output, *deep], 1), output)


def _add_deep_features(hidden: Tensor, _mask: Tensor, features: Tensor) -> Tensor:
    """Hidden states [B, T, W], n of them plus features [n, W], as Qwen3-VL's decoder does."""
    hidden = hidden.clone()
    rows = hidden.view(-1, hidden.shape[-1])[: len(features)]
    rows.copy_(rows.clone() + features)
    return hidden


def drop_module(parent: nn.Module, name: str) -> None:
    """Replace a module by an empty one and release its tensors."""
    for module in parent.get_submodule(name).modules():
        module._parameters.clear()
        module._buffers.clear()
    setattr(parent, name, nn.Module())


@contextmanager
def _one_block_of_each_kind(tower: Any) -> Iterator[Any]:
    """The tower with only one block of window attention and one of full attention, if any."""
    blocks, full_attention = tower.blocks, tower.fullatt_block_indexes
    kinds = {number in full_attention: block for number, block in enumerate(blocks)}
    tower.blocks = nn.ModuleList(kinds.values())
    tower.fullatt_block_indexes = [index for index, is_full in enumerate(kinds) if is_full]
    try:
        yield tower
    finally:
        tower.blocks, tower.fullatt_block_indexes = blocks, full_attention


@contextmanager
def _few_blocks(tower: Any) -> Iterator[Any]:
    """The tower with one block for each layer that decoder layers get features of, and one more."""
    blocks, deep = tower.blocks, getattr(tower, "deepstack_visual_indexes", None)
    tower.blocks = blocks[: len(deep or ()) + 1]
    if deep is not None:
        tower.deepstack_visual_indexes = list(range(len(deep)))
    try:
        yield tower
    finally:
        tower.blocks = blocks
        if deep is not None:
            tower.deepstack_visual_indexes = deep


def _window_sizes(grid: tuple[int, int], config: Any) -> list[int]:
    """Patches of each window of a picture; windows at its edges are smaller."""
    merge = config.spatial_merge_size
    side = config.window_size // merge // config.patch_size * merge
    return [
        min(side, grid[0] - row) * min(side, grid[1] - column)
        for row in range(0, grid[0], side)
        for column in range(0, grid[1], side)
    ]
