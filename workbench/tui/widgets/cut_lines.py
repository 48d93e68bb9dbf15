"""Lines that do not fit: their end says so."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip


def fit_line(segments: list[Segment], width: int, style: Style) -> Strip:
    """A line of exactly `width` cells; a longer one ends in an ellipsis of its last style."""
    strip = Strip(segments)
    if strip.cell_length > width > 0:
        last = segments[-1].style or style
        strip = Strip([*strip.crop(0, width - 1), Segment("…", last)])
    return strip.adjust_cell_length(width, style)
