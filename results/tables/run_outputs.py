"""Table of the files that a run left: checkpoint, adapter, encoder folder, submission, predictions.

Files that a library loads as one folder are one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final, NamedTuple, Protocol

from results.records.schema import RunRecord
from results.text import formats
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import translate

OUTPUT_KINDS: Final = ("checkpoint", "adapter", "encoder", "submission", "predictions")
"""Roles of artifacts in the order in which they are shown; any other follows by its own name."""
FOLDER_KINDS: Final = ("checkpoint", "adapter", "encoder")
"""Roles whose files are loaded as one folder."""


class OutputFile(Protocol):
    """A file as an engine or a record names it."""

    @property
    def path(self) -> str:
        """Relative to the run folder."""

    @property
    def role(self) -> str:
        """Purpose of the file."""

    @property
    def size(self) -> int:
        """Bytes."""


class RunOutput(NamedTuple):
    """One output of a run: a file, or a folder of files."""

    kind: str
    path: str
    """Relative to the run folder; of `FOLDER_KINDS` the folder."""
    size: int | None
    """Bytes; None: not known."""


def collect_outputs(files: Iterable[OutputFile], scored: Iterable[str | None]) -> list[RunOutput]:
    """Each output once. `scored`: files of per-item scores that metrics name."""
    size_of_output: dict[tuple[str, str], int | None] = {}
    last = {file.path: file for file in files}
    for file in last.values():
        folder = str(PurePosixPath(file.path).parent)
        key = (file.role, folder if file.role in FOLDER_KINDS else file.path)
        size_of_output[key] = (size_of_output.get(key) or 0) + file.size
    for path in scored:
        if path:
            size_of_output.setdefault(("predictions", path), None)
    order = {kind: index for index, kind in enumerate(OUTPUT_KINDS)}
    listed = sorted(size_of_output.items(), key=lambda item: order.get(item[0][0], len(order)))
    return [RunOutput(kind, path, size) for (kind, path), size in listed]


def list_outputs(record: RunRecord) -> list[RunOutput]:
    """Outputs of the run of a record."""
    return collect_outputs(record.artifacts, (metric.scores_file for metric in record.metrics))


def table(records: Sequence[RunRecord], lang: str = "en", root: str = "") -> Table:
    """One row an output. Paths are below `root`, the log root; empty: relative to it."""
    start = f"{root.rstrip('/')}/" if root else ""
    body = tuple(
        (
            TableCell(record.identity.run_id, "code"),
            TableCell(
                translate(f"outputs.{output.kind}", lang)
                if output.kind in OUTPUT_KINDS
                else output.kind
            ),
            TableCell(f"{start}{record.folder}/{output.path}", "code"),
            TableCell("" if output.size is None else formats.file_size(output.size), "value"),
        )
        for record in records
        for output in list_outputs(record)
    )
    titles = (
        translate("column.run_id", lang),
        *(translate(f"outputs.{t}", lang) for t in ("what", "path")),
    )
    columns = (*map(TableColumn, titles), TableColumn(translate("outputs.size", lang), right=True))
    remarks = () if root or not body else (TableCell(translate("outputs.remark", lang), "value"),)
    return Table(columns, body, remarks)
