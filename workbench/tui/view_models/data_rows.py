"""What the Data screen shows, as rows of its grids. Pure: profiles and entries in, cells out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from results.text.sanitize import clean_line
from workbench.subsets.histogram import draw_bar
from workbench.tui.view_models.cells import Cell, Column, Row

if TYPE_CHECKING:
    from datasets_mm.profile.profile import Profile
    from workbench.tui.view_models.catalog import SubsetEntry

BAR_CELLS: Final = 24

SUBSETS: Final = (
    Column("mark", "", 1),
    Column("name", "Subset", 20, grow=14),
    Column("rows", "Records", 8, right=True),
    Column("state", "", 6, rank=1),
)
ONE: Final = (Column("label", "", 40, grow=24), Column("a", "", 18, right=True))


def pair(first: str, second: str) -> tuple[Column, ...]:
    """Columns of a comparison."""
    return (
        Column("label", "", 24, grow=24),
        Column("a", clean_line(first), 16, right=True),
        Column("b", clean_line(second), 16, right=True),
        Column("difference", "difference", 10, right=True),
    )


def subsets(entries: Sequence[SubsetEntry], marked: Sequence[str]) -> list[Row]:
    """The list at the left."""
    return [
        (
            Cell("●", "accent") if entry.name in marked else "",
            clean_line(entry.name),
            Cell("?" if entry.rows is None else f"{entry.rows:,}", "dim"),
            Cell("built" if entry.built else "–", "dim"),
        )
        for entry in entries
    ]


def profile(profiles: Sequence[Profile]) -> list[Row]:
    """One profile, or two with their differences: headings, rows, bars."""
    from workbench.subsets import sections

    rows: list[Row] = []
    for section in sections.build_sections(profiles):
        rows += [("",)] if rows else []
        rows.append((Cell(section.title, "strong"),))
        for row in section.rows:
            cells = [clean_line(figure.text) for figure in row.figures]
            cells += [row.difference] if len(profiles) == 2 else []
            rows.append((f"  {clean_line(row.label)}", *cells))
        if section.remark:
            rows.append((Cell(f"  {clean_line(section.remark)}", "dim"),))
        rows += _bars(section.bars)
    return rows


def _bars(counts: Sequence[tuple[str, int]]) -> list[Row]:
    total, top = sum(n for _, n in counts), max((n for _, n in counts), default=0)
    if not total:
        return []
    width = max(len(label) for label, _ in counts)
    return [
        (
            f"  {label:>{width}}  {draw_bar(count / top, BAR_CELLS)}",
            Cell(f"{100 * count / total:.1f} %", "dim"),
        )
        for label, count in counts
    ]
