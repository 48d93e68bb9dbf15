"""Numbers as text: durations, sizes, counts, intervals.

All functions take SI units (seconds, bytes), never raise on NaN or infinity, and never print an
unknown as 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

MIB: Final = 2**20
GIB: Final = 2**30


def n_a(reason: str) -> str:
    """Text for an unknown number."""
    return f"n/a ({reason})" if reason else "n/a"


def duration(seconds: float) -> str:
    """`8:01.39`, and `1:02:03` from an hour on, as `/usr/bin/time` writes elapsed time."""
    if not math.isfinite(seconds):
        return number(seconds)
    hundredths = round(abs(seconds) * 100)
    sign = "-" if seconds < 0 and hundredths else ""
    if hundredths >= 360_000:
        return sign + clock(abs(seconds))
    minutes, rest = divmod(hundredths, 6000)
    return f"{sign}{minutes}:{rest // 100:02d}.{rest % 100:02d}"


def clock(seconds: float) -> str:
    """`8:01`, `1:02:03`: to the second."""
    if not math.isfinite(seconds):
        return number(seconds)
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def duration_in_words(seconds: float, lang: str = "en") -> str:
    """`14 min 59 s`, in Korean `14분 59초`."""
    if not math.isfinite(seconds):
        return number(seconds)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    units = ("시간", "분", "초") if lang == "ko" else (" h", " min", " s")
    parts = [(hours, units[0]), (minutes, units[1]), (rest, units[2])]
    filled = [p for i, p in enumerate(parts) if i == 2 or any(v for v, _ in parts[: i + 1])]
    return " ".join(f"{value}{unit}" for value, unit in filled)


def step_time(seconds: float) -> str:
    """A step's time: `86.4 ms`, `1.25 s`."""
    if not math.isfinite(seconds):
        return number(seconds)
    return f"{seconds:.2f} s" if abs(seconds) >= 1 else f"{_digits(seconds * 1e3)} ms"


def step_time_interval(seconds: float, low: float | None, high: float | None) -> str:
    """`86.4 ms [85.9, 87.0]`: all three in the unit of the first."""
    if low is None or high is None or not math.isfinite(seconds):
        return step_time(seconds)
    scale = 1.0 if abs(seconds) >= 1 else 1e3
    digits = 2 if scale == 1.0 else _decimals(seconds * scale)
    return f"{step_time(seconds)} [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"


def joules(value: float) -> str:
    """`0.42 J`, `12.3 J`, `1,234 J`."""
    return f"{number(value, 3)} J"


def flops(value: float) -> str:
    """Operations of floating point: `1.23 TFLOP`, `384 FLOP`."""
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size * 0.9995:  # 999.7 G would be written 1e+03 G
            scaled = value / size
            return f"{scaled:,.0f} {unit}FLOP" if scaled >= 999.5 else f"{scaled:.3g} {unit}FLOP"
    return f"{number(value, 0)} FLOP"


def watts(value: float) -> str:
    """`250 W`."""
    return f"{value:.0f} W"


def cost(name: str, value: float, low: float | None = None, high: float | None = None) -> str:
    """A cost of `results.comparison.costs`: bytes as a size, seconds as a time."""
    if name in ("rss", "vram"):
        return size(value)
    return step_time_interval(value, low, high) if name == "step" else duration(value)


def size(bytes_: float) -> str:
    """`3.15 GiB`, below one GiB `612 MiB`."""
    if not math.isfinite(bytes_):
        return number(bytes_)
    return f"{bytes_ / GIB:.2f} GiB" if abs(bytes_) >= GIB else f"{bytes_ / MIB:,.0f} MiB"


def file_size(bytes_: float) -> str:
    """`35 B`, `41.3 KiB`, from one MiB on as `size`."""
    if bytes_ >= MIB:
        return size(bytes_)
    return f"{bytes_ / 1024:.1f} KiB" if bytes_ >= 1024 else f"{bytes_:.0f} B"


def count(value: float) -> str:
    """`339,137`."""
    return f"{value:,.0f}" if math.isfinite(value) else number(value)


def count_noun(value: int, noun: str) -> str:
    """`1 run`, `2,000 runs`; the plural ends in s."""
    return f"{value:,} {noun}" + ("" if value == 1 else "s")


def number(value: float, digits: int = 4) -> str:
    """`1.5284`; `NaN` and `inf` as such; tiny values as `3.2e-05`, never as 0.0000."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value and abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def interval(value: float, low: float | None, high: float | None, digits: int = 3) -> str:
    """`0.412 [0.389, 0.436]`; without limits the value alone."""
    if low is None or high is None:
        return number(value, digits)
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def percent(share: float) -> str:
    """`4.3 %`."""
    return f"{share * 100:.1f} %" if math.isfinite(share) else number(share)


def rate(per_second: float) -> str:
    """`741.2`; thousands without decimals."""
    if not math.isfinite(per_second):
        return number(per_second)
    return f"{per_second:,.0f}" if abs(per_second) >= 1000 else _digits(per_second)


def parameters(value: float) -> str:
    """Number of weights: `61.3 M`, `1.24 B`, `8,192`."""
    if value >= 1e9:
        return f"{value / 1e9:.2f} B"
    return f"{value / 1e6:.1f} M" if value >= 1e6 else count(value)


def settings(chosen: Mapping[str, Any]) -> str:
    """`lr=0.0003 lora_rank=16`: settings and their values, for a row of a table."""
    return " ".join(f"{name}={setting(value)}" for name, value in chosen.items())


def setting(value: Any) -> str:
    """A setting's value: numbers with four significant digits, everything else as in JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value, ensure_ascii=False)


def _decimals(value: float) -> int:
    """Decimals that leave three to four figures."""
    return 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3


def _digits(value: float) -> str:
    return f"{value:.{_decimals(value)}f}"
