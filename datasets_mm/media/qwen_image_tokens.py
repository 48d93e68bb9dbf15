"""Number of tokens of an image in Qwen2.5-VL, from its size alone.

`data describe` and the engine use the same rounding. Loads no heavy package.
"""

from __future__ import annotations

import math
from typing import Final

FACTOR: Final = 28
"""Pixels of a token's edge: patches of 14, merged two by two."""
MIN_PIXELS: Final = 56 * 56
MAX_PIXELS: Final = FACTOR * FACTOR * 1280
LONG_SIDES: Final = (384, 512, 768)
"""Longer sides in pixels that the users' notebook offers."""


def smart_resize(
    height: int,
    width: int,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
    factor: int = FACTOR,
) -> tuple[int, int]:
    """(height, width) in multiples of `factor`, about as before, the area within its bounds.

    Source: Qwen2-VL's image processor, `smart_resize`; for pictures beyond its ratio of 200, which
    it refuses, the same rule goes on.
    """
    high, wide = (round(edge / factor) * factor for edge in (height, width))
    if high * wide > max_pixels:
        shrink = math.sqrt(height * width / max_pixels) * factor
        high, wide = (max(1, math.floor(edge / shrink)) * factor for edge in (height, width))
    elif high * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width)) / factor
        high, wide = (math.ceil(edge * grow) * factor for edge in (height, width))
    return high, wide


def image_tokens(width: int, height: int, long_side: int) -> int:
    """Tokens of a picture whose longer side becomes `long_side` pixels: whole ones, at least 1."""
    scale = long_side / max(width, height) / FACTOR
    return max(1, round(height * scale)) * max(1, round(width * scale))
