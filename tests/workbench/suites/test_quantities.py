"""Quantities as text: units, equal widths, unknown values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.suites import quantities as q


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (q.size(3.15 * 2**30), "3.15 GiB"),
        (q.size(28.07 * 2**30), "28.1 GiB"),
        (q.size(612 * 2**20), "612 MiB"),
        (q.size(1023.9 * 2**20), "1.00 GiB"),
        (q.size(0), "0 B"),
        (q.wall(481.39), "8:01.39"),
        (q.clock(481.39), "8:01"),
        (q.clock(3723), "1:02:03"),
        (q.duration(0.0864), "86.4 ms"),
        (q.duration(0.99996), "1.00 s"),
        (q.duration(0.00042), "420 µs"),
        (q.number(1.5284), "1.528"),
        (q.number(0.031), "0.03100"),
        (q.number(740.2), "740.2"),
        (q.number(2e-5), "2.00e-05"),
        (q.number(math.nan), "NaN"),
        (q.number(math.inf), "∞"),
        (q.count(339137), "339,137"),
        (q.share(0.0312), "3.1 %"),
        (q.percent(187.4), "187 %"),
    ],
)
def test_quantities(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(
    "write", [q.count, q.size, q.clock, q.wall, q.duration, q.number, q.share, q.percent]
)
def test_unknown_is_never_zero(write: q.Formatter) -> None:
    assert write(None) == q.UNKNOWN


@given(st.floats(0.000_001, 1e9))
def test_quantities_have_equal_widths(value: float) -> None:
    assert len(q.size(value)) <= 8
    assert len(q.number(value)) <= 9
