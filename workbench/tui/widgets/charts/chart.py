"""A line chart: title, value, curves with a reference behind them, axes with round ticks."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from workbench.tui.view_models.cells import Points, Series
from workbench.tui.widgets.charts import axes, braille
from workbench.tui.widgets.charts.curves import log10_values, mean_gap, nearest_point, smooth

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

CURVE_STYLES: Final = {"A": "chart--line", "B": "chart--b", "C": "chart--c", "D": "chart--d"}
"""Letter of a run -> name of its style."""
UNMARKED: Final = "•"
"""Sign of the run under the cursor beside marked ones."""


class Chart(Widget):
    """Line chart of one series; repaints only when the series changes."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "chart--title", "chart--value", "chart--line", "chart--behind", "chart--b", "chart--c",
        "chart--d",
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
        """One line: the title, the values of several runs, or a row of the plot with its axes."""
        width, height = self.size
        above = 2 if self._series.others and height >= AXIS_HEIGHT else 1
        if y < above:
            return self._title_line(width, y, above)
        key = (self._series, width, height)
        if key != self._plotted_for:
            self._plotted_for, self._rows = key, plot_rows(self._series, width, height - above)
        row = self._rows[y - above] if y - above < len(self._rows) else ()
        segments = [Segment(text, self.get_component_rich_style(style)) for text, style in row]
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def _title_line(self, width: int, y: int, above: int) -> Strip:
        """Title and values in one line, or the first and the second of two."""
        series = self._series
        title = series.title + (" log" if series.log else "")
        if series.smoothing:
            title += f" smoothed {series.smoothing:g}"
        title += f" {series.x_name}" if series.x_name else ""
        values = [
            (text, self.get_component_rich_style(style)) for text, style in format_values(series)
        ]
        style = self.get_component_rich_style("chart--title")
        if above == 1:
            return _sides(title, values, width, style)
        return _sides(title, [], width, style) if y == 0 else _sides("", values, width, style)


def format_values(series: Series) -> list[tuple[str, str]]:
    """(text, style) of the last values, or of those at the cursor: `64: `, `A 0.96  `, `B 0.14`.

    The reference's value is in brackets.
    """
    texts: list[tuple[str, str]] = []
    if series.cursor is not None:
        texts.append((f"{series.x_format(series.cursor)}: ", "chart--title"))
    curves = [(series.letter, series.points, series.last)]
    curves += [(other.letter, other.points, other.last) for other in series.others]
    for letter, points, last in sorted(curves, key=lambda curve: curve[0]):
        value = last if series.cursor is None else _read_value(points, series.cursor)
        if value is None:
            continue
        sign = (letter or UNMARKED) if series.others else letter
        gap = "  " if texts and texts[-1][1] != "chart--title" else ""
        style = curve_style(letter, beside=bool(series.others)) if sign else "chart--value"
        texts.append(
            (f"{gap}{sign} {series.format(value)}" if sign else series.format(value), style)
        )
    if series.cursor is not None and series.reference:
        behind = _read_value(series.reference, series.cursor)
        texts.append((f" ({series.format(behind)})", "chart--value"))
    return texts if len(texts) > 1 or series.cursor is None else []


def _read_value(points: Points, x: float) -> float | None:
    """The value next to x; None: the curve does not reach it."""
    if not points or not points[0][0] <= x <= points[-1][0] + mean_gap(points):
        return None
    point = nearest_point(points, x)
    return point[1] if point else None


def curve_style(letter: str, *, beside: bool) -> str:
    """Name of the style of a run's curve; of the unmarked one beside others that of values."""
    return CURVE_STYLES.get(letter, "chart--value" if beside else "chart--line")


