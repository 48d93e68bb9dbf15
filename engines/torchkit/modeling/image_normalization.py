"""Pixel statistics of a model folder's preprocessor_config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, NamedTuple

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
