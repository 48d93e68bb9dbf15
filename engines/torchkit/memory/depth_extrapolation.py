"""A deep model's memory from three shallow ones: all layers of a decoder are alike.

A rehearsal costs time by the layer, and a layer more adds the same bytes to every part at every
moment. So two, three and four layers say what thirty-six need, to the byte. Where the three are not
on one line, for whatever reason, the model is rehearsed whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

DEPTHS: Final = (2, 3, 4)
LEAST: Final = 10
"""Layers from which on three shallow models cost less than the whole one."""

Parts = Mapping[str, int]


class Measured(NamedTuple):
    """What one rehearsal counted."""

    peaks: dict[str, dict[str, int]]
    """Moment -> bytes by part at its peak. One for each thing that can be at work then, as a deeper
    model may have its peak at another moment than a shallow one."""
    counts: dict[str, int]
    """Other numbers that grow with the layers: parameters, bytes of files."""


def at_depth(depth: int, measure: Callable[[int], Measured]) -> Measured:
    """`measure(depth)`, or what three shallow ones say of it."""
    if depth < LEAST:
        return measure(depth)
    found = extended([measure(layers) for layers in DEPTHS], depth)
    return measure(depth) if found is None else found


def extended(shallow: Sequence[Measured], depth: int) -> Measured | None:
    """Of models with `DEPTHS` layers what one with `depth` has; None: they are not on one line."""
    moments = shallow[0].peaks.keys()
    if any(one.peaks.keys() != moments for one in shallow):
        return None
    counts = _line([one.counts for one in shallow], depth)
    peaks = {moment: _line([one.peaks[moment] for one in shallow], depth) for moment in moments}
    if counts is None or any(parts is None for parts in peaks.values()):
        return None
    return Measured({name: parts for name, parts in peaks.items() if parts is not None}, counts)


def _line(rows: Sequence[Parts], depth: int) -> dict[str, int] | None:
    names = rows[0].keys()
    if any(row.keys() != names for row in rows):
        return None
    found = {}
    for name in names:
        first, second, third = (row[name] for row in rows)
        slope = second - first
        if third - second != slope:
            return None
        found[name] = first + slope * (depth - DEPTHS[0])
    return None if any(value < 0 for value in found.values()) else found


def largest(peaks: Mapping[str, Mapping[str, int]], phase: str) -> dict[str, int]:
    """Parts of the moment of a phase (`phase: what is at work`) that has most bytes."""
    own = [dict(parts) for moment, parts in peaks.items() if moment.startswith(f"{phase}: ")]
    return max(own, key=lambda parts: sum(parts.values()))


def layers_of(text: Mapping[str, Any]) -> int:
    """Layers of a decoder's configuration; 0: they are not alike, or nobody says how many."""
    kinds = set(text.get("layer_types") or ())
    if len(kinds) > 1 or text.get("use_sliding_window"):
        return 0
    return int(text.get("num_hidden_layers") or 0)


def shallow(text: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """The configuration with so many layers."""
    kinds = text.get("layer_types")
    cut = {"layer_types": list(kinds)[:layers]} if kinds else {}
    return {**text, "num_hidden_layers": layers, **cut}
