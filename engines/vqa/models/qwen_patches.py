"""Cuts pictures into the patches that Qwen2-VL and its successors take.

Patches are uint8 until they are on the device: a quarter of the bytes, without the repeated frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.vqa.models.chat_template import ChatTemplate, ChoicePrompt, EncodedQuestion
from engines.vqa.models.model import PIXELS, VqaBatch, pad_questions

Patches = npt.NDArray[np.uint8]


class PatchGrid(NamedTuple):
    """Rows and columns of patches of a picture."""

    rows: int
    columns: int


@dataclass(frozen=True)
class QwenPatchProcessor:
    """Makes batches of a Qwen-VL model from the sizes and statistics of its image processor."""

    template: ChatTemplate
    patch: int
    merge: int
    """Side of a token in patches."""
    frames: int
    """Frames that a picture is repeated to."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    _statistics: dict[torch.device, tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def from_hf_processor(cls, processor: Any, template: ChatTemplate) -> Self | None:
        """From a processor of transformers; None: it lacks one of these numbers."""
        image_processor: Any = getattr(processor, "image_processor", None)
        try:
            patches = cls(
                template, int(image_processor.patch_size), int(image_processor.merge_size),
                int(image_processor.temporal_patch_size),
                tuple(map(float, image_processor.image_mean)),
                tuple(map(float, image_processor.image_std)),
            )  # fmt: skip
        except (AttributeError, TypeError, ValueError):
            return None
        return None if template.image is None else patches

    @property
    def factor(self) -> int:
        """Side of a token in pixels."""
        return self.patch * self.merge

    @property
    def mean_color(self) -> tuple[int, int, int]:
        """The mean color (RGB, 0 to 255)."""
        red, green, blue = (round(channel * 255) for channel in self.mean)
        return red, green, blue

    def grid(self, height: int, width: int) -> PatchGrid:
        """Rows and columns of patches of a picture."""
        return PatchGrid(height // self.patch, width // self.patch)

    def count_image_tokens(self, height: int, width: int) -> int:
        """Number of tokens of a picture."""
        grid = self.grid(height, width)
        return grid.rows * grid.columns // self.merge**2

    def batch(self, prompts: Sequence[ChoicePrompt], pictures: Sequence[Patches]) -> VqaBatch:
        """Prompts with their pictures, padded on the left."""
        tokens = [self.count_image_tokens(*picture.shape[:2]) for picture in pictures]
        encoded = [self.template.encode(*pair) for pair in zip(prompts, tokens, strict=True)]
        return self.collate(encoded, pictures)

    def batch_without_pixels(
        self, prompts: Sequence[ChoicePrompt], sizes: Sequence[tuple[int, ...]]
    ) -> VqaBatch:
        """As `batch`, without pixels; `sizes`: heights and widths of the pictures."""
        encoded = [
            self.template.encode(prompt, self.count_image_tokens(*size))
            for prompt, size in zip(prompts, sizes, strict=True)
        ]
        return self._with_grids(encoded, sizes)

    def collate(self, encoded: Sequence[EncodedQuestion], pictures: Sequence[Patches]) -> VqaBatch:
        """A batch of encoded questions; without pictures, text only."""
        if not pictures:
            return pad_questions(encoded, self.template.pad)
        words = self._with_grids(encoded, [picture.shape[:2] for picture in pictures])
        patches = np.concatenate([self.cut_patches(picture) for picture in pictures])
        return words.with_vision({**words.vision, PIXELS: torch.from_numpy(patches)})

    def _with_grids(
        self, encoded: Sequence[EncodedQuestion], sizes: Sequence[tuple[int, ...]]
    ) -> VqaBatch:
        """A batch of encoded questions with token types and image grids."""
        words = pad_questions(encoded, self.template.pad)
        longest = words.ids.shape[1]
        types = [np.pad(question.types, (longest - len(question.types), 0)) for question in encoded]
        vision = {
            # Without them Qwen2.5-VL silently gives image tokens the positions of text.
            "mm_token_type_ids": torch.from_numpy(np.stack(types)),
            "image_grid_thw": torch.tensor([[1, *self.grid(*size)] for size in sizes]),
        }
        return words.with_vision(vision)

    def cut_patches(self, pixels: npt.NDArray[np.uint8]) -> Patches:
        """[h, w, 3] -> [rows x columns, 3, patch, patch], token by token."""
        p, m = self.patch, self.merge
        rows, columns = self.grid(*pixels.shape[:2])
        split = pixels.reshape(rows // m, m, p, columns // m, m, p, 3)
        # token row, token column, patch row in it, patch column in it, channel, y, x
        return np.ascontiguousarray(split.transpose(0, 3, 1, 4, 6, 2, 5)).reshape(-1, 3, p, p)

    def normalize_pixels(self, patches: Tensor) -> Tensor:
        """uint8 [n, 3, p, p] -> normalized float32 [n, 3 x frames x p x p] for the tower."""
        mean, std = self._channel_statistics(patches.device)
        shown = (patches.float() / 255 - mean) / std
        return shown.unsqueeze(2).expand(-1, -1, self.frames, -1, -1).flatten(1)

    def _channel_statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the channels on a device, [1, 3, 1, 1] each.

        Kept, since copying them from pageable memory waits for all that the stream has to do.
        """
        if device not in self._statistics:
            mean, std = (
                torch.tensor(numbers, device=device).view(1, 3, 1, 1)
                for numbers in (self.mean, self.std)
            )
            self._statistics[device] = mean, std
        return self._statistics[device]
