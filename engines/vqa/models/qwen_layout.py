"""Precomputes on the host what a Qwen-VL forward pass would read from its inputs.

transformers (5.23) reads the values of image grids, token types and padding mask in the forward
pass: on a GPU each read synchronizes, about a hundred times per step with Qwen2.5-VL. All follow
from the batch alone and are computed here, by transformers' functions, in the threads that prepare
batches.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import torch
from torch import Tensor

from engines.torchkit.modeling import attention
from engines.vqa.models.chat_template import IMAGE
from engines.vqa.models.model import FEATURES, PIXELS, VqaBatch
from engines.vqa.models.processor import ImageTextProcessor
from engines.vqa.models.qwen_patches import QwenPatchProcessor

TYPES: Final = "mm_token_type_ids"
GRID: Final = "image_grid_thw"
UNCHECKED: Final = "TRANSFORMERS_DISABLE_TORCH_CHECK"
"""Environment variable that turns off checks of transformers that read a tensor: the number of
image tokens, which `QwenInputLayout.add_inputs` compares on the host."""


@dataclass(frozen=True)
class QwenInputLayout:
    """Precomputed inputs of one model: of M-RoPE, and of a vision tower with window attention."""

    model: Any
    """The module with `get_rope_index`."""
    tower: Any | None
    """The tower of Qwen2.5-VL; None: another one, which reads its grids itself."""

    def __post_init__(self) -> None:
        os.environ[UNCHECKED] = "1"

    @classmethod
    def from_model(cls, full_model: Any, processor: ImageTextProcessor) -> Self | None:
        """The layout of a transformers model; None: nothing can be precomputed.

        Sets the tower to packed attention.
        """
        model = getattr(full_model, "model", None)
        if not isinstance(processor, QwenPatchProcessor) or not hasattr(model, "get_rope_index"):
            return None
        kinds = set(getattr(full_model.config.get_text_config(), "layer_types", None) or ())
        if kinds - {"full_attention"}:
            return None  # a sliding window needs a mask of its own
        tower = getattr(model, "visual", None)
        if not hasattr(tower, "fullatt_block_indexes"):
            return cls(model, None)
        attention.use_packed_attention(tower)
        return cls(model, tower)

    def add_inputs(self, batch: VqaBatch) -> VqaBatch:
        """The batch, on the host, with all inputs that its forward pass would compute from values.

        Raises:
            ValueError: the number of features or patches does not match the image tokens.
        """
        vision = dict(batch.vision)
        types, grid = vision.pop(TYPES), vision.pop(GRID)
        self._check_counts(types, grid, vision)
        positions, _ = self.model.get_rope_index(
            batch.ids, mm_token_type_ids=types, image_grid_thw=grid, attention_mask=batch.mask
        )
        vision["position_ids"] = positions
        host: dict[str, Any] = {}
        if FEATURES not in vision:
            if self.tower is None:
                vision[GRID] = grid
            else:
                moved, host = tower_inputs(self.tower, grid)
                vision |= moved
        return replace(batch, vision=vision, host=host, padded=not bool(batch.mask.all()))

    def _check_counts(self, types: Tensor, grid: Tensor, vision: dict[str, Tensor]) -> None:
        tokens, patches = int((types == IMAGE).sum()), int(grid.prod(1).sum())
        merge = self.model.config.vision_config.spatial_merge_size**2
        rows = len(vision[FEATURES]) if FEATURES in vision else len(vision[PIXELS]) // merge
        if not tokens == rows == patches // merge:
            raise ValueError(f"{rows} rows of pictures for {tokens} tokens of {patches} patches")


def tower_inputs(tower: Any, grid: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Inputs of Qwen2.5-VL's tower for a grid [pictures, 3], for device and host (numpy).

    The windows of a picture are sorted by length, so that packed attention has few runs; the tower
    restores the order of patches. Attention over the full picture then sums in another order than
    in transformers (a difference of 1e-6 of the features in fp32).
    """
    from transformers import vision_utils

    config = tower.config
    merge, unit = config.spatial_merge_size, config.spatial_merge_size**2
    index, ends = vision_utils.get_vision_window_index(
        grid, spatial_merge_size=merge, window_size=config.window_size,
        patch_size=config.patch_size,
    )  # fmt: skip
    lengths = np.diff(ends.numpy())
    whole = vision_utils.get_vision_cu_seqlens(grid).numpy()
    picture = np.searchsorted(whole, ends.numpy()[:-1], side="right")
    order = np.lexsort((lengths, picture))  # the last key counts first
    windows = np.split(index.numpy(), np.cumsum(lengths[:-1] // unit))
    moved = {
        "image_position_ids": vision_utils.get_vision_position_ids(grid, merge),
        "image_window_index": torch.from_numpy(np.concatenate([windows[at] for at in order])),
    }
    host = {
        GRID: grid.numpy(),
        "image_cu_seqlens": whole,
        "image_cu_window_seqlens": np.cumsum([0, *lengths[order]]),
        "image_max_seqlen": int(np.diff(whole).max()),
        "image_max_window_seqlen": int(lengths.max()),
    }
    return moved, host
