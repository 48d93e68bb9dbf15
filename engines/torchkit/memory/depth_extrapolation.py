"""Linear extrapolation of a decoder's memory from three shallow models to its depth.

A fake run takes time by the layer, and each layer adds the same bytes to every part at every
moment. So two, three and four layers give the bytes of thirty-six exactly. Where the three are not
on one line, the whole model is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

DEPTHS: Final = (2, 3, 4)
LEAST: Final = 10
"""Layers from which on three shallow models cost less than the whole one."""

Parts = Mapping[str, int]


class Measurement(NamedTuple):
    """Result of one fake run."""

    peaks: dict[str, dict[str, int]]
    """Moment -> bytes by part at its peak. One moment for each part that can allocate, as a deeper
    model may have its peak at another moment than a shallow one."""
    counts: dict[str, int]
    """Other numbers that grow with the layers: parameters, bytes of files."""


def measure_at_depth(depth: int, measure: Callable[[int], Measurement]) -> Measurement:
    """`measure(depth)`, extrapolated from three shallow models where that is cheaper."""
    if depth < LEAST:
        return measure(depth)
    result = extrapolate([measure(layers) for layers in DEPTHS], depth)
    return measure(depth) if result is None else result


def extrapolate(measurements: Sequence[Measurement], depth: int) -> Measurement | None:
    """Extrapolate measurements at `DEPTHS` to `depth`; None: they are not on one line."""
    moments = measurements[0].peaks.keys()
    if any(measurement.peaks.keys() != moments for measurement in measurements):
        return None
    counts = _extrapolate_line([measurement.counts for measurement in measurements], depth)
    peaks = {
        moment: _extrapolate_line(
            [measurement.peaks[moment] for measurement in measurements], depth
        )
        for moment in moments
    }
    if counts is None or any(parts is None for parts in peaks.values()):
        return None
    return Measurement({name: parts for name, parts in peaks.items() if parts is not None}, counts)


def _extrapolate_line(rows: Sequence[Parts], depth: int) -> dict[str, int] | None:
    names = rows[0].keys()
    if any(row.keys() != names for row in rows):
        return None
    values = {}
    for name in names:
        first, second, third = (row[name] for row in rows)
        slope = second - first
        if third - second != slope:
            return None
        values[name] = first + slope * (depth - DEPTHS[0])
    return None if any(value < 0 for value in values.values()) else values


def largest_moment(peaks: Mapping[str, Mapping[str, int]], phase: str) -> dict[str, int]:
    """Parts of the moment of a phase (named `phase: part`) with most bytes."""
    moments = [dict(parts) for moment, parts in peaks.items() if moment.startswith(f"{phase}: ")]
    return max(moments, key=lambda parts: sum(parts.values()))


def count_layers(text: Mapping[str, Any]) -> int:
    """Number of layers of a decoder's configuration; 0: unknown, or they are not alike."""
    kinds = set(text.get("layer_types") or ())
    if len(kinds) > 1 or text.get("use_sliding_window"):
        return 0
    return int(text.get("num_hidden_layers") or 0)


def with_layers(text: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """The configuration with `layers` layers."""
    kinds = text.get("layer_types")
    cut = {"layer_types": list(kinds)[:layers]} if kinds else {}
    return {**text, "num_hidden_layers": layers, **cut}
