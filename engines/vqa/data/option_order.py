"""Orders in which the four options of a question are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

Permutation = tuple[int, int, int, int]
"""At letter i stands option `permutation[i]`."""

IDENTITY: Final[Permutation] = (0, 1, 2, 3)
ROTATIONS: Final[tuple[Permutation, ...]] = (
    IDENTITY, (1, 2, 3, 0), (2, 3, 0, 1), (3, 0, 1, 2),
)  # fmt: skip


def permute_options(options: Sequence[str], permutation: Permutation) -> list[str]:
    """The options as they are shown: at letter i stands option `permutation[i]`."""
    return [options[index] for index in permutation]
