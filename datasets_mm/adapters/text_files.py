"""Text files and tables of strangers, read strictly: every deviation is named by its row.

Apart from the adapters, because tables and lists of every format come out of the same few
spreadsheets and tools, and each of them must be read, or refused, in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.m2kr_fields import heading
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.text_encoding import EncodingError, decode

MAX_FILE_BYTES: Final = 1 << 30
MAX_CELL: Final = 131_072
"""Characters of a quoted cell; longer ones are taken for an open quotation mark."""
DELIMITERS: Final = ",\t;|"

GUESSED: Final = "files are in {}, not in UTF-8, and were read so"
REPAIRED: Final = "files have U+FFFD where letters were lost before"
MOJIBAKE: Final = "files look like UTF-8 that was saved as Windows-1252 (Ã©, â€™)"
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
_MOJIBAKE: Final = re.compile("Ã[\u0080-\u00bf]|â€[\u0080-\u00bf\u2018-\u2122œž]")
_SEPARATOR: Final = re.compile(r"sep=([,;|\t])\n")
_QUOTED: Final = re.compile(r'[ \t]*"')


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row. `number` as a spreadsheet shows it; `problem`: why it cannot be read, "": it can."""

    number: int
    cells: list[str]
    problem: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its heading."""

    name: str
    header: list[str]
    rows: list[TableRow]

    def columns(self, names: Mapping[str, Sequence[str]]) -> dict[str, int]:
        """What -> number of its column: the first of its names that the heading has.

        Raises:
            SourceError: the heading has that name twice.
        """
        written = [heading(cell) for cell in self.header]
        places: dict[str, int] = {}
        for key, candidates in names.items():
            name = next((name for name in candidates if name in written), None)
            if name is None:
                continue
            if written.count(name) > 1:
                raise SourceError(
                    f"{self.name} has {written.count(name)} columns {name!r}; rename all but one"
                )
            places[key] = written.index(name)
        return places


def read_text(path: Path, name: str, report: SourceReport, encoding: str = "") -> str:
    """The file's text with line ends as LF; a guessed encoding is noted in the report.

    `encoding`: as the recipe states it; "": found out.

    Raises:
        SourceError: the file is larger than 1 GiB, or its encoding is not certain.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise SourceError(f"{name} is larger than 1 GiB; split it into several files")
    try:
        said, guess = decode(path.read_bytes(), encoding)
    except EncodingError as reason:
        raise SourceError(f"{name} {reason}") from None
    if guess:
        report.note(GUESSED.format(guess), name)
    if "\ufffd" in said:
        report.note(REPAIRED, name)
    if _MOJIBAKE.search(said):
        report.note(MOJIBAKE, name)
    return said.replace("\r\n", "\n").replace("\r", "\n")


def read_table(path: Path, name: str, report: SourceReport, encoding: str = "") -> Table:
    """The heading of a table, and what follows but for blank rows.

    Raises:
        SourceError: the file is empty, or a quotation mark swallows its end.
    """
    return parse_table(read_text(path, name, report, encoding), name, report)


def parse_table(said: str, name: str, report: SourceReport) -> Table:
    """`read_table` of a text."""
    first, start = 1, 0
    if stated := _SEPARATOR.match(said.lower()):  # Excel's own first line
        first, start = 2, stated.end()
    delimiter = stated.group(1) if stated else _delimiter(said)
    header: list[str] = []
    rows = []
    for row in _rows(said, start, delimiter, _Account(name, report, first)):
        if not any(cell.strip() for cell in row.cells) and not row.problem:
            continue
        if header:
            rows.append(_checked(row, len(header), delimiter))
        elif row.problem:
            raise SourceError(f"{name} row {row.number}: {row.problem}; mend the heading")
        else:
            header = _checked(row, 1, delimiter).cells
    if not header:
        raise SourceError(f"{name} is empty; copy it again")
    return Table(name, header, rows)


def _delimiter(said: str) -> str:
    """What separates the cells of a table: the commonest in its heading, outside of quotes."""
    head = re.sub(r'"[^"]*"', "", said.lstrip("\n").split("\n", 1)[0])
    return max(DELIMITERS, key=head.count)


def _checked(row: TableRow, width: int, delimiter: str) -> TableRow:
    """The row without empty cells beyond the heading; another number of cells is a problem."""
    cells = row.cells
    while len(cells) > width and not cells[-1].strip():
        cells = cells[:-1]
    problem = row.problem
    if not problem and any("\0" in cell for cell in cells):
        problem = NUL
    if not problem and len(cells) != width:
        line = delimiter.join(cells)
        others = (sign for sign in DELIMITERS if sign != delimiter)
        is_other = width > 1 and any(line.count(sign) == width - 1 for sign in others)
        problem = OTHER_SIGN if is_other and len(cells) == 1 else RAGGED
    return TableRow(row.number, cells, problem)


# -- quotation marks ---------------------------------------------------------------------------


@dataclass
class _Account:
    name: str
    report: SourceReport
    number: int
    width: int = 0


