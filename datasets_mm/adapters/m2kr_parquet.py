"""Adapter for BByrneLab/M2KR: Parquet files in folders `<CONFIG>_data` and `<CONFIG>_passages`.

Files are read in batches of `BATCH_ROWS` rows, so that memory does not depend on the size of a row
group. Columns become M2KR's nine fields (m2kr_fields.py); positives take their text from the
passages. Source: M2KR's dataset card, and FLMR's docs/Datasets.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.m2kr_fields import (
    M2KR_DATA,
    M2KR_PASSAGES,
    normalize_name,
    passage_from_m2kr,
    record_from_m2kr,
)
from datasets_mm.adapters.m2kr_tables import M2KRWriter
from datasets_mm.child_messages import Progress
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.sources.location import Location

REVISION = 4
BATCH_ROWS = 1024

NEEDED_DATA = ("pos_item_ids",)
NEEDED_PASSAGES = ("passage_id", "passage_content")

UNREADABLE = "row holds text that is not UTF-8, or a value out of its range"


def write(location: Location, folder: Path, progress: Progress) -> SourceReport:
    """Write every usable record, and the passages as the corpus.

    Raises:
        SourceError: a file is damaged or lacks a column that it must have.
    """
    report = SourceReport()
    writer = M2KRWriter(location, folder, report)
    shards = ParquetShards(location, report, progress)
    for position, row in shards.read_rows(
        location.passages, M2KR_PASSAGES.values(), NEEDED_PASSAGES
    ):
        writer.add_passage(position, passage_from_m2kr(row))
    writer.finish_passages()
    columns = (*M2KR_DATA.values(), "gold_answer")
    for position, row in shards.read_rows(location.records, columns, NEEDED_DATA):
        writer.add_record(position, record_from_m2kr(row, location.source.dataset))
    writer.close()
    return report


class ParquetShards:
    """The shards of a split, read one after the other."""

    def __init__(self, location: Location, report: SourceReport, progress: Progress) -> None:
        self._location = location
        self._report = report
        self._progress = progress

    def read_rows(
        self, paths: Sequence[Path], names: Any, required: Sequence[str]
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(name of the row, its columns among `names`) of every row of all files."""
        for path in paths:
            name = self._location.name(path)
            try:
                yield from self._read_file(path, name, names, required)
            except (pa.ArrowException, OSError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
                raise SourceError(f"{name} is damaged ({reason}); download it again") from None

    def _read_file(
        self, path: Path, name: str, names: Any, required: Sequence[str]
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        with pq.ParquetFile(path) as file:
            written_names = _match_columns(file.schema_arrow.names, names, name)
            if missing := [column for column in required if column not in written_names]:
                has = ", ".join(file.schema_arrow.names)
                raise SourceError(
                    f"{name} has no column {', '.join(missing)} (it has {has}); "
                    "is it a file of M2KR?"
                )
            columns = [written_names[column] for column in names if column in written_names]
            columns_by_name = {header_name: column for column, header_name in written_names.items()}
            done, total = 0, file.metadata.num_rows
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                for row in _batch_rows(batch):
                    done += 1
                    position = f"{name} row {done}"
                    if row is None:
                        self._report.skip(UNREADABLE, position)
                        continue
                    yield position, {columns_by_name[key]: value for key, value in row.items()}
                self._progress(done, total, "rows")


def _batch_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
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


def _match_columns(header: Sequence[str], columns: Sequence[str], name: str) -> dict[str, str]:
    """Column -> its name in the file, which may differ in capitals and blanks.

    Raises:
        SourceError: the file has one of them twice.
    """
    matches: dict[str, str] = {}
    for column in dict.fromkeys(columns):
        candidates = [heading for heading in header if heading == column] or [
            heading for heading in header if normalize_name(heading) == column
        ]
        if len(candidates) > 1:
            raise SourceError(f"{name} has {len(candidates)} columns {column}; rename all but one")
        if candidates:
            matches[column] = candidates[0]
    return matches
