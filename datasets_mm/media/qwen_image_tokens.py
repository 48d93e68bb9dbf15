"""Number of tokens of an image in Qwen2.5-VL, from its size alone.

Loads no heavy package.
"""

from __future__ import annotations

from typing import Final

FACTOR: Final = 28
"""Pixels of a token's edge: patches of 14, merged two by two."""
LONG_SIDES: Final = (384, 512, 768)
"""Longer sides in pixels that the users' notebook offers."""


def image_tokens(width: int, height: int, long_side: int) -> int:
    """Tokens of a picture whose longer side becomes `long_side` pixels: whole ones, at least 1."""
    scale = long_side / max(width, height) / FACTOR
    return max(1, round(height * scale)) * max(1, round(width * scale))
