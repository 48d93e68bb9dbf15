"""A line chart: title, value, curves with a reference behind them, axes with round ticks."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import ClassVar, Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from workbench.tui.view_models.cells import Points, Series
from workbench.tui.widgets import axes, braille

PLAIN_FONT: Final = (
    os.environ.get("TERM", "") == "linux"
    or "utf" not in getattr(sys.__stderr__, "encoding", "utf-8").lower()
)
"""The kernel's console has block elements but no braille."""

LABEL: Final = 9
"""Width of the y labels in cells: `1.25 GiB ` fits."""


TICK_ROWS: Final = 3
"""Rows from one y tick to the next, at least."""
TICK_CELLS: Final = 11
"""Cells from one x tick to the next, at least."""
AXIS_HEIGHT: Final = 7
"""A chart of fewer lines has no x axis."""

PlottedRow = tuple[tuple[str, str], ...]
"""Parts of a line of the chart: (text, name of its style)."""


class Chart(Widget):
    """Line chart of one series; repaints only when the series changes."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "chart--title", "chart--value", "chart--line", "chart--behind",
    }  # fmt: skip

    def __init__(self, title: str, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._series = Series(title)
        self._plotted_for: tuple[Series, int, int] | None = None
        self._rows: Sequence[PlottedRow] = ()

    def show(self, series: Series) -> None:
        """Set the series."""
        if series != self._series:
            self._series = series
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line: the title, or a row of the plot with its axes."""
        width, height = self.size
        if y == 0:
            return self._title(width)
        key = (self._series, width, height)
        if key != self._plotted_for:
            self._plotted_for, self._rows = key, plot_rows(self._series, width, height - 1)
        row = self._rows[y - 1] if y <= len(self._rows) else ()
        segments = [Segment(text, self.get_component_rich_style(style)) for text, style in row]
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def _title(self, width: int) -> Strip:
        title = self._series.title + (" log" if self._series.log else "")
        if self._series.smoothing:
            title += f" smoothed {self._series.smoothing:g}"
        return _sides(
            title,
            format_value(self._series),
            width,
            self.get_component_rich_style("chart--title"),
            self.get_component_rich_style("chart--value"),
        )


def format_value(series: Series) -> str:
    """The last value, or at the cursor `64: 0.96 (0.14)`, the reference's in brackets."""
    if series.cursor is None or not series.points:
        return series.format(series.last) if series.last is not None else ""
    first, last = _window(series)
    point = axes.value_at(series.points, first + series.cursor * (last - first))
    if point is None:
        return ""
    other = axes.value_at(series.reference, point[0])
    behind = f" ({series.format(other[1])})" if other else ""
    return f"{series.x_format(point[0])}: {series.format(point[1])}{behind}"


def plot_rows(series: Series, width: int, height: int) -> list[PlottedRow]:
    """The plot in `height` lines of `width` cells: y ticks, curves, an x axis if there is room."""
    layers = _layers(series)
    span = axes.value_span([points for _, points in layers], series.clip)
    if span is None or width <= LABEL + 4 or height < 1:
        text = series.reason if span is None else ""
        return [((text[:width], "chart--title"),), *[()] * (height - 1)]
    with_axis = height >= AXIS_HEIGHT
    rows = height - 2 if with_axis else height
    room = width - LABEL
    window = _window(series)
    draw = braille.block_lines if PLAIN_FONT else braille.braille_lines
    drawn = [(style, draw(points, room, rows, window, span)) for style, points in layers]
    labels = _y_labels(series, span, rows)
    column = None
    if series.cursor is not None:
        column = round(series.cursor * (room - 1))
    plotted = [
        (
            (f"{labels.get(row, ''):>{LABEL - 1}}"[: LABEL - 1], "chart--title"),
            ("┤" if row in labels else "│", "chart--title"),
            *_merge_layers([(style, lines[row]) for style, lines in drawn], column),
        )
        for row in range(rows)
    ]
    return [*plotted, *(_x_axis(series, window, room) if with_axis else ())]


def _layers(series: Series) -> list[tuple[str, Points]]:
    """(style, points) of the curves, the one in front last."""
    points = axes.smooth(series.points, series.smoothing)
    layers = [("chart--behind", series.reference)] if series.reference else []
    layers += [("chart--behind", series.points)] if series.smoothing else []
    layers.append(("chart--line", points))
    if series.log:
        return [(style, axes.logarithms(layer)) for style, layer in layers]
    return layers


def _window(series: Series) -> tuple[float, float]:
    """First and last x of the curve and its reference."""
    ends = [
        points[at][0] for points in (series.points, series.reference) if points for at in (0, -1)
    ]
    return (min(ends), max(ends)) if ends else (0.0, 0.0)


def _y_labels(series: Series, span: tuple[float, float], rows: int) -> dict[int, str]:
    """Row -> label of the y ticks, so far apart that none hides another."""
    low, high = span
    count = max(1, rows // TICK_ROWS)
    if series.log:
        ticks = axes.log_ticks(10**low, 10**high, count)
        pairs = [(math.log10(tick), tick) for tick in ticks]
    else:
        pairs = [(tick, tick) for tick in axes.round_ticks(low, high, count, series.y_unit)]
    labels: dict[int, str] = {}
    for position, value in pairs:
        share = (position - low) / (high - low) if high > low else 0.5
        row = round((1 - share) * (rows - 1))
        if not any(abs(row - other) < 2 for other in labels):
            labels[row] = series.format(value)
    return labels


def _x_axis(
    series: Series, window: tuple[float, float], room: int
) -> tuple[PlottedRow, PlottedRow]:
    """The axis with its ticks, and their labels."""
    first, last = window
    line, text = ["─"] * room, [" "] * (room + 1)
    free = 0
    for tick in axes.round_ticks(first, last, max(1, room // TICK_CELLS), series.x_unit):
        column = round((tick - first) / (last - first) * (room - 1)) if last > first else 0
        label = series.x_format(tick)
        start = max(0, min(column - len(label) // 2, room - len(label)))
        if start < free:
            continue
        line[column] = "┬"
        text[start : start + len(label)] = label
        free = start + len(label) + 1
    blank = " " * (LABEL - 1)
    return (
        ((f"{blank}└{''.join(line)}", "chart--title"),),
        ((f"{blank} {''.join(text)}"[: room + LABEL], "chart--title"),),
    )


def _merge_layers(layers: Sequence[tuple[str, str]], cursor: int | None) -> list[tuple[str, str]]:
    """One row of all curves: in each cell the foremost that has a dot there."""
    parts: list[tuple[str, str]] = []
    for column in range(len(layers[0][1])):
        character, style = " ", "chart--title"
        for name, line in layers:
            if line[column] != " ":
                character, style = line[column], name
        if column == cursor and character == " ":
            character, style = "┆", "chart--title"
        if parts and parts[-1][1] == style:
            parts[-1] = (parts[-1][0] + character, style)
        else:
            parts.append((character, style))
    return parts


def _sides(
    left_text: str, right_text: str, width: int, left_style: Style, right_style: Style
) -> Strip:
    room = max(0, width - cell_len(right_text) - 1)
    if cell_len(left_text) > room > 0:
        left_text = left_text[: room - 1] + "…"
    return Strip(
        [
            Segment(left_text[:room].ljust(room) + " ", left_style),
            Segment(right_text, right_style),
        ]
    ).adjust_cell_length(width, left_style)
