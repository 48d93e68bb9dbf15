"""Text files of strangers as text: UTF-8 with or without a mark, UTF-16 with one, or else CP949.

Apart from the adapters, because tables and lists of every format come out of Excel and Korean tools
in the same few encodings, and each of them must be read, or refused, in the same way.
"""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path
from typing import Final

from datasets_mm.adapters import SourceReport
from datasets_mm.source import SourceError

MAX_FILE_BYTES: Final = 1 << 30
NOT_UTF8: Final = "files are in CP949, not in UTF-8, and were read so"


def read_text(path: Path, name: str, report: SourceReport) -> str:
    """The file's text; CP949 is noted in the report.

    Raises:
        SourceError: the file is larger than 1 GiB, or in no encoding that is known.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise SourceError(f"{name} is larger than 1 GiB; split it into several files")
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        said = data.decode("cp949")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{name} is neither UTF-8 nor CP949 (byte {error.start}); save it as UTF-8"
        ) from None
    report.note(NOT_UTF8, name)
    return said


def delimiter_of(said: str) -> str:
    """What separates the cells of a table, judged by its heading."""
    head = said.split("\n", 1)[0]
    return max(",\t;|", key=head.count)


def read_table(
    path: Path, name: str, report: SourceReport
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The heading of a table, and (row number, cells) of what follows but for blank rows.

    Rows are counted as a spreadsheet shows them: the heading is row 1.

    Raises:
        SourceError: the file is empty, or a quotation mark swallows its end.
    """
    said = read_text(path, name, report)
    lines = list(io.StringIO(said, newline=""))
    reader = csv.reader(iter(lines), delimiter=delimiter_of(said))
    rows: list[tuple[int, list[str]]] = []
    number = begin = end = 0
    try:
        for number, cells in enumerate(reader, 1):
            begin, end = end, reader.line_num
            if any(cell.strip() for cell in cells):
                rows.append((number, cells))
    except csv.Error as error:
        raise SourceError(_torn(name, number + 1, str(error))) from None
    if not rows:
        raise SourceError(f"{name} is empty; copy it again")
    if end > begin + 1 and "".join(lines[begin:end]).count('"') % 2:
        raise SourceError(_torn(name, number, "a quotation mark is opened and never closed"))
    return rows[0][1], rows[1:]


def _torn(name: str, number: int, why: str) -> str:
    return (
        f"{name} row {number}: {why}, so the rest of the file cannot be told apart; "
        "mend that row, or copy the file again"
    )
