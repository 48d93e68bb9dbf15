"""Reads BByrneLab/M2KR: Parquet files in folders `<CONFIG>_data` and `<CONFIG>_passages`.

Record batches of some hundred rows, so that memory stays bounded whatever the size of a row group's
file. Its columns become our nine fields (fields.py); positives take their text from the passages.
Source: M2KR's dataset card, and FLMR's docs/Datasets.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.fields import M2KR_DATA, M2KR_PASSAGES, from_m2kr, passage_from_m2kr
from datasets_mm.adapters.intake import Intake
from datasets_mm.location import Location
from datasets_mm.source import SourceError

REVISION = 1
BATCH_ROWS = 1024

NEEDED_DATA = ("pos_item_ids",)
NEEDED_PASSAGES = ("passage_id", "passage_content")

Say = Callable[[int, int, str], None]


def write(found: Location, folder: Path, progress: Say) -> SourceReport:
    """Write every usable record, and the passages as the corpus.

    Raises:
        SourceError: a file is damaged or lacks a column that it must have.
    """
    report = SourceReport()
    intake = Intake(found, folder, report)
    files = Files(found, progress)
    for where, row in files.rows(found.passages, M2KR_PASSAGES.values(), NEEDED_PASSAGES):
        intake.add_passage(where, passage_from_m2kr(row))
    intake.settle()
    columns = (*M2KR_DATA.values(), "gold_answer")
    for where, row in files.rows(found.records, columns, NEEDED_DATA):
        intake.add_record(where, from_m2kr(row, found.source.dataset))
    intake.close()
    return report


class Files:
    """The shards of a split, read one after the other."""

    def __init__(self, found: Location, progress: Say) -> None:
        self._found = found
        self._progress = progress

    def rows(
        self, paths: Sequence[Path], wanted: Any, needed: Sequence[str]
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(name of the row, its columns among `wanted`) of every row of all files."""
        for path in paths:
            name = self._found.name(path)
            try:
                yield from self._of_one(path, name, wanted, needed)
            except (pa.ArrowException, OSError) as error:
                reason = str(error).splitlines()[0][:120]
                raise SourceError(f"{name} is damaged ({reason}); download it again") from None

    def _of_one(
        self, path: Path, name: str, wanted: Any, needed: Sequence[str]
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            if lacking := [column for column in needed if column not in there]:
                raise SourceError(
                    f"{name} has no column {', '.join(lacking)} (it has {', '.join(there)}); "
                    "is it a file of M2KR?"
                )
            columns = [column for column in wanted if column in there]
            done, total = 0, file.metadata.num_rows
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    done += 1
                    yield f"{name} row {done}", row
                self._progress(done, total, "rows")
