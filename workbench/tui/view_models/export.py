"""Export of the Results screen's rows as Markdown or CSV."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from results.text.table import Table, TableCell, TableColumn, csv_text, render_markdown
from workbench.tui.view_models.cells import GridCell
from workbench.tui.view_models.result_rows import COLUMNS, ResultRow


def build_table(rows: Sequence[ResultRow]) -> Table:
    """The rows as a table of a report; columns of numbers are aligned to the right."""
    columns = tuple(TableColumn(column.title, column.right) for column in COLUMNS)
    texts = [[c.text if isinstance(c, GridCell) else c for c in row.cells] for row in rows]
    cells = [
        tuple(
            TableCell(text, "value" if column.right else "text")
            for text, column in zip(row, columns, strict=True)
        )
        for row in texts
    ]
    return Table(columns, tuple(cells))


def write_export(rows: Sequence[ResultRow], folder: Path, kind: str) -> Path:
    """Write the rows into a new file of the folder; returns its path. `kind`: `md` or `csv`.

    Raises:
        OSError: it cannot be written.
    """
    render = render_markdown if kind == "md" else csv_text
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"results-{time.strftime('%Y%m%d-%H%M%S')}.{kind}"
    path.write_text(render(build_table(rows)), encoding="utf-8")
    return path
