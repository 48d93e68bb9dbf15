"""Histograms as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

CELLS: Final = 40
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def histogram_lines(counts: Sequence[tuple[str, int]], cells: int = CELLS) -> tuple[str, ...]:
    """One line for each (label, count): a bar to an eighth of a cell, then the share.

    Counts above zero have a bar of at least an eighth; empty if the total is zero.
    """
    total, top = sum(n for _, n in counts), max((n for _, n in counts), default=0)
    if not total:
        return ()
    width = max(len(label) for label, _ in counts)
    return tuple(
        f"{label:>{width}}  {draw_bar(n / top, cells)}  {100 * n / total:5.1f} %"
        for label, n in counts
    )


def draw_bar(fraction: float, cells: int) -> str:
    """A bar of up to `cells` cells, to an eighth of one."""
    eighths = round(fraction * cells * 8)
    if fraction > 0:
        eighths = max(1, eighths)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(cells)
