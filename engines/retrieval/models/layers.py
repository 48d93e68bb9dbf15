"""Layer selection: the blocks of a tower whose features are used.

The weekly report's `3, 7, 11` are indexes, from 0, into 12 blocks (ReT's
`output_hidden_states[1:][i]`). A tower with fewer blocks takes those at the same relative depth: on
TinyCLIP's 9 text blocks they become `2, 5, 8`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engines.emitter import EngineError

SCALE: Final = 12
"""Scale of `layers` in blocks, unless a tower is deeper."""


def map_layers(
    layers: Sequence[int], blocks: int, scale: int, *, distinct: bool = True
) -> tuple[int, ...]:
    """Map indexes on a scale of `scale` blocks to a tower with `blocks` blocks.

    The end of block i lies at depth (i + 1) / scale; the block with the nearest end is chosen.
    `distinct`: two that fall together count once, as a mean should. A recurrence over both towers
    side by side reads such a block twice instead.
    """
    indices = tuple(max(1, round((i + 1) * blocks / scale)) - 1 for i in layers)
    return tuple(dict.fromkeys(indices)) if distinct else indices


def choose_layers(
    layers: Sequence[int],
    exact: Sequence[int],
    blocks: int,
    scale: int,
    tower: str,
    *,
    distinct: bool = True,
) -> tuple[int, ...]:
    """Blocks of one tower, `exact` before `layers`; empty: the tower's output.

    Raises:
        EngineError: an index is out of range.
    """
    limit, indices, key = (blocks, exact, f"{tower}_layers") if exact else (scale, layers, "layers")
    if bad := [i for i in indices if not 0 <= i < limit]:
        allowed = (
            f"the {tower} tower has {blocks} blocks and takes 0 to {limit - 1}"
            if exact
            else f"layers count on a scale of {scale} blocks and go from 0 to {limit - 1} "
            f"(the {tower} tower has {blocks})"
        )
        raise EngineError(f"{key} = {list(indices)}: {bad[0]} is out of range; {allowed}")
    return tuple(exact) if exact else map_layers(layers, blocks, scale, distinct=distinct)


def describe_layers(layers: Sequence[int], text: Sequence[int], vision: Sequence[int]) -> str:
    """The selection in words, for the facts of a run: `3,7,11 -> text 2,5,8; vision 3,7,11`."""
    named = [
        f"{tower} {','.join(map(str, chosen)) or 'own output'}"
        for tower, chosen in (("text", text), ("vision", vision))
    ]
    requested = ",".join(map(str, layers))
    return f"{requested} -> {'; '.join(named)}" if requested else "; ".join(named)
