"""Pictures as the patches that Qwen2-VL and its successors read.

Patches stay uint8 until they are on the device: a quarter of the bytes, without the doubled time
axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.vqa.models.chat_template import Encoded, Said, Wording
from engines.vqa.models.model import PIXELS, VqaBatch, padded

Patches = npt.NDArray[np.uint8]


class Grid(NamedTuple):
    """Patches of a picture."""

    rows: int
    columns: int


@dataclass(frozen=True)
class Patching:
    """What the image processor says of patches and colours."""

    wording: Wording
    patch: int
    merge: int
    """Patches a side that become one token."""
    frames: int
    """A picture is shown as so many equal frames."""
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, processor: Any, wording: Wording) -> Self | None:
        """Of a processor; None where it has not all of these numbers."""
        eye: Any = getattr(processor, "image_processor", None)
        try:
            made = cls(
                wording, int(eye.patch_size), int(eye.merge_size), int(eye.temporal_patch_size),
                tuple(map(float, eye.image_mean)), tuple(map(float, eye.image_std)),
            )  # fmt: skip
        except (AttributeError, TypeError, ValueError):
            return None
        return None if wording.image is None else made

    @property
    def factor(self) -> int:
        """Pixels a side of one token."""
        return self.patch * self.merge

    @property
    def blank(self) -> tuple[int, int, int]:
        """The mean colour."""
        red, green, blue = (round(one * 255) for one in self.mean)
        return red, green, blue

    def grid(self, height: int, width: int) -> Grid:
        """Patches of a picture."""
        return Grid(height // self.patch, width // self.patch)

    def tokens(self, height: int, width: int) -> int:
        """Tokens of a picture."""
        grid = self.grid(height, width)
        return grid.rows * grid.columns // self.merge**2

    def batch(self, said: Sequence[Said], pictures: Sequence[Patches]) -> VqaBatch:
        """Questions with their pictures, padded on the left."""
        tokens = [self.tokens(*picture.shape[:2]) for picture in pictures]
        encoded = [self.wording.encode(*one) for one in zip(said, tokens, strict=True)]
        return self.collate(encoded, pictures)

    def unseen(self, said: Sequence[Said], sizes: Sequence[tuple[int, ...]]) -> VqaBatch:
        """The same without pixels, of pictures of these heights and widths."""
        encoded = [
            self.wording.encode(one, self.tokens(*size))
            for one, size in zip(said, sizes, strict=True)
        ]
        return self._placed(encoded, sizes)

    def collate(self, encoded: Sequence[Encoded], pictures: Sequence[Patches]) -> VqaBatch:
        """The same of questions as tokens; without pictures, words alone."""
        if not pictures:
            return padded(encoded, self.wording.pad)
        words = self._placed(encoded, [picture.shape[:2] for picture in pictures])
        patches = np.concatenate([self.cut(picture) for picture in pictures])
        return words.showing({**words.seen, PIXELS: torch.from_numpy(patches)})

    def _placed(self, encoded: Sequence[Encoded], sizes: Sequence[tuple[int, ...]]) -> VqaBatch:
        """Questions as tokens, with the places of their pictures."""
        words = padded(encoded, self.wording.pad)
        longest = words.ids.shape[1]
        types = [np.pad(one.types, (longest - len(one.types), 0)) for one in encoded]
        seen = {
            # Without them Qwen2.5-VL gives pictures the places of text, unsaid.
            "mm_token_type_ids": torch.from_numpy(np.stack(types)),
            "image_grid_thw": torch.tensor([[1, *self.grid(*size)] for size in sizes]),
        }
        return words.showing(seen)

    def cut(self, pixels: npt.NDArray[np.uint8]) -> Patches:
        """[h, w, 3] -> [rows x columns, 3, patch, patch], tokens one after the other."""
        p, m = self.patch, self.merge
        rows, columns = self.grid(*pixels.shape[:2])
        split = pixels.reshape(rows // m, m, p, columns // m, m, p, 3)
        # token row, token column, patch row in it, patch column in it, channel, y, x
        return np.ascontiguousarray(split.transpose(0, 3, 1, 4, 6, 2, 5)).reshape(-1, 3, p, p)

    def values(self, patches: Tensor) -> Tensor:
        """uint8 [n, 3, p, p] -> what the tower takes, float32 [n, 3 x frames x p x p]."""
        mean, std = (
            torch.tensor(numbers, device=patches.device).view(1, 3, 1, 1)
            for numbers in (self.mean, self.std)
        )
        shown = (patches.float() / 255 - mean) / std
        return shown.unsqueeze(2).expand(-1, -1, self.frames, -1, -1).flatten(1)
