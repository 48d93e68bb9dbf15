"""Readers of JSON lines, Arrow and Parquet files in parts that processes read independently.

A part of a JSON-lines file is a range of bytes; it owns the lines that begin in it. Ranges are read
into memory rather than mapped: mapped pages count as resident, and a scan of 2 GB must stay small.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from pydantic_core import from_json

from datasets_mm.adapters.m2kr_fields import LineError, as_list, record_from_m2kr, scalar_text
from datasets_mm.sources.file_patterns import match_pattern
from datasets_mm.sources.fingerprint import SourceError

PART_BYTES: Final = 4 << 20
BUFFER_BYTES: Final = 256 << 10
"""Fits a core's cache; buffers of some MiB cost a page fault for every 4 KiB, 5 µs a record."""
MAX_LINE_BYTES: Final = 16 << 20
"""As in the adapter: the largest lists of positives seen are far below."""

Reject = Callable[[int, str], None]
"""Called with the number of a line within its part and the reason for rejecting it."""


class RecordSource(Protocol):
    """A file that can be read in parts."""

    def parts(self) -> int:
        """How many."""
        ...

    def total(self) -> int:
        """Bytes or rows of all parts."""
        ...

    def read(self, part: int, reject: Reject) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number of the line within the part from 1, record) of each record of the part."""
        ...

    def size(self, part: int) -> tuple[int, int]:
        """(lines or rows, bytes or rows read) of a part that was read to its end."""
        ...


@dataclass
class JsonLinesReader:
    """A file of JSON lines."""

    path: Path
    part_bytes: int = PART_BYTES
    _lines: int = 0

    def total(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size

    def parts(self) -> int:
        """Ranges of `part_bytes`."""
        return -(-self.total() // self.part_bytes)

    def size(self, part: int) -> tuple[int, int]:
        """Lines that began in the part that was read last, and its bytes."""
        return self._lines, min(self.part_bytes, self.total() - part * self.part_bytes)

    def read(self, part: int, reject: Reject) -> Iterator[tuple[int, dict[str, Any]]]:
        """See `RecordSource`; blank lines are passed over but numbered."""
        self._lines = 0
        for number, raw in enumerate(self._raw(part), 1):
            self._lines = number
            try:
                if raw is None:
                    raise LineError(f"line longer than {MAX_LINE_BYTES >> 20} MiB")
                if not raw.isspace():
                    yield number, parse_line(raw)
            except LineError as reason:
                reject(number, str(reason))

    def _raw(self, part: int) -> Iterator[bytes | None]:
        """The lines that begin in the part; None for one that is too long to be held."""
        at = part * self.part_bytes
        end = at + self.part_bytes
        with self.path.open("rb", buffering=BUFFER_BYTES) as file:
            if at:
                at -= 1  # a line begins where the byte before is a line's end
                file.seek(at)
                at = _skip_line(file, at, end)
            while at < end:
                raw = file.readline(MAX_LINE_BYTES + 1)
                if not raw:
                    return
                at += len(raw)
                if len(raw) <= MAX_LINE_BYTES:
                    yield raw
                    continue
                yield None
                if not raw.endswith(b"\n"):
                    at = _skip_line(file, at, end)


def _skip_line(file: BinaryIO, at: int, end: int) -> int:
    """Where the next line begins; `end` or more: not before it."""
    while at < end:
        piece = file.readline(BUFFER_BYTES)
        if not piece:
            return end
        at += len(piece)
        if piece.endswith(b"\n"):
            return at
    return end


def parse_line(raw: bytes) -> dict[str, Any]:
    """Parse the object of one line; lines that the fast parser refuses go to the json module.

    The fast one knows no lone surrogates and no nesting over 200; both are legal.
    """
    try:
        value = from_json(raw, cache_strings="none")
    except ValueError:
        value = _parse_strictly(raw)
    if type(value) is not dict:
        raise LineError("line is not an object")
    return value


def _parse_strictly(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise LineError("line is not UTF-8") from None
    except (ValueError, RecursionError):
        raise LineError("line is not JSON") from None


@dataclass
class ArrowReader:
    """The records of a built subset: an Arrow file of equal batches."""

    path: Path
    _rows: int = 0

    def _file(self, *, mapped: bool = True) -> Any:
        import pyarrow as pa

        path = str(self.path)
        return pa.ipc.open_file(pa.memory_map(path) if mapped else pa.OSFile(path))

    def parts(self) -> int:
        """Batches."""
        return int(self._file().num_record_batches)

    def total(self) -> int:
        """Rows."""
        file = self._file()
        return sum(file.get_batch(n).num_rows for n in range(file.num_record_batches))

    def size(self, part: int) -> tuple[int, int]:
        """Rows of the part that was read last, twice: their number is the measure of progress."""
        del part
        return self._rows, self._rows

    def read(self, part: int, reject: Reject) -> Iterator[tuple[int, dict[str, Any]]]:
        """See `RecordSource`."""
        del reject
        batch = self._file(mapped=False).get_batch(part)
        self._rows = batch.num_rows
        names = batch.schema.names
        columns = [batch.column(name).to_pylist() for name in names]
        for number, row in enumerate(zip(*columns, strict=True), 1):
            yield number, dict(zip(names, row, strict=True))


@dataclass
class ParquetReader:
    """M2KR's `*_data` files, a row group a part, read under our nine names.

    Texts of positives come from the `*_passages` folder beside, where there is one and the rows
    have ids only.
    """

    paths: tuple[Path, ...]
    _rows: int = 0
    _texts: dict[str, str] | None = None

    def _groups(self) -> list[tuple[Path, int, int]]:
        """(file, row group, rows)."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        groups = []
        for path in self.paths:
            try:
                metadata = pq.read_metadata(path)
            except pa.ArrowException as error:
                raise SourceError(
                    f"{path.name} is no whole Parquet file ({error}); download it again"
                ) from None
            groups += [
                (path, n, metadata.row_group(n).num_rows) for n in range(metadata.num_row_groups)
            ]
        return groups

    def parts(self) -> int:
        """Row groups of all files."""
        return len(self._groups())

    def total(self) -> int:
        """Rows."""
        return sum(rows for _, _, rows in self._groups())

    def size(self, part: int) -> tuple[int, int]:
        """Rows of the part that was read last, twice."""
        del part
        return self._rows, self._rows

    def read(self, part: int, reject: Reject) -> Iterator[tuple[int, dict[str, Any]]]:
        """See `RecordSource`."""
        import pyarrow.parquet as pq

        del reject
        path, group, self._rows = self._groups()[part]
        dataset = next((p for p in path.parts[::-1] if p.endswith("_data")), "")
        number = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1024, row_groups=[group]):
                for row in batch.to_pylist():
                    number += 1
                    yield (
                        number,
                        self._with_texts(record_from_m2kr(row, dataset.removesuffix("_data"))),
                    )

    def _with_texts(self, line: dict[str, Any]) -> dict[str, Any]:
        if self._texts is None:
            self._texts = _read_passage_texts(self.paths[0])
        if line["passage_text"] is None and self._texts:
            names = [scalar_text(passage_id) for passage_id in as_list(line["passage_id"])]
            line["passage_text"] = [self._texts.get(name) for name in names]
        return line


def _read_passage_texts(data: Path) -> dict[str, str]:
    """Id -> text of the passage files that belong to a data file."""
    import pyarrow.parquet as pq

    folder = next((p for p in data.parents if p.name.endswith("_data")), None)
    if folder is None:
        return {}
    passage_folder = folder.with_name(folder.name.removesuffix("_data") + "_passages")
    texts: dict[str, str] = {}
    for path in match_pattern("**/*.parquet", passage_folder).files:
        with pq.ParquetFile(path) as file:
            columns = ["passage_id", "passage_content"]
            for batch in file.iter_batches(4096, columns=columns):
                for row in batch.to_pylist():
                    texts.setdefault(
                        scalar_text(row["passage_id"]), scalar_text(row["passage_content"])
                    )
    return texts
