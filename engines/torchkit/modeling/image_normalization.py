"""Pixel normalization on the device, by statistics of a model folder's preprocessor_config.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from engines.emitter import EngineError

PREPROCESSOR: Final = "preprocessor_config.json"


class PixelStatistics(NamedTuple):
    """Mean and standard deviation of the channels, for pixels between 0 and 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


CLIP: Final = PixelStatistics(
    (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
)
"""Of CLIP's training images, where a folder states none."""
SIGLIP: Final = PixelStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Of SigLIP and Qwen3-VL, where a folder states none."""
EFFICIENTNET: Final = PixelStatistics((127 / 255,) * 3, (128 / 255,) * 3)
"""Of EfficientNet-Lite0: as TensorFlow's Lite models scale, from which it was converted. ImageNet's
mean and std, as in the package's example, give a held-out R@1 of 0.21 for 0.24."""


def read_pixel_statistics(folder: Path, default: PixelStatistics) -> PixelStatistics:
    """The statistics that a folder states, else `default`.

    Raises:
        EngineError: they are not of three channels.
    """
    try:
        stated = json.loads((folder / PREPROCESSOR).read_text(encoding="utf-8"))
        mean, std = tuple(map(float, stated["image_mean"])), tuple(map(float, stated["image_std"]))
    except (OSError, ValueError, KeyError, TypeError):
        return default
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise EngineError(
            f"{folder / PREPROCESSOR}: image_mean and image_std are not of 3 channels"
        )
    return PixelStatistics(mean, std)


class PixelNormalizer(nn.Module):
    """Pixel normalization on the device: uint8 [n, S, S, 3] -> `dtype` [n, 3, S, S]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """`mean` and `std` of the channels, for pixels between 0 and 1."""
        super().__init__()
        self.dtype = torch.float32
        self.register_buffer("shift", torch.tensor(mean, dtype=torch.float32) * 255, False)
        self.register_buffer("gain", 1 / (torch.tensor(std, dtype=torch.float32) * 255), False)
        self.shift: Tensor
        self.gain: Tensor
        self._rows: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Normalized in float32, channels first.

        In place, and a row of the image at a time: vectors of three channels are slow on a CPU (64
        images of 224 px: 23 ms instead of 10), and each tensor of 38 MB is 9,400 page faults.
        """
        shift, gain = self._of_row(images.shape[2], images.device)
        rows = images.flatten(2).float().sub_(shift).mul_(gain)
        return rows.to(self.dtype).view(images.shape).permute(0, 3, 1, 2)

    def _of_row(self, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Shift and gain of a row of pixels, [3 width] each."""
        if (width, device) not in self._rows:
            self._rows[width, device] = self.shift.repeat(width), self.gain.repeat(width)
        return self._rows[width, device]
