"""What can be copied from a screen: rows and tables of the focused list as Markdown, and more."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol, runtime_checkable

from textual.screen import Screen

from results.text.formats import count_noun
from results.text.table import Table, TableCell, TableColumn, render_markdown
from workbench.tui.view_models.cells import GridCell, GridRow
from workbench.tui.widgets.grid import Grid

MAX_ROWS: Final = 2_000
DRAWN: Final = frozenset(("mark", "interval", "trend", "pace", "load"))
"""Columns that are drawn, not written."""


class CopyChoice(NamedTuple):
    """A name and the text that is copied."""

    name: str
    text: str


@runtime_checkable
class Copyable(Protocol):
    """A screen with texts of its own: paths, commands."""

    def copy_choices(self) -> list[CopyChoice]:
        """The texts, the likeliest first."""


def collect_choices(screen: Screen[object]) -> list[CopyChoice]:
    """The screen's own texts, then row and table of the focused list."""
    choices = screen.copy_choices() if isinstance(screen, Copyable) else []
    grid = screen.focused
    if isinstance(grid, Grid) and grid.rows:
        row = grid.rows[grid.cursor]
        choices.append(CopyChoice("row, Markdown", _make_markdown(grid, [row])))
        rows = list(grid.rows[:MAX_ROWS])
        choices.append(
            CopyChoice(
                f"table of {count_noun(len(rows), 'row')}, Markdown", _make_markdown(grid, rows)
            )
        )
        choices += [
            CopyChoice(f"cell {column.title or column.key}", text)
            for column, text in zip(grid.columns, _texts(row), strict=False)
            if text and column.key not in DRAWN
        ]
    return [choice for choice in choices if choice.text]


def _texts(row: GridRow) -> list[str]:
    return [cell.text if isinstance(cell, GridCell) else cell for cell in row]


def _make_markdown(grid: Grid, rows: list[GridRow]) -> str:
    shown = [at for at, column in enumerate(grid.columns) if column.key not in DRAWN]
    columns = tuple(TableColumn(grid.columns[at].title, grid.columns[at].right) for at in shown)
    lines = []
    for row in rows:
        texts = _texts(row)
        if len(texts) == len(grid.columns):
            lines.append(tuple(TableCell(texts[at].strip()) for at in shown))
    return render_markdown(Table(columns, tuple(lines)))
