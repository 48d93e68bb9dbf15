"""What a Qwen-VL forward pass reads from its inputs, computed on the host before the batch leaves.

transformers (5.23) reads the picture grids, the token types and the padding mask in the forward
pass itself: on a GPU each of these waits for it, about a hundred times a step with Qwen2.5-VL. All
of it follows from the batch alone, so it is computed here, by transformers' own functions, in the
threads that prepare batches.
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
from engines.vqa.models.processor import Sight
from engines.vqa.models.qwen_patches import Patching

TYPES: Final = "mm_token_type_ids"
GRID: Final = "image_grid_thw"
UNCHECKED: Final = "TRANSFORMERS_DISABLE_TORCH_CHECK"
"""transformers' switch for checks that read a tensor: here the number of picture tokens, which
`Layout.of_batch` compares on the host."""


@dataclass(frozen=True)
class Layout:
    """Of one model: its M-RoPE, and its vision tower where that has windows."""

    model: Any
    """The module with `get_rope_index`."""
    tower: Any | None
    """Qwen2.5-VL's; None: another kind, which reads its grids itself."""

    def __post_init__(self) -> None:
        os.environ[UNCHECKED] = "1"

    @classmethod
    def of(cls, whole: Any, sight: Sight) -> Self | None:
        """Of a model of transformers; None where nothing can be computed ahead.

        The tower attends with packed attention afterwards.
        """
        model = getattr(whole, "model", None)
        if not isinstance(sight, Patching) or not hasattr(model, "get_rope_index"):
            return None
        kinds = set(getattr(whole.config.get_text_config(), "layer_types", None) or ())
        if kinds - {"full_attention"}:
            return None  # a sliding window needs a mask of its own
        tower = getattr(model, "visual", None)
        if not hasattr(tower, "fullatt_block_indexes"):
            return cls(model, None)
        attention.use_packed_attention(tower)
        return cls(model, tower)

    def of_batch(self, batch: VqaBatch) -> VqaBatch:
        """The batch, on the host, with everything that its forward pass would read.

        Raises:
            ValueError: features or patches are not as many as the tokens of the pictures.
        """
        seen = dict(batch.seen)
        types, grid = seen.pop(TYPES), seen.pop(GRID)
        self._check(types, grid, seen)
        places, _ = self.model.get_rope_index(
            batch.ids, mm_token_type_ids=types, image_grid_thw=grid, attention_mask=batch.mask
        )
        seen["position_ids"] = places
        host: dict[str, Any] = {}
        if FEATURES not in seen:
            if self.tower is None:
                seen[GRID] = grid
            else:
                moved, host = tower_inputs(self.tower, grid)
                seen |= moved
        return replace(batch, seen=seen, host=host, padded=not bool(batch.mask.all()))

    def _check(self, types: Tensor, grid: Tensor, seen: dict[str, Tensor]) -> None:
        tokens, patches = int((types == IMAGE).sum()), int(grid.prod(1).sum())
        merge = self.model.config.vision_config.spatial_merge_size**2
        rows = len(seen[FEATURES]) if FEATURES in seen else len(seen[PIXELS]) // merge
        if not tokens == rows == patches // merge:
            raise ValueError(f"{rows} rows of pictures for {tokens} tokens of {patches} patches")


def tower_inputs(tower: Any, grid: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What Qwen2.5-VL's tower reads of a grid [pictures, 3]: for the device, and for the host
    (arrays of numpy, which nothing moves to a device).

    Windows of a picture stand in the order of their lengths, so that packed attention meets few
    runs: the tower puts patches into any order that it is given and back again. Attention over the
    whole picture then adds up in another order than transformers' own (1e-6 of the features in
    fp32).
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
