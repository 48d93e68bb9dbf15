"""Curves of charts: smoothing."""

from __future__ import annotations

import math

import pytest

from workbench.tui.widgets.charts.curves import smooth


def test_smoothing_is_debiased_and_keeps_gaps() -> None:
    points = [(0.0, 1.0), (1.0, math.nan), (2.0, 1.0), (3.0, 3.0)]
    smoothed = smooth(points, 0.5)
    assert smoothed[0] == (0.0, 1.0)
    assert math.isnan(smoothed[1][1])
    assert smoothed[2] == (2.0, pytest.approx(1.0))
    weights = [0.125, 0.25, 0.5]  # pandas: ewm(alpha=0.5, adjust=True) of 1, 1, 3
    mean = (0.125 * 1 + 0.25 * 1 + 0.5 * 3) / sum(weights)
    assert smoothed[3] == (3.0, pytest.approx(mean))
    assert smooth(points, 0.0) is points
