"""Formatting of quantities of a running suite: one function for each kind. Pure.

Extends `results.text.formats`, which reports use, by unknown values, equal widths and axis labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from results.text import formats

Formatter = Callable[[float | None], str]

UNKNOWN: Final = "–"

_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def count(value: int | None) -> str:
    """`339,137`."""
    return UNKNOWN if value is None else formats.count(value)


def size(value: float | None) -> str:
    """Bytes with three digits: `3.15 GiB`, `28.1 GiB`, `512 MiB`."""
    if value is None:
        return UNKNOWN
    unit = 0
    while value >= 999.5 and unit < len(_BINARY) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{_three_digits(value)} {_BINARY[unit]}"


def clock(seconds: float | None) -> str:
    """A duration in whole seconds: `0:35`, `8:01`, `1:02:03`."""
    return UNKNOWN if _unknown(seconds) else formats.clock(max(0.0, seconds or 0.0))


def wall(seconds: float | None) -> str:
    """A duration to the hundredth, as reports write it: `8:01.39`."""
    return UNKNOWN if _unknown(seconds) else formats.duration(seconds or 0.0)


def duration(seconds: float | None) -> str:
    """A short duration with its unit: `86.4 ms`, `1.25 s`, `420 µs`."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds >= 0.9995:
        return f"{_three_digits(seconds)} s"
    if seconds >= 0.0009995:
        return f"{_three_digits(seconds * 1e3)} ms"
    return f"{seconds * 1e6:.0f} µs"


def number(value: float | None) -> str:
    """A plain number with four significant digits: `1.528`, `0.03125`, `NaN`."""
    if value is None:
        return UNKNOWN
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-4:
        return f"{value:.2e}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def rate(value: float | None) -> str:
    """Per second: `741.2`, `10,408`."""
    return UNKNOWN if value is None else formats.rate(value)


def joules(value: float | None) -> str:
    """`12.3 J`."""
    return UNKNOWN if _unknown(value) else formats.joules(value or 0.0)


def watts(value: float | None) -> str:
    """`250 W`."""
    return UNKNOWN if _unknown(value) else formats.watts(value or 0.0)


def flops(value: float | None) -> str:
    """Operations of floating point: `1.23 TFLOP`."""
    return UNKNOWN if _unknown(value) else formats.flops(value or 0.0)


def score(value: float | None) -> str:
    """A metric between 0 and 1, all of one width: `0.0574`."""
    return UNKNOWN if value is None else formats.number(value, 4)


def share(value: float | None) -> str:
    """A share (0 to 1) as percent: `3.1 %`."""
    return UNKNOWN if _unknown(value) else formats.percent(value or 0.0)


def percent(value: float | None) -> str:
    """A value in percent (of one core): `187 %`."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.0f} %"


def _unknown(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
