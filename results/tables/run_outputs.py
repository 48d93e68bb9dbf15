"""What a run left on disk: checkpoint, adapter, encoder folder, submission, predictions.

Apart from the tables of measurements: a reader wants these as paths, and files that belong together
as the folder that a library loads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final, NamedTuple, Protocol

from results.records.schema import RunRecord
from results.tables.table import Cell, Column, Table
from results.text import formats
from results.text.translations import say

KINDS: Final = ("checkpoint", "adapter", "encoder", "submission", "predictions")
"""Roles of artifacts in the order in which they are shown; any other follows by its own name."""
FOLDERS: Final = ("checkpoint", "adapter", "encoder")
"""Roles whose files are loaded as one folder."""


class File(Protocol):
    """A file as an engine or a record names it."""

    @property
    def path(self) -> str:
        """Relative to the run folder."""

    @property
    def role(self) -> str:
        """What it is for."""

    @property
    def size(self) -> int:
        """Bytes."""


class Output(NamedTuple):
    """One thing that a run left."""

    kind: str
    path: str
    """Relative to the run folder; of `FOLDERS` the folder."""
    size: int | None
    """Bytes; None: not known."""


def collect(files: Iterable[File], scored: Iterable[str | None]) -> list[Output]:
    """Each output once. `scored`: files of per-item scores that metrics name."""
    found: dict[tuple[str, str], int | None] = {}
    last = {file.path: file for file in files}
    for file in last.values():
        folder = str(PurePosixPath(file.path).parent)
        key = (file.role, folder if file.role in FOLDERS else file.path)
        found[key] = (found.get(key) or 0) + file.size
    for path in scored:
        if path:
            found.setdefault(("predictions", path), None)
    order = {kind: place for place, kind in enumerate(KINDS)}
    listed = sorted(found.items(), key=lambda item: order.get(item[0][0], len(order)))
    return [Output(kind, path, size) for (kind, path), size in listed]


def of(record: RunRecord) -> list[Output]:
    """What the run of a record left."""
    return collect(record.artifacts, (metric.scores_file for metric in record.metrics))


def table(records: Sequence[RunRecord], lang: str = "en", root: str = "") -> Table:
    """One row an output. Paths are below `root`, the log root; empty: relative to it."""
    start = f"{root.rstrip('/')}/" if root else ""
    body = tuple(
        (
            Cell(record.identity.run_id, "code"),
            Cell(say(f"outputs.{one.kind}", lang) if one.kind in KINDS else one.kind),
            Cell(f"{start}{record.folder}/{one.path}", "code"),
            Cell("" if one.size is None else formats.file_size(one.size), "value"),
        )
        for record in records
        for one in of(record)
    )
    titles = (say("column.run_id", lang), *(say(f"outputs.{t}", lang) for t in ("what", "path")))
    columns = (*map(Column, titles), Column(say("outputs.size", lang), right=True))
    remarks = () if root or not body else (Cell(say("outputs.remark", lang), "value"),)
    return Table(columns, body, remarks)
