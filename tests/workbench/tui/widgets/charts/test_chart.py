"""A chart as text: axes, a reference behind, the cursor's value."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workbench.tui.view_models.cells import OtherCurve, Series
from workbench.tui.widgets.charts import chart

POINTS = tuple((float(x), 100.0 - x) for x in range(1, 101))
SERIES = Series("loss", POINTS, 0.0)


def lines(series: Series, width: int, height: int) -> list[str]:
    return ["".join(text for text, _ in row) for row in chart.plot_rows(series, width, height)]


def title(series: Series) -> str:
    return "".join(text for text, _ in chart.format_values(series))


@pytest.mark.parametrize(("width", "height"), [(24, 4), (40, 8), (90, 20), (12, 3), (6, 2)])
def test_every_line_fits_and_there_are_as_many_as_there_is_room(width: int, height: int) -> None:
    shown = lines(SERIES, width, height)
    assert len(shown) == height
    assert all(len(line) <= width for line in shown)
    assert any("└" in line for line in shown) is (height >= chart.AXIS_HEIGHT)


def test_ticks_stand_at_their_values() -> None:
    shown = lines(SERIES, 60, 13)
    labels = {line.split("┤")[0].strip(): row for row, line in enumerate(shown) if "┤" in line}
    assert labels["50.00"] == 5, "in the middle of eleven rows"
    axis, names = shown[-2:]
    assert names[axis.index("┬") - 1 : axis.index("┬") + 2].strip()
    assert "50" in names


def test_a_reference_is_behind_and_shares_the_axes() -> None:
    behind = replace(SERIES, reference=((1.0, 0.0), (200.0, 400.0)))
    styles = {style for row in chart.plot_rows(behind, 60, 12) for _, style in row}
    assert {"chart--line", "chart--behind"} <= styles
    assert "200" in "".join(lines(behind, 60, 12)), "the axis reaches to its end"


def test_the_cursor_names_the_values_at_its_place() -> None:
    assert title(SERIES) == "0"
    held = replace(SERIES, cursor=1.2, reference=((1.0, 7.0), (2.0, 8.0)))
    assert title(held) == "1: 99.00 (7.000)"
    assert "┆" in "".join(lines(replace(SERIES, cursor=100.0), 40, 8))
    assert "┆" not in "".join(lines(replace(SERIES, cursor=200.0), 40, 8))


def test_runs_beside_each_other_have_letters_at_their_ends_and_in_the_title() -> None:
    short = OtherCurve("B", ((1.0, 10.0), (50.0, 90.0)), 90.0)
    both = replace(SERIES, letter="A", others=(short, OtherCurve("", ((1.0, 50.0),), 50.0)))
    shown = lines(both, 60, 12)
    assert title(both) == "• 50.00  A 0  B 90.00"
    assert "A" in shown[9]
    assert "B" in shown[1]
    assert "•" in "".join(shown)
    assert title(replace(both, cursor=100.0)) == "100: A 0"
    styles = {style for row in chart.plot_rows(both, 60, 12) for _, style in row}
    assert {"chart--line", "chart--b", "chart--value"} <= styles


def test_of_two_ends_in_a_cell_both_are_seen() -> None:
    twin = OtherCurve("B", POINTS, 0.0)
    shown = "".join(lines(replace(SERIES, letter="A", others=(twin,)), 60, 12)[:10])
    assert "BA" in shown or "AB" in shown


def test_without_points_the_reason_is_shown() -> None:
    assert lines(Series("GPU", reason="no GPU"), 40, 4)[0] == "no GPU"
