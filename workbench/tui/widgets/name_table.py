"""Names at the left, texts at the right of them, wrapped within their column."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text


def make_name_table(lines: Iterable[tuple[Text, Text]], cells: int) -> Table:
    """A table of (name, text); `cells`: width of the names, longer ones are cut."""
    table = Table.grid(expand=True, padding=(0, 1, 0, 0))
    table.add_column(width=cells, no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for name, text in lines:
        table.add_row(name, text)
    return table
