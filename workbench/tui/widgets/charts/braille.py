"""Line charts of braille characters. Pure.

No library: `textual-plotext` is unmaintained since 2024 and pins plotext below 6, and neither draws
charts of few lines well. One braille cell has 2 x 4 dots, so a chart of 24 x 4 cells shows 48 x 16
points.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final

from workbench.tui.view_models.cells import Points

_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of a dot by its row from the top and its column: the order of Unicode's braille block."""

_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"


def y_range(points: Points) -> tuple[float, float] | None:
    """Smallest and largest finite y; None when there is none."""
    finite = [y for _, y in points if math.isfinite(y)]
    return (min(finite), max(finite)) if finite else None


Window = tuple[float, float]
"""First and last value of an axis."""


def braille_lines(
    points: Points,
    width: int,
    height: int,
    window: Window | None = None,
    span: Window | None = None,
) -> list[str]:
    """The curve as `height` lines of `width` braille cells.

    Values that are not finite leave a gap. `window`, `span`: ranges of x and y that the box shows,
    the curve's own by default; values beyond `span` lie on its border.
    """
    columns = _columns(points, width * 2, window)
    grid = [[0] * width for _ in range(height)]
    span = span or y_range([(0.0, y) for y in columns if y is not None])
    if span is None:
        return [" " * width] * height
    top = height * 4 - 1
    before: int | None = None
    for x, y in enumerate(columns):
        if y is None:
            before = None
            continue
        row = _row(y, span, top)
        for dot in _between(before, row):
            grid[dot // 4][x // 2] |= _DOTS[dot % 4][x % 2]
        before = row
    return ["".join(chr(0x2800 + c) if c else " " for c in line) for line in grid]


def block_lines(
    points: Points,
    width: int,
    height: int,
    window: Window | None = None,
    span: Window | None = None,
) -> list[str]:
    """The curve as columns of eighth blocks, for fonts without braille; as `braille_lines`."""
    columns = _columns(points, width, window)
    span = span or y_range([(0.0, y) for y in columns if y is not None])
    if span is None:
        return [" " * width] * height
    levels = [
        0 if y is None else height * 8 - _row(y, span, height * 8 - 1) for y in columns
    ]  # at least one eighth, so that the smallest value is visible
    return [
        "".join(_EIGHTHS[max(0, min(8, level - (height - 1 - line) * 8))] for level in levels)
        for line in range(height)
    ]


def progress_bar(fraction: float, width: int) -> tuple[str, str]:
    """A progress bar of `width` cells to the half cell: (done part, rest)."""
    halves = round(max(0.0, min(1.0, fraction)) * width * 2)
    done = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    return done, "─" * (width - len(done))


def _columns(points: Points, count: int, window: Window | None) -> list[float | None]:
    """Mean y of each of `count` equal parts of the x range; short gaps are interpolated."""
    if not points or count < 1:
        return [None] * max(0, count)
    first, last = window or (points[0][0], points[-1][0])
    points = [point for point in points if first <= point[0] <= last] if window else points
    scale = (count - 1) / (last - first) if last > first else 0.0
    if not math.isfinite(scale):  # a range so small that its inverse overflows
        scale = 0.0
    sums: list[list[float]] = [[] for _ in range(count)]
    for x, y in points:
        sums[max(0, min(count - 1, round((x - first) * scale)))].append(y)
    means: list[float | None] = [sum(ys) / len(ys) if ys else None for ys in sums]
    _interpolate(means)
    return [y if y is None or math.isfinite(y) else None for y in means]


def _interpolate(values: list[float | None]) -> None:
    """Fill empty columns (fewer points than columns) by linear interpolation, in place."""
    indexes = [i for i, y in enumerate(values) if y is not None]
    for first, last in pairwise(indexes):
        low, high = values[first], values[last]
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
            continue
        for i in range(first + 1, last):
            values[i] = low + (high - low) * (i - first) / (last - first)


def _row(y: float, span: tuple[float, float], top: int) -> int:
    low, high = span
    if high <= low:
        return top // 2
    if not math.isfinite(high - low):  # the distance of two huge values has no float
        y, low, high = y / 2, low / 2, high / 2
    return max(0, min(top, top - round((y - low) / (high - low) * top)))


def _between(before: int | None, row: int) -> range:
    """Dots of one column, so that the line from the column before has no holes."""
    if before is None or abs(before - row) <= 1:
        return range(row, row + 1)
    return range(row, before) if before > row else range(before + 1, row + 1)
