"""Strict reading of text files and tables (CSV, TSV): each deviation is reported with its row.

Cells are quoted as in RFC 4180. A row that cannot be read is skipped and counted; a table whose
rows cannot be separated raises SourceError.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.m2kr_fields import normalize_name
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.text_encoding import EncodingError, decode

MAX_FILE_BYTES: Final = 1 << 30
MAX_CELL: Final = 131_072
"""Characters of a quoted cell; longer ones are taken for an open quotation mark."""
DELIMITERS: Final = ",\t;|"

GUESSED: Final = "files are in {}, not in UTF-8, and were read so"
REPAIRED: Final = "files have U+FFFD where letters were lost before"
MOJIBAKE: Final = "files look like UTF-8 that was saved as Windows-1252 (Ã©, â€™, ê°•ì•„)"
BARE: Final = "rows have a quotation mark inside an unquoted cell, which was read as it stands"
SPACED: Final = "rows have blanks around a quoted cell, which were passed over"

EXCEL: Final = "rows have a cell that Excel could not compute (#NAME?, #REF!, …): its text is lost"

RAGGED: Final = (
    "row has not as many cells as the heading (quote cells with commas, or copy it again)"
)
OTHER_SIGN: Final = "row separates its cells by another sign than the heading"
NUL: Final = "row holds a NUL byte"
STRAY: Final = "a quotation mark inside a quoted cell is not doubled"
SWALLOWED: Final = "a quotation mark is closed rows later only"
OPEN: Final = "a quotation mark is opened and never closed"

_EXCEL_ERRORS: Final = frozenset({
    "#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#NULL!", "#NUM!", "#N/A", "#SPILL!",
})  # fmt: skip
_HIGH: Final = "\u0080-\u00bfŒœŠšŸŽžƒˆ˜–—‘’‚“”„†‡•…‰‹›€™"
"""Bytes 80 to BF in Windows-1252 and Latin-1."""
_MOJIBAKE: Final = re.compile(
    f"Ã[\u0080-\u00bf]|â€[\u0080-\u00bf\u2018-\u2122œž]|(?:[êëìí][{_HIGH}]{{2}} ?){{2}}"
)
"""Letters of Western Europe, apostrophes, and two syllables of Korean."""
_SEPARATOR: Final = re.compile(r"sep=([,;|\t])\n")
_QUOTED: Final = re.compile(r'[ \t]*"')


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row. `number` as a spreadsheet shows it; `problem`: why it cannot be read, "": it can."""

    number: int
    cells: list[str]
    problem: str = ""


@dataclass(frozen=True)
class TextTable:
    """A table with its heading."""

    name: str
    header: list[str]
    rows: list[TableRow]

    def find_columns(self, names: Mapping[str, Sequence[str]]) -> dict[str, int]:
        """Key -> index of its column: the first of its names that the header has.

        Raises:
            SourceError: the heading has that name twice.
        """
        headings = [normalize_name(cell) for cell in self.header]
        indices: dict[str, int] = {}
        for key, candidates in names.items():
            name = next((name for name in candidates if name in headings), None)
            if name is None:
                continue
            if headings.count(name) > 1:
                raise SourceError(
                    f"{self.name} has {headings.count(name)} columns {name!r}; rename all but one"
                )
            indices[key] = headings.index(name)
        return indices


