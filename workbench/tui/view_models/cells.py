"""Cells, rows and columns of a grid, and series of a chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from workbench.suites import quantities

Points = Sequence[tuple[float, float]]
"""x and y, by rising x."""


class GridCell(NamedTuple):
    """Text with a tone: `dim`, `accent`, `good`, `warn`, `error` or `strong`."""

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


def format_step(x: float) -> str:
    """A step or another count: `1,192`."""
    return f"{x:,.0f}"


@dataclass(frozen=True, slots=True)
class OtherCurve:
    """The same curve of another run, drawn beside."""

    letter: str
    """A to D: its colour, and the sign at its end."""
    points: Points
    last: float


@dataclass(frozen=True, slots=True)
class Series:
    """Content of a chart; frozen, so that charts can compare it."""

    title: str
    points: Points = ()
    last: float | None = None
    format: Callable[[float | None], str] = field(default=quantities.number)
    x_format: Callable[[float], str] = field(default=format_step)
    x_unit: float = 10.0
    """Base of round values of x: 60 for seconds."""
    y_unit: float = 10.0
    """Base of round values of y: 1024 for bytes."""
    clip: Literal["none", "low", "both"] = "none"
    """Which outliers may lie outside the chart."""
    log: bool = False
    smoothing: float = 0.0
    """Weight of the exponential moving average, 0 to 1; the raw curve is drawn behind it."""
    reference: Points = ()
    """The same curve of another run."""
    cursor: float | None = None
    """x whose values the title shows; None: the last one."""
    reason: str = "no data yet"
    """Text shown if there are no points."""
    x_name: str = ""
    """`over time`, where x is not what it is by default."""
    letter: str = ""
    """Of the curve itself, where others are beside it."""
    others: tuple[OtherCurve, ...] = ()

    @property
    def window(self) -> tuple[float, float]:
        """First and last x of all curves."""
        curves = (self.points, self.reference, *(other.points for other in self.others))
        ends = [points[at][0] for points in curves if points for at in (0, -1)]
        return (min(ends), max(ends)) if ends else (0.0, 0.0)
