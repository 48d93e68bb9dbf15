"""Cells, rows and columns of a grid, and series of a chart: what view models give to widgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from workbench.tui.view_models import quantities

Points = Sequence[tuple[float, float]]
"""x and y, by rising x."""


class Cell(NamedTuple):
    """Text with a tone: `dim`, `accent`, `error` or `strong`."""

    text: str
    tone: str = ""


CellLike = str | Cell
Row = tuple[CellLike, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """How one column is drawn."""

    key: str
    title: str
    width: int
    right: bool = False
    """Numbers stand at the right."""
    grow: int = 0
    """The column may become this much wider than `width`."""
    rank: int = 0
    """Where there is no room, the columns with the highest rank are left out first."""
    left_out: bool = False
    """Cut from the left: the end of the text is what tells rows apart."""


@dataclass(frozen=True, slots=True)
class Series:
    """What a chart shows. Frozen, so that a chart can see that nothing has changed."""

    title: str
    points: Points = ()
    last: float | None = None
    format: Callable[[float | None], str] = field(default=quantities.number)
    x_label: str = ""
    """What the x axis spans, written under the curve: `step 1,192`."""
    reason: str = "no data yet"
    """Shown in place of a curve."""
