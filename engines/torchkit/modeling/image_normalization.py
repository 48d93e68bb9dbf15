"""Pixel statistics of a model folder's preprocessor_config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from engines.emitter import EngineError

PREPROCESSOR: Final = "preprocessor_config.json"


def read_pixel_statistics(folder: Path) -> tuple[tuple[float, ...], ...]:
    """Mean and standard deviation of the channels, 3 numbers each; empty: not in the folder.

    Raises:
        EngineError: they are not of three channels.
    """
    try:
        stated = json.loads((folder / PREPROCESSOR).read_text(encoding="utf-8"))
        mean, std = tuple(map(float, stated["image_mean"])), tuple(map(float, stated["image_std"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise EngineError(
            f"{folder / PREPROCESSOR}: image_mean and image_std are not of 3 channels"
        )
    return mean, std