def plot_rows(series: Series, width: int, height: int) -> list[PlottedRow]:
    """The plot in `height` lines of `width` cells: y ticks, curves, an x axis if there is room."""
    layers = _layers(series)
    span = axes.value_span([points for _, points, _ in layers], series.clip)
    if span is None or width <= LABEL + 4 or height < 1:
        text = series.reason if span is None else ""
        return [((text[:width], "chart--title"),), *[()] * (height - 1)]
    with_axis = height >= AXIS_HEIGHT
    rows = height - 2 if with_axis else height
    room = width - LABEL
    window = series.window
    draw = braille.block_lines if PLAIN_FONT else braille.braille_lines
    drawn = [(style, draw(points, room, rows, window, span)) for style, points, _ in layers]
    labels = _y_labels(series, span, rows)
    column = None
    if series.cursor is not None and window[0] <= series.cursor <= window[1]:
        column = _find_column(series.cursor, window, room)
    signs = _place_signs(layers, window, span, (room, rows)) if series.others else {}
    plotted = [
        (
            (f"{labels.get(row, ''):>{LABEL - 1}}"[: LABEL - 1], "chart--title"),
            ("┤" if row in labels else "│", "chart--title"),
            *_merge_layers([(style, lines[row]) for style, lines in drawn], column, signs.get(row)),
        )
        for row in range(rows)
    ]
    return [*plotted, *(_x_axis(series, window, room) if with_axis else ())]


def _layers(series: Series) -> list[tuple[str, Points, str]]:
    """(style, points, sign at the end) of the curves, the one in front last."""
    layers = [("chart--behind", series.reference, "")] if series.reference else []
    curves = [(other.letter, other.points) for other in reversed(series.others)]
    curves += [(series.letter, series.points)] if series.points else []
    if series.smoothing:
        layers += [("chart--behind", points, "") for _, points in curves]
    for letter, points in curves:
        style = curve_style(letter, beside=bool(series.others))
        layers.append((style, smooth(points, series.smoothing), letter or UNMARKED))
    if series.log:
        return [(style, log10_values(points), sign) for style, points, sign in layers]
    return layers


def _find_column(x: float, window: braille.Window, room: int) -> int:
    first, last = window
    return round((x - first) / (last - first) * (room - 1)) if last > first else 0


def _place_signs(
    layers: Sequence[tuple[str, Points, str]],
    window: braille.Window,
    span: braille.Window,
    size: tuple[int, int],
) -> dict[int, dict[int, tuple[str, str]]]:
    """Row -> column -> (sign, style) at the ends of the curves; of two in a cell one moves left."""
    room, rows = size
    low, high = span
    signs: dict[int, dict[int, tuple[str, str]]] = {}
    for style, points, sign in layers:
        end = next(((x, y) for x, y in reversed(points) if math.isfinite(y)), None)
        if not sign or end is None:
            continue
        share = (end[1] - low) / (high - low) if high > low else 0.5
        row = round((1 - max(0.0, min(1.0, share))) * (rows - 1))
        column = _find_column(end[0], window, room)
        while column in signs.get(row, {}) and column > 0:
            column -= 1
        signs.setdefault(row, {})[column] = (sign, style)
    return signs


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
        column = _find_column(tick, window, room)
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


def _merge_layers(
    layers: Sequence[tuple[str, str]],
    cursor: int | None,
    signs: Mapping[int, tuple[str, str]] | None,
) -> list[tuple[str, str]]:
    """One row of all curves: in each cell a sign, else the foremost that has a dot there."""
    parts: list[tuple[str, str]] = []
    for column in range(len(layers[0][1])):
        character, style = " ", "chart--title"
        for name, line in layers:
            if line[column] != " ":
                character, style = line[column], name
        if signs and column in signs:
            character, style = signs[column]
        elif column == cursor and character == " ":
            character, style = "┆", "chart--title"
        if parts and parts[-1][1] == style:
            parts[-1] = (parts[-1][0] + character, style)
        else:
            parts.append((character, style))
    return parts


def _sides(
    left_text: str, values: Sequence[tuple[str, Style]], width: int, left_style: Style
) -> Strip:
    room = max(0, width - sum(cell_len(text) for text, _ in values) - 1)
    if cell_len(left_text) > room > 0:
        left_text = left_text[: room - 1] + "…"
    title = Segment(left_text[:room].ljust(room) + " ", left_style)
    return Strip([title, *(Segment(text, style) for text, style in values)]).adjust_cell_length(
        width, left_style
    )
