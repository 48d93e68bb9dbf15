"""Export of the Results screen: the shown table as Markdown; the numbers are a command's work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from results.text.table import Table, TableCell, TableColumn, render_markdown
from workbench.tui.view_models.cells import CellLike, GridCell

if TYPE_CHECKING:
    from results.listing.run_filter import ListedRun
    from workbench.tui.view_models.results.rows import ResultTable

KINDS: Final = (
    ("csv", "CSV: numbers, with their unit in the heading, run ids, settings, intervals"),
    ("parquet", "Parquet: the same, for pandas"),
    ("jsonl", "JSON lines: the same"),
    ("md", "Markdown: the table as it is shown"),
)  # fmt: skip


def list_runs(table: ResultTable) -> list[ListedRun]:
    """The runs of a table in its order, also those of folded groups."""
    from workbench.tui.view_models.results.rows import GroupEntry

    runs: list[ListedRun] = []
    for entry in table.entries:
        if not isinstance(entry, GroupEntry):
            runs.append(entry)
        elif entry.folded:
            runs += entry.runs
    return runs


def build_table(table: ResultTable) -> Table:
    """The shown columns as a table of a report, with the id of each run and the year."""
    columns = [column for column in table.columns if column.grid.key != "interval"]
    titles = [TableColumn("run"), *(TableColumn(c.grid.title, c.grid.right) for c in columns)]
    rows = []
    for run in list_runs(table):
        cells: list[CellLike] = [column.make_cell(run, table.scale) for column in columns]
        when = run.summary.started
        texts = [cell.text if isinstance(cell, GridCell) else cell for cell in cells]
        for at, column in enumerate(columns):
            if column.grid.key == "when" and when:
                texts[at] = time.strftime("%Y-%m-%d %H:%M", time.localtime(when))
        kinds = ["value" if column.grid.right else "text" for column in columns]
        rows.append((
            TableCell("/".join(run.summary.key), "code"),
            *(TableCell(text, kind) for text, kind in zip(texts, kinds, strict=True)),  # type: ignore[arg-type]
        ))  # fmt: skip
    return Table(tuple(titles), tuple(rows))


def choose_path(folder: Path, kind: str) -> Path:
    """A new file of the folder `exports` of a log root."""
    return folder / "exports" / f"results-{time.strftime('%Y%m%d-%H%M%S')}.{kind}"


def write_markdown(table: ResultTable, path: Path) -> None:
    """Write the table as Markdown.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(render_markdown(build_table(table)), encoding="utf-8")


def run_lines(runs: Sequence[ListedRun]) -> str:
    """`suite/run` of each, one a line, for `workbench results export FILE --run -`."""
    return "".join("/".join(run.summary.key) + "\n" for run in runs)
