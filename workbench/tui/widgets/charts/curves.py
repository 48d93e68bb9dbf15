"""Points of curves: smoothed, on a logarithmic scale, next to a position. Pure."""

from __future__ import annotations

import math

from workbench.tui.view_models.cells import Points


def smooth(points: Points, weight: float) -> Points:
    """Exponential moving average of the y values, debiased; a NaN stays and is left out of it."""
    if not weight:
        return points
    mean, total = 0.0, 0.0
    smoothed = []
    for x, y in points:
        if math.isfinite(y):
            mean, total = weight * mean + (1 - weight) * y, weight * total + (1 - weight)
            smoothed.append((x, mean / total))
        else:
            smoothed.append((x, y))
    return smoothed


def log10_values(points: Points) -> Points:
    """The points with log10 y; values that have none are NaN."""
    return [(x, math.log10(y) if math.isfinite(y) and y > 0 else math.nan) for x, y in points]


def nearest_point(points: Points, x: float) -> tuple[float, float] | None:
    """The point next to x; None: there are none."""
    return min(points, key=lambda point: abs(point[0] - x), default=None)


def mean_gap(points: Points) -> float:
    """Mean distance of neighbouring points in x: how far a curve is valid beyond its last one."""
    return (points[-1][0] - points[0][0]) / (len(points) - 1) if len(points) > 1 else 0.0
