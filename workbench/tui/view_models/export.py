"""Export of the Results screen's rows as Markdown or CSV.

Text from data is escaped for the program that opens the file: markup in Markdown, and in CSV
formulas of spreadsheets, which get an apostrophe.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from results.text.sanitize import starts_formula
from workbench.tui.view_models.cells import GridCell
from workbench.tui.view_models.result_rows import COLUMNS, ResultRow

_MARKUP: Final = re.compile(r"([\\`*_\[\]<>|#~])")
_NUMBER: Final = re.compile(r"[-+]?[\d.,:]+([eE][-+]?\d+)?( ?[\w/%]+)?\Z")


def cell_texts(row: ResultRow) -> list[str]:
    """The cells of a row as plain text."""
    return [cell.text if isinstance(cell, GridCell) else cell for cell in row.cells]


def markdown(rows: Sequence[ResultRow]) -> str:
    """A GitHub table."""
    head = " | ".join(column.title for column in COLUMNS)
    rule = " | ".join("---:" if column.right else "---" for column in COLUMNS)
    body = [" | ".join(_MARKUP.sub(r"\\\1", text) for text in cell_texts(row)) for row in rows]
    return "".join(f"| {line} |\n" for line in (head, rule, *body))


def comma_separated(rows: Sequence[ResultRow]) -> str:
    """CSV with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.title for column in COLUMNS])
    writer.writerows([_escape_formula(text) for text in cell_texts(row)] for row in rows)
    return out.getvalue()


def write_export(rows: Sequence[ResultRow], folder: Path, kind: str) -> Path:
    """Write the rows into a new file of the folder; returns its path.

    Raises:
        OSError: it cannot be written.
    """
    text = markdown(rows) if kind == "md" else comma_separated(rows)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"results-{time.strftime('%Y%m%d-%H%M%S')}.{kind}"
    path.write_text(text, encoding="utf-8")
    return path


def _escape_formula(text: str) -> str:
    return f"'{text}" if starts_formula(text) and not _NUMBER.match(text) else text
