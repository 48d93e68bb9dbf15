"""Braille curves, block bars and progress bars."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.tui.widgets.charts import braille


def lit(lines: list[str]) -> set[tuple[int, int]]:
    """(column, row) of every dot, decoded from the braille block by Unicode's own numbering."""
    places = {
        1: (0, 0),
        2: (0, 1),
        3: (0, 2),
        4: (1, 0),
        5: (1, 1),
        6: (1, 2),
        7: (0, 3),
        8: (1, 3),
    }
    dots = set()
    for y, line in enumerate(lines):
        for x, character in enumerate(line):
            if character == " ":
                continue
            code = ord(character) - 0x2800
            assert 0 < code < 256
            for number, (column, row) in places.items():
                if code >> (number - 1) & 1:
                    dots.add((x * 2 + column, y * 4 + row))
    return dots


def test_a_straight_line_is_a_diagonal() -> None:
    points = [(float(x), float(x)) for x in range(8)]
    assert lit(braille.braille_lines(points, 4, 2)) == {(x, 7 - x) for x in range(8)}


def test_a_constant_is_one_row_in_the_middle() -> None:
    dots = lit(braille.braille_lines([(0, 5.0), (9, 5.0)], 5, 2))
    assert dots == {(x, 3) for x in range(10)}


def test_two_points_are_joined_without_holes() -> None:
    dots = lit(braille.braille_lines([(0, 0.0), (1, 1.0)], 1, 4))
    assert {y for _, y in dots} == set(range(16))


def test_a_nan_is_a_gap_and_never_a_value() -> None:
    points = [(float(x), 1.0 if x < 4 else 2.0) for x in range(10)]
    points[5] = (5.0, math.nan)
    columns = {x for x, _ in lit(braille.braille_lines(points, 5, 3))}
    assert columns == set(range(10)) - {5}
    assert braille.y_range(points) == (1.0, 2.0)


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(allow_nan=True)), max_size=60),
    st.integers(1, 40),
    st.integers(1, 8),
)
def test_any_curve_fills_exactly_its_box(
    points: list[tuple[float, float]], width: int, height: int
) -> None:
    points.sort(key=lambda p: p[0])
    for draw in (braille.braille_lines, braille.block_lines):
        lines = draw(points, width, height)
        assert [len(line) for line in lines] == [width] * height


def test_bars_show_the_smallest_value_and_fill_the_largest() -> None:
    assert braille.block_lines([(0, 0.0), (1, 8.0)], 2, 1) == ["▁█"]
    assert braille.block_lines([(0, 0.0), (1, 8.0)], 2, 2) == [" █", "▁█"]


@pytest.mark.parametrize(
    ("fraction", "done"), [(0.0, 0), (0.5, 5), (1.0, 10), (-3, 0), (7, 10), (0.25, 3)]
)
def test_bar_has_its_width(fraction: float, done: int) -> None:
    left, right = braille.progress_bar(fraction, 10)
    assert (len(left), len(left + right)) == (done, 10)