def read_text(path: Path, name: str, report: SourceReport, encoding: str = "") -> str:
    """The file's text with line ends as LF; a guessed encoding is noted in the report.

    `encoding`: as the recipe states it; "": found out.

    Raises:
        SourceError: the file is larger than 1 GiB, or its encoding is not certain.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise SourceError(f"{name} is larger than 1 GiB; split it into several files")
    try:
        text, guessed_encoding = decode(path.read_bytes(), encoding)
    except EncodingError as reason:
        raise SourceError(f"{name} {reason}") from None
    if guessed_encoding:
        report.note(GUESSED.format(guessed_encoding), name)
    if "\ufffd" in text:
        report.note(REPAIRED, name)
    if _MOJIBAKE.search(text):
        report.note(MOJIBAKE, name)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_table(path: Path, name: str, report: SourceReport, encoding: str = "") -> TextTable:
    """Header and non-blank rows of a table.

    Raises:
        SourceError: the file is empty, or a quotation mark swallows its end.
    """
    return parse_table(read_text(path, name, report, encoding), name, report)


def parse_table(text: str, name: str, report: SourceReport) -> TextTable:
    """`read_table` of a text."""
    first_row, start = 1, 0
    if separator := _SEPARATOR.match(text.lower()):  # Excel's own first line
        first_row, start = 2, separator.end()
    delimiter = separator.group(1) if separator else _find_delimiter(text)
    header: list[str] = []
    rows = []
    for row in _parse_rows(text, start, delimiter, _ParseState(name, report, first_row)):
        if not any(cell.strip() for cell in row.cells) and not row.problem:
            continue
        if header:
            rows.append(_check_width(row, len(header), delimiter))
        elif row.problem:
            raise SourceError(f"{name} row {row.number}: {row.problem}; mend the heading")
        else:
            header = _check_width(row, 1, delimiter).cells
    if not header:
        raise SourceError(f"{name} is empty; copy it again")
    return TextTable(name, header, rows)


def _find_delimiter(text: str) -> str:
    """Delimiter of a table: the most frequent one in its header, outside of quotes."""
    head = re.sub(r'"[^"]*"', "", text.lstrip("\n").split("\n", 1)[0])
    return max(DELIMITERS, key=head.count)


def _check_width(row: TableRow, width: int, delimiter: str) -> TableRow:
    """The row without empty cells beyond the heading; another number of cells is a problem."""
    cells = row.cells
    while len(cells) > width and not cells[-1].strip():
        cells = cells[:-1]
    problem = row.problem
    if not problem and any("\0" in cell for cell in cells):
        problem = NUL
    if not problem and len(cells) != width:
        line = delimiter.join(cells)
        other_delimiters = (sign for sign in DELIMITERS if sign != delimiter)
        is_other = width > 1 and any(line.count(sign) == width - 1 for sign in other_delimiters)
        problem = OTHER_SIGN if is_other and len(cells) == 1 else RAGGED
    return TableRow(row.number, cells, problem)


# -- quotation marks ---------------------------------------------------------------------------


@dataclass
class _ParseState:
    name: str
    report: SourceReport
    number: int
    width: int = 0


class _MalformedRowError(Exception):
    """The row is malformed; the text is the reason."""


def _parse_rows(text: str, offset: int, delimiter: str, state: _ParseState) -> Iterator[TableRow]:
    """Every row, as RFC 4180 writes them; after one that cannot be read the next line follows."""
    while offset < len(text):
        number = state.number
        end = text.find("\n", offset)
        end = len(text) if end < 0 else end
        line = text[offset:end]
        if '"' not in line:
            cells, problem = line.split(delimiter), ""
        else:
            cells, end, problem = _parse_quoted_row(text, offset, end, delimiter, state)
        state.width = state.width or len(cells)
        state.number += 1
        offset = end + 1
        yield TableRow(number, cells, problem)


def _parse_quoted_row(
    text: str, offset: int, end: int, delimiter: str, state: _ParseState
) -> tuple[list[str], int, str]:
    """(cells, where the row ends, problem) of a row whose first line has a quotation mark."""
    position = f"{state.name} row {state.number}"
    notes: list[str] = []
    try:
        cells, stop = _parse_cells(text, offset, delimiter, position, notes)
        if stop > end and _is_swallowed(text, offset, stop, delimiter, state.width):
            raise _MalformedRowError(SWALLOWED)
    except _MalformedRowError as reason:
        return text[offset:end].split(delimiter), end, str(reason)
    for note in dict.fromkeys(notes):
        state.report.note(note, position)
    return cells, stop, ""


def _parse_cells(
    text: str, offset: int, delimiter: str, position: str, notes: list[str]
) -> tuple[list[str], int]:
    cells: list[str] = []
    while True:
        blank = _QUOTED.match(text, offset)
        if blank and delimiter not in blank.group():
            cell, stop = _parse_quoted_cell(text, blank.end(), position)
            after = stop
            while text[after : after + 1] in {" ", "\t"} - {delimiter}:
                after += 1
            if text[after : after + 1] not in {"", "\n", delimiter}:
                raise _MalformedRowError(STRAY)
            if after > stop or len(blank.group()) > 1:
                notes.append(SPACED)
        else:
            stops = [s for s in (text.find(delimiter, offset), text.find("\n", offset)) if s >= 0]
            after = min(stops, default=len(text))
            cell = text[offset:after]
            if '"' in cell:
                notes.append(BARE)
        cells.append(cell)
        if text[after : after + 1] != delimiter:
            return cells, after
        offset = after + 1


def _parse_quoted_cell(text: str, offset: int, position: str) -> tuple[str, int]:
    """(content, place behind the closing mark) of a cell whose content begins at `offset`."""
    parts, begin = [], offset
    while True:
        quote = text.find('"', offset, begin + MAX_CELL)
        if quote < 0:
            if len(text) > begin + MAX_CELL and '"' in text[begin + MAX_CELL :]:
                raise _MalformedRowError(SWALLOWED)
            raise SourceError(
                f"{position}: {OPEN}, so the rest of the file cannot be told apart; "
                "mend that row, or copy the file again"
            )
        parts.append(text[offset:quote])
        if text[quote + 1 : quote + 2] != '"':
            return '"'.join(parts), quote + 1
        offset = quote + 2


def _is_swallowed(text: str, offset: int, stop: int, delimiter: str, width: int) -> bool:
    """The first and the last line of a row over several lines are whole rows themselves."""
    lines = text[offset:stop].split("\n")
    first, last = lines[0], lines[-1]
    return (
        width > 1
        and first.count(delimiter) == last.count(delimiter) == width - 1
        and _character_pattern(first.split(delimiter)[0])
        == _character_pattern(last.split(delimiter)[0])
    )


def _character_pattern(cell: str) -> str:
    """Digits as 0 and letters as a, runs of them as one: `t12` and `t7` are alike."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", cell.strip()))


def readable_rows(table: TextTable, report: SourceReport) -> Iterator[TableRow]:
    """The rows that can be read; the others are counted and named."""
    for row in table.rows:
        if row.problem:
            report.skip(row.problem, f"{table.name} row {row.number}")
        else:
            yield row


def note_spreadsheet_errors(table: TextTable, report: SourceReport) -> None:
    """Note the rows with an error of a spreadsheet in the place of a text."""
    for row in table.rows:
        if not _EXCEL_ERRORS.isdisjoint(map(str.strip, row.cells)):
            report.note(EXCEL, f"{table.name} row {row.number}")


def require_readable(table: TextTable) -> list[TableRow]:
    """All rows.

    Raises:
        SourceError: one of them cannot be read.
    """
    for row in table.rows:
        if row.problem:
            raise SourceError(f"{table.name} row {row.number}: {row.problem}; copy it again")
    return table.rows


def require_columns(table: TextTable, columns: Collection[str], required: Sequence[str]) -> None:
    """Refuse a table that lacks a column.

    Raises:
        SourceError: it does; what it has, and what to call them.
    """
    if missing := [key for key in required if key not in columns]:
        raise SourceError(
            f"{table.name} has no column {', '.join(missing)} (its first row has "
            f"{', '.join(map(repr, table.header[:12]))}); name the columns {', '.join(required)}"
        )