class _DeviationError(Exception):
    """The row is no row; the text says why."""


def _rows(said: str, at: int, delimiter: str, account: _Account) -> Iterator[TableRow]:
    """Every row, as RFC 4180 writes them; after one that cannot be read the next line follows."""
    while at < len(said):
        number = account.number
        end = said.find("\n", at)
        end = len(said) if end < 0 else end
        line = said[at:end]
        if '"' not in line:
            cells, problem = line.split(delimiter), ""
        else:
            cells, end, problem = _quoted_row(said, at, end, delimiter, account)
        account.width = account.width or len(cells)
        account.number += 1
        at = end + 1
        yield TableRow(number, cells, problem)


def _quoted_row(
    said: str, at: int, end: int, delimiter: str, account: _Account
) -> tuple[list[str], int, str]:
    """(cells, where the row ends, problem) of a row whose first line has a quotation mark."""
    where = f"{account.name} row {account.number}"
    notes: list[str] = []
    try:
        cells, stop = _cells(said, at, delimiter, where, notes)
        if stop > end and _is_swallowed(said, at, stop, delimiter, account.width):
            raise _DeviationError(SWALLOWED)
    except _DeviationError as reason:
        return said[at:end].split(delimiter), end, str(reason)
    for note in dict.fromkeys(notes):
        account.report.note(note, where)
    return cells, stop, ""


def _cells(
    said: str, at: int, delimiter: str, where: str, notes: list[str]
) -> tuple[list[str], int]:
    cells: list[str] = []
    while True:
        blank = _QUOTED.match(said, at)
        if blank and delimiter not in blank.group():
            cell, stop = _quoted_cell(said, blank.end(), where)
            after = stop
            while said[after : after + 1] in {" ", "\t"} - {delimiter}:
                after += 1
            if said[after : after + 1] not in {"", "\n", delimiter}:
                raise _DeviationError(STRAY)
            if after > stop or len(blank.group()) > 1:
                notes.append(SPACED)
        else:
            stops = [s for s in (said.find(delimiter, at), said.find("\n", at)) if s >= 0]
            after = min(stops, default=len(said))
            cell = said[at:after]
            if '"' in cell:
                notes.append(BARE)
        cells.append(cell)
        if said[after : after + 1] != delimiter:
            return cells, after
        at = after + 1


def _quoted_cell(said: str, at: int, where: str) -> tuple[str, int]:
    """(content, place behind the closing mark) of a cell whose content begins at `at`."""
    parts, begin = [], at
    while True:
        mark = said.find('"', at, begin + MAX_CELL)
        if mark < 0:
            if len(said) > begin + MAX_CELL and '"' in said[begin + MAX_CELL :]:
                raise _DeviationError(SWALLOWED)
            raise SourceError(
                f"{where}: {OPEN}, so the rest of the file cannot be told apart; "
                "mend that row, or copy the file again"
            )
        parts.append(said[at:mark])
        if said[mark + 1 : mark + 2] != '"':
            return '"'.join(parts), mark + 1
        at = mark + 2


def _is_swallowed(said: str, at: int, stop: int, delimiter: str, width: int) -> bool:
    """The first and the last line of a row over several lines are whole rows themselves."""
    lines = said[at:stop].split("\n")
    first, last = lines[0], lines[-1]
    return (
        width > 1
        and first.count(delimiter) == last.count(delimiter) == width - 1
        and _shape(first.split(delimiter)[0]) == _shape(last.split(delimiter)[0])
    )


def _shape(cell: str) -> str:
    """Digits as 0 and letters as a, runs of them as one: `t12` and `t7` are alike."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", cell.strip()))


def skip_problems(table: Table, report: SourceReport) -> Iterator[TableRow]:
    """The rows that can be read; the others are counted and named."""
    for row in table.rows:
        if row.problem:
            report.skip(row.problem, f"{table.name} row {row.number}")
        else:
            yield row


def tell_lost_cells(table: Table, report: SourceReport) -> None:
    """Note the rows with an error of a spreadsheet in the place of a text."""
    for row in table.rows:
        if not _EXCEL_ERRORS.isdisjoint(map(str.strip, row.cells)):
            report.note(EXCEL, f"{table.name} row {row.number}")


def whole_rows(table: Table) -> list[TableRow]:
    """All rows.

    Raises:
        SourceError: one of them cannot be read.
    """
    for row in table.rows:
        if row.problem:
            raise SourceError(f"{table.name} row {row.number}: {row.problem}; copy it again")
    return table.rows


def need_columns(table: Table, places: Collection[str], needed: Sequence[str]) -> None:
    """Refuse a table that lacks a column.

    Raises:
        SourceError: it does; what it has, and what to call them.
    """
    if missing := [key for key in needed if key not in places]:
        raise SourceError(
            f"{table.name} has no column {', '.join(missing)} (its first row has "
            f"{', '.join(map(repr, table.header[:12]))}); name the columns {', '.join(needed)}"
        )
