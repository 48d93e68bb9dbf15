"""Rows of the Data screen: subsets and profiles as grid cells. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from results.text.sanitize import clean_line
from workbench.data_profile.histogram import draw_bar
from workbench.output_language import translate
from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow

if TYPE_CHECKING:
    from datasets_mm.profile.profile import Profile
    from workbench.data_profile.section_types import ProfileRow
    from workbench.tui.view_models.catalog import SubsetEntry

BAR_CELLS: Final = 16

SUBSETS: Final = (
    GridColumn("mark", "", 1),
    GridColumn("name", "Subset", 16, grow=18, middle_cut=True),
    GridColumn("rows", "Records", 8, right=True),
    GridColumn("state", "", 6, rank=1),
)
PROFILE: Final = (
    GridColumn("label", "", 28, grow=12),
    GridColumn("a", "", 18, right=True),
    GridColumn("bar", "", BAR_CELLS, rank=1),
)
MOST_DIFFERENCES: Final = 12


def comparison_columns(first: str, second: str) -> tuple[GridColumn, ...]:
    """Columns of a comparison."""
    return (
        GridColumn("label", "", 24, grow=24),
        GridColumn("a", clean_line(first), 16, right=True),
        GridColumn("b", clean_line(second), 16, right=True),
        GridColumn("difference", "difference", 10, right=True),
        GridColumn("bar", "", BAR_CELLS, rank=1),
    )


def subset_rows(entries: Sequence[SubsetEntry], marked: Sequence[str]) -> list[GridRow]:
    """Rows of the list of subsets."""
    return [
        (
            GridCell("●", "accent") if entry.name in marked else "",
            clean_line(entry.name),
            GridCell("?" if entry.rows is None else f"{entry.rows:,}", "dim"),
            GridCell("copy", "warn")
            if entry.expected_rows
            else GridCell("built" if entry.built else "–", "dim"),
        )
        for entry in entries
    ]


def profile_rows(profiles: Sequence[Profile]) -> list[GridRow]:
    """Rows of one profile, or of two with their differences, the largest first: headings,
    figures, bars of shares."""
    from workbench.data_profile import sections

    rows: list[GridRow] = []
    built = sections.build_sections(profiles)
    if len(profiles) == 2:
        rows += _largest_differences([row for section in built for row in section.rows])
    for section in built:
        rows += [("",)] if rows else []
        rows.append((GridCell(translate(section.title), "strong"),))
        rows += [_profile_row(row) for row in section.rows]
        if section.remark:
            rows.append((GridCell(f"  {clean_line(translate(section.remark))}", "dim"),))
        rows += _bars(section.bars)
    return rows


def _profile_row(row: ProfileRow) -> GridRow:
    cells = [clean_line(figure.text) for figure in row.figures]
    cells += [row.difference] if len(row.figures) == 2 else []
    shares = [figure.share for figure in row.figures if figure.share is not None]
    bar = draw_bars(shares) if len(shares) == len(row.figures) else ""
    return (f"  {clean_line(translate(row.label))}", *cells, GridCell(bar, "accent"))


def _largest_differences(rows: Sequence[ProfileRow]) -> list[GridRow]:
    """The rows whose shares differ most, in percentage points."""
    sized = []
    for row in rows:
        first, second = row.figures
        if first.share is not None and second.share is not None and first.share != second.share:
            sized.append((abs(second.share - first.share), row))
    if not sized:
        return []
    sized.sort(key=lambda pair: -pair[0])
    largest = [_profile_row(row) for _, row in sized[:MOST_DIFFERENCES]]
    return [(GridCell("largest differences, ▀ first ▄ second", "strong"),), *largest]


def draw_bars(shares: Sequence[float]) -> str:
    """A bar of one share; of two, one over the other in one line."""
    if len(shares) == 1:
        return draw_bar(shares[0], BAR_CELLS).rstrip()
    first, second = (round(share * BAR_CELLS) for share in shares)
    both = min(first, second)
    longer = "▀" if first > second else "▄"
    return "█" * both + longer * (max(first, second) - both)


def _bars(counts: Sequence[tuple[str, int]]) -> list[GridRow]:
    total, top = sum(n for _, n in counts), max((n for _, n in counts), default=0)
    if not total:
        return []
    return [
        (
            f"  {label}",
            GridCell(f"{100 * count / total:.1f} %", "dim"),
            GridCell(draw_bar(count / top, BAR_CELLS).rstrip(), "accent"),
        )
        for label, count in counts
    ]
