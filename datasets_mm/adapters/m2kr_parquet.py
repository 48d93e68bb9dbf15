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
from datasets_mm.adapters.m2kr_fields import (
    M2KR_DATA,
    M2KR_PASSAGES,
    from_m2kr,
    heading,
    passage_from_m2kr,
)
from datasets_mm.adapters.m2kr_tables import Intake
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.sources.location import Location

REVISION = 3
BATCH_ROWS = 1024

NEEDED_DATA = ("pos_item_ids",)
NEEDED_PASSAGES = ("passage_id", "passage_content")

UNREADABLE = "row holds text that is not UTF-8, or a value out of its range"

Say = Callable[[int, int, str], None]


def write(found: Location, folder: Path, progress: Say) -> SourceReport:
    """Write every usable record, and the passages as the corpus.

    Raises:
        SourceError: a file is damaged or lacks a column that it must have.
    """
    report = SourceReport()
    intake = Intake(found, folder, report)
    files = Files(found, report, progress)
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

    def __init__(self, found: Location, report: SourceReport, progress: Say) -> None:
        self._found = found
        self._report = report
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
                reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
                raise SourceError(f"{name} is damaged ({reason}); download it again") from None

    def _of_one(
        self, path: Path, name: str, wanted: Any, needed: Sequence[str]
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        with pq.ParquetFile(path) as file:
            there = _columns(file.schema_arrow.names, wanted, name)
            if lacking := [column for column in needed if column not in there]:
                has = ", ".join(file.schema_arrow.names)
                raise SourceError(
                    f"{name} has no column {', '.join(lacking)} (it has {has}); "
                    "is it a file of M2KR?"
                )
            columns = [there[column] for column in wanted if column in there]
            named = {written: column for column, written in there.items()}
            done, total = 0, file.metadata.num_rows
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                for row in _rows(batch):
                    done += 1
                    where = f"{name} row {done}"
                    if row is None:
                        self._report.skip(UNREADABLE, where)
                        continue
                    yield where, {named[key]: value for key, value in row.items()}
                self._progress(done, total, "rows")


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """The rows of a batch; None for one that Python cannot hold."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError, pa.ArrowException):
        pass  # nothing was yielded: the whole batch is converted at once
    for number in range(batch.num_rows):
        try:
            yield batch.slice(number, 1).to_pylist()[0]
        except (ValueError, OverflowError, pa.ArrowException):
            yield None


def _columns(written: Sequence[str], wanted: Sequence[str], name: str) -> dict[str, str]:
    """Column as it is wanted -> as the file writes it, whatever its capitals and blanks.

    Raises:
        SourceError: the file has a wanted one twice.
    """
    columns: dict[str, str] = {}
    for column in dict.fromkeys(wanted):
        fits = [one for one in written if one == column] or [
            one for one in written if heading(one) == column
        ]
        if len(fits) > 1:
            raise SourceError(f"{name} has {len(fits)} columns {column}; rename all but one")
        if fits:
            columns[column] = fits[0]
    return columns
