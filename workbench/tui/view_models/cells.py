"""Cells, rows and columns of a grid, and series of a chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from workbench.suites import quantities

Points = Sequence[tuple[float, float]]
"""x and y, by rising x."""


class GridCell(NamedTuple):
    """Text with a tone: `dim`, `accent`, `error` or `strong`."""

    text: str
    tone: str = ""


CellLike = str | GridCell
GridRow = tuple[CellLike, ...]
"""Cells by column; of a row with fewer cells than columns the last takes the rest of the line."""


@dataclass(frozen=True, slots=True)
class GridColumn:
    """How one column is drawn."""

    key: str
    title: str
    width: int
    right: bool = False
    """Aligned to the right."""
    grow: int = 0
    """Maximum extra width, in cells."""
    rank: int = 0
    """Columns with the highest rank are dropped first if there is no room."""
    middle_cut: bool = False
    """Long texts lose their middle and not their end: of names that begin alike."""


@dataclass(frozen=True, slots=True)
class Series:
    """Content of a chart; frozen, so that charts can compare it."""

    title: str
    points: Points = ()
    last: float | None = None
    format: Callable[[float | None], str] = field(default=quantities.number)
    x_label: str = ""
    """Label under the curve with the range of x: `step 1,192`."""
    reason: str = "no data yet"
    """Text shown if there are no points."""
