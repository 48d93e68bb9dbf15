"""Rows of the Data screen: subsets and profiles as grid cells. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from results.text.sanitize import clean_line
from workbench.output_language import translate
from workbench.subsets.histogram import draw_bar
from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow

if TYPE_CHECKING:
    from datasets_mm.profile.profile import Profile
    from workbench.tui.view_models.catalog import SubsetEntry

BAR_CELLS: Final = 24

SUBSETS: Final = (
    GridColumn("mark", "", 1),
    GridColumn("name", "Subset", 20, grow=14, middle_cut=True),
    GridColumn("rows", "Records", 8, right=True),
    GridColumn("state", "", 6, rank=1),
)
PROFILE: Final = (GridColumn("label", "", 40, grow=24), GridColumn("a", "", 18, right=True))


def comparison_columns(first: str, second: str) -> tuple[GridColumn, ...]:
    """Columns of a comparison."""
    return (
        GridColumn("label", "", 24, grow=24),
        GridColumn("a", clean_line(first), 16, right=True),
        GridColumn("b", clean_line(second), 16, right=True),
        GridColumn("difference", "difference", 10, right=True),
    )


def subset_rows(entries: Sequence[SubsetEntry], marked: Sequence[str]) -> list[GridRow]:
    """Rows of the list of subsets."""
    return [
        (
            GridCell("●", "accent") if entry.name in marked else "",
            clean_line(entry.name),
            GridCell("?" if entry.rows is None else f"{entry.rows:,}", "dim"),
            GridCell("copy", "error")
            if entry.expected_rows
            else GridCell("built" if entry.built else "–", "dim"),
        )
        for entry in entries
    ]


def profile_rows(profiles: Sequence[Profile]) -> list[GridRow]:
    """Rows of one profile, or of two with their differences: headings, figures, bars."""
    from workbench.subsets import sections

    rows: list[GridRow] = []
    for section in sections.build_sections(profiles):
        rows += [("",)] if rows else []
        rows.append((GridCell(translate(section.title), "strong"),))
        for row in section.rows:
            cells = [clean_line(figure.text) for figure in row.figures]
            cells += [row.difference] if len(profiles) == 2 else []
            rows.append((f"  {clean_line(translate(row.label))}", *cells))
        if section.remark:
            rows.append((GridCell(f"  {clean_line(translate(section.remark))}", "dim"),))
        rows += _bars(section.bars)
    return rows


def _bars(counts: Sequence[tuple[str, int]]) -> list[GridRow]:
    total, top = sum(n for _, n in counts), max((n for _, n in counts), default=0)
    if not total:
        return []
    width = max(len(label) for label, _ in counts)
    return [
        (
            f"  {label:>{width}}  {draw_bar(count / top, BAR_CELLS)}",
            GridCell(f"{100 * count / total:.1f} %", "dim"),
        )
        for label, count in counts
    ]
