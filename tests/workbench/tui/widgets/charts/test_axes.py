"""Ticks, ranges and smoothing of charts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.tui.widgets.charts import axes

GIB = 1024.0**3


@pytest.mark.parametrize(
    ("low", "high", "unit", "ticks"),
    [
        (0.0, 10.0, 10.0, [0.0, 5.0, 10.0]),
        (7.0, 1684.0, 10.0, [1000.0]),
        (0.0, 130.0, 60.0, [0.0, 120.0]),
        (0.0, 2 * GIB, 1024.0, [0.0, GIB, 2 * GIB]),
    ],
)
def test_ticks_are_round_in_their_unit(
    low: float, high: float, unit: float, ticks: list[float]
) -> None:
    assert set(ticks) <= set(axes.round_ticks(low, high, 2, unit))


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12), st.sampled_from([10.0, 60.0, 1024.0]))
def test_ticks_lie_inside_and_there_are_two(low: float, width: float, unit: float) -> None:
    high = low + width
    ticks = axes.round_ticks(low, high, 3, unit)
    slack = (high - low) * 1e-6 + abs(low) * 1e-9
    assert len(ticks) <= 51
    if high - low > abs(low) * 1e-9:
        assert len(ticks) >= 2
        assert all(low - slack <= tick <= high + slack for tick in ticks)


@pytest.mark.parametrize("unit", [10.0, 60.0, 1024.0])
@pytest.mark.parametrize(("low", "high"), [(-1e308, 1e308), (0.0, 5e-324)])
def test_the_ends_of_the_floating_point_range_have_ticks(
    low: float, high: float, unit: float
) -> None:
    assert all(low <= tick <= high for tick in axes.round_ticks(low, high, 5, unit))


def test_logarithmic_ticks_are_powers_or_their_doubles() -> None:
    assert axes.log_ticks(0.02, 30.0, 5) == pytest.approx([0.1, 1.0, 10.0])
    assert axes.log_ticks(1.4, 4.2, 3) == pytest.approx([2.0])
    assert len(axes.log_ticks(1e-6, 1e6, 4)) <= 4


def test_a_start_and_a_hiccup_do_not_flatten_the_curve() -> None:
    points = [(0.0, 5.8), *((float(x), 1600.0 + x) for x in range(1, 60)), (60.0, 9999.0)]
    assert axes.value_span([points]) == (5.8, 9999.0)
    assert axes.value_span([points], "low") == (1601.0, 9999.0)
    assert axes.value_span([points], "both") == (1601.0, 1659.0)
    assert axes.value_span([points[:5]], "both") == (5.8, 1604.0), "too few to leave any out"
    assert axes.value_span([[(0.0, math.nan)]]) is None
