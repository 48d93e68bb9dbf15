"""A small line chart: title, last value, curve, and its smallest and largest value."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import ClassVar, Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from workbench.tui.view_models.cells import Series
from workbench.tui.widgets import braille

PLAIN_FONT: Final = (
    os.environ.get("TERM", "") == "linux"
    or "utf" not in getattr(sys.__stderr__, "encoding", "utf-8").lower()
)
"""The kernel's console has block elements but no braille."""

LABEL: Final = 9
"""Width of the y labels in cells: `1.25 GiB ` fits."""


class Chart(Widget):
    """Line chart of one series; repaints only when the series changes."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"chart--title", "chart--value", "chart--line"}

    def __init__(self, title: str, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._series = Series(title)
        self._drawn_for: tuple[Series, int, int] | None = None
        self._lines: Sequence[str] = ()

    def show(self, series: Series) -> None:
        """Set the series."""
        if series != self._series:
            self._series = series
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line: title, curve with its bounds, or x axis if there is room."""
        width, height = self.size
        if y == 0:
            return self._title(width)
        axis = bool(self._series.x_label) and height >= 6
        rows = height - 1 - (1 if axis else 0)
        if rows < 1 or y > rows + (1 if axis else 0):
            return Strip.blank(width, self.rich_style)
        dim = self.get_component_rich_style("chart--title")
        if y > rows:
            return _sides("", self._series.x_label, width, dim, dim)
        return self._curve(y - 1, rows, width)

    def _title(self, width: int) -> Strip:
        series = self._series
        value = series.format(series.last) if series.last is not None else ""
        return _sides(
            series.title,
            value,
            width,
            self.get_component_rich_style("chart--title"),
            self.get_component_rich_style("chart--value"),
        )

    def _curve(self, line: int, rows: int, width: int) -> Strip:
        dim = self.get_component_rich_style("chart--title")
        series, span = self._series, braille.y_range(self._series.points)
        if span is None or width <= LABEL + 2:
            text = series.reason if line == 0 else ""
            return Strip([Segment(text[:width].ljust(width), dim)], width)
        label = ""
        if line == 0:
            label = series.format(span[1])
        elif line == rows - 1 and span[0] != span[1]:
            label = series.format(span[0])
        curve = self._drawn(width - LABEL, rows)[line]
        return Strip(
            [
                Segment(label.rjust(LABEL - 1)[: LABEL - 1] + " ", dim),
                Segment(curve, self.get_component_rich_style("chart--line")),
            ],
            width,
        )

    def _drawn(self, width: int, rows: int) -> Sequence[str]:
        """Lines of the curve, cached for a series and a size."""
        key = (self._series, width, rows)
        if key != self._drawn_for:
            draw = braille.block_lines if PLAIN_FONT else braille.braille_lines
            self._drawn_for, self._lines = key, draw(self._series.points, width, rows)
        return self._lines


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
