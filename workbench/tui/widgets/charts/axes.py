"""Axes of charts: value ranges, round ticks and where they stand. Pure."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Final, Literal

from workbench.tui.view_models.cells import Points

Clip = Literal["none", "low", "both"]
"""Which outliers of a curve may lie outside its chart."""
CLIPPED_SHARE: Final = 0.03
"""Of the values, at one end."""
MIN_CLIPPED: Final = 20
"""With fewer values none is clipped."""
MANTISSAS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
MINUTES: Final = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0)


def value_span(curves: Sequence[Points], clip: Clip = "none") -> tuple[float, float] | None:
    """Smallest and largest y of the curves, without outliers as `clip` says; None: no finite y."""
    ys = sorted(y for points in curves for _, y in points if math.isfinite(y))
    if not ys:
        return None
    out = int(CLIPPED_SHARE * len(ys)) if len(ys) >= MIN_CLIPPED and clip != "none" else 0
    return ys[out], ys[-1 - (out if clip == "both" else 0)]


def round_ticks(low: float, high: float, count: int, unit: float = 10.0) -> list[float]:
    """About `count` round values from `low` to `high`, at least two where that is possible.

    `unit` 1024: of bytes; 60: of seconds.
    """
    ticks: list[float] = []
    for refined in (count, 2 * count, 4 * count):
        ticks = _ticks_of(low, high, refined, unit)
        if len(ticks) > 1:
            break
    return ticks


def _ticks_of(low: float, high: float, count: int, unit: float) -> list[float]:
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low or count < 1:
        return [low] if math.isfinite(low) else []
    raw = high / count - low / count
    if raw < sys.float_info.min:  # no number with all of its digits lies between them
        return [low]
    step = _round_step(raw, unit)
    if not math.isfinite(high / step - low / step):
        return [low]
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, min(last, first + 50) + 1)]


def _round_step(raw: float, unit: float) -> float:
    if unit == 1024.0:
        return 2.0 ** math.ceil(math.log2(raw) - 1e-9)
    if unit == 60.0 and raw > 1.0:
        scale = 60.0 ** max(0, math.floor(math.log(raw, 60)))
        return next((m * scale for m in MINUTES if m * scale >= raw), 60.0 * scale)
    power = 10.0 ** math.floor(math.log10(raw))
    return next((m * power for m in MANTISSAS if m * power >= raw * 0.999), 10 * power)


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Powers of ten from `low` to `high`, both above 0; with fewer than two also 2 and 5 times."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1,), (1, 2, 5)):
        ticks = [m * 10.0**p for p in powers for m in mantissas if low <= m * 10.0**p <= high]
        if len(ticks) >= 2:
            return ticks[:: max(1, -(-len(ticks) // max(count, 1)))]
    return ticks or [low]
