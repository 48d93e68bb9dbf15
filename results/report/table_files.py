"""Every table of a report as a file of its own: CSV or Parquet, with numbers as numbers.

The tables are read from the report's Markdown, so that none is forgotten. A column whose cells are
all quantities of one kind becomes numbers in SI units, an interval two columns of its own,
`n/a (reason)` a null with a column for the reason, and flags have a column. A forecast
(`~8:01 ± 0:09`) is a value with its limits, an upper bound (`≤ 7:43`) a limit alone; of `40 of 120`
the 120 has a column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from results.records import data_frame
from results.report.pictures import use_image_syntax

if TYPE_CHECKING:
    from markdown_it.token import Token

_UNKNOWN: Final = re.compile(r"n/a(?: \((?P<reason>.*)\))?", re.DOTALL)
_INTERVAL: Final = re.compile(r"(?P<value>.+?) \[(?P<low>[^,\]]+), (?P<high>[^\]]+)\]")
_FORECAST: Final = re.compile(r"~?(?P<value>.+?) ± (?P<half>.+)")
_PART: Final = re.compile(r"(?P<value>\d[\d,]*) (?:of|/) (?P<whole>\d[\d,]*)")
_NUMBER: Final = r"[+−-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?"
BLANKS: Final = frozenset({"", "–", "—", "null"})
NAN: Final = "NaN"
"""Of a diverged run: among numbers a null with this as its reason."""


class CellNumbers(NamedTuple):
    """A cell as numbers."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    of: float | None = None
    """Of how many, where the cell says so."""


class ReportTable(NamedTuple):
    """A table of a report as plain text."""

    title: str
    """Of the heading above it."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    flags: tuple[tuple[str, ...], ...] = ()
    """Of each cell; empty: none has any."""


class Quantity(NamedTuple):
    """How cells of a column are read as numbers."""

    unit: str
    parse: Callable[[str], float | None]


def _scale(pattern: str, factors: Mapping[str, float]) -> Callable[[str], float | None]:
    matcher = re.compile(pattern)

    def parse(text: str) -> float | None:
        match = matcher.fullmatch(text)
        if match is None:
            return None
        return float(f"{_to_number(match['number']) * factors[match['unit']]:.12g}")

    return parse


def _to_number(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


def _parse_clock(text: str) -> float | None:
    """`8:01.39`, `~8:01`, `1:02:03` in seconds."""
    match = re.fullmatch(r"~?(?:(\d+):)?(\d+):(\d\d(?:\.\d+)?)", text)
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)


def _parse_plain(text: str) -> float | None:
    return _to_number(text) if re.fullmatch(_NUMBER, text) else None


def _parse_parameters(text: str) -> float | None:
    """`245,952`, `1.2 M`, `8.03 B`: numbers of weights."""
    match = re.fullmatch(rf"(?P<number>{_NUMBER})(?: (?P<unit>M)|(?<=\.\d\d) (?P<giga>B))?", text)
    if match is None:
        return None
    factor = 1e6 if match["unit"] else 1e9 if match["giga"] else 1.0
    return float(f"{_to_number(match['number']) * factor:.12g}")


QUANTITIES: Final = (
    Quantity("", _parse_plain),
    Quantity("", _parse_parameters),
    Quantity("s", _parse_clock),
    Quantity("s", _scale(rf"(?P<number>{_NUMBER}) (?P<unit>ms|s)", {"ms": 1e-3, "s": 1.0})),
    Quantity(
        "B", _scale(rf"~?(?P<number>{_NUMBER}) (?P<unit>B|KiB|MiB|GiB)",
                    {"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30})
    ),
    Quantity("1", _scale(rf"(?P<number>{_NUMBER}) (?P<unit>%)", {"%": 0.01})),
    Quantity("J", _scale(rf"(?P<number>{_NUMBER}) (?P<unit>J)", {"J": 1.0})),
    Quantity("W", _scale(rf"(?P<number>{_NUMBER}) (?P<unit>W)", {"W": 1.0})),
)  # fmt: skip


def write_tables(markdown: str, folder: Path, form: str) -> list[Path]:
    """Write every table of a report into `folder`, `03-result-table.csv`; returns the files.

    `form`: `csv` or `parquet`. Files of an earlier report in the folder are removed.

    Raises:
        ModuleNotFoundError: markdown-it-py or pandas is not installed.
        OSError: a file cannot be written.
    """
    tables = list(read_tables(markdown))
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"[0-9][0-9]-*.{form}"):
        stale.unlink()
    paths = []
    for number, table in enumerate(tables, 1):
        slug = re.sub(r"\W+", "-", table.title.lower()).strip("-")[:48].strip("-") or "table"
        path = folder / f"{number:02d}-{slug}.{form}"
        data_frame.write_frame(make_frame(table), path)
        paths.append(path)
    return paths


def read_tables(markdown: str) -> Iterator[ReportTable]:
    """The tables of a Markdown text, each with the heading above it."""
    from markdown_it import MarkdownIt

    tokens = (
        MarkdownIt("commonmark", {"html": False}).enable("table").parse(use_image_syntax(markdown))
    )
    title = ""
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            title = _plain(tokens[at + 1])
        elif token.type == "table_open":
            end = next(i for i in range(at, len(tokens)) if tokens[i].type == "table_close")
            yield _read_table(title, tokens[at:end])


def _read_table(title: str, tokens: Sequence[Token]) -> ReportTable:
    rows: list[list[tuple[str, str]]] = []
    for at, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append(_split_flags(tokens[at + 1]))
    head, *body = rows
    cells = tuple(tuple(text for text, _ in row) for row in body)
    flags = tuple(tuple(flag for _, flag in row) for row in body)
    return ReportTable(title, _unique([text for text, _ in head]), cells,
                       flags if any(map(any, flags)) else ())  # fmt: skip


def _split_flags(token: Token) -> tuple[str, str]:
    """The cell's text and its flags, which are its bold end in brackets."""
    spans = [span for span in token.children or () if span.type != "text" or span.content]
    text, last = _plain(token), spans[-3:]
    if [span.type for span in last] == ["strong_open", "text", "strong_close"]:
        flags = last[1].content
        if flags.startswith("[") and flags.endswith("]"):
            return text.removesuffix(flags).strip(), flags[1:-1]
    return text, ""


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Headings of columns; an empty or repeated one gets its number."""
    kept: list[str] = []
    for number, name in enumerate(names, 1):
        kept.append(name if name and name not in kept else f"{name or 'column'} {number}")
    return tuple(kept)


def _plain(token: Token) -> str:
    texts = (
        str(span.attrGet("src") or "") if span.type == "image" else span.content
        for span in token.children or ()
        if span.type in ("text", "code_inline", "image")
    )
    return "".join(texts).strip()


def make_frame(table: ReportTable) -> Any:
    """The table as a frame with nullable types; `frame.attrs["units"]` has the units."""
    if not table.rows:
        return data_frame.set_types([dict.fromkeys(table.columns)]).iloc[:0].astype("string")
    columns: dict[str, list[Any]] = {}
    units: dict[str, str] = {}
    for at, name in enumerate(table.columns):
        cells = [row[at] for row in table.rows]
        for part, (values, unit) in _read_column(cells).items():
            columns[f"{name}{part}"] = values
            if unit:
                units[f"{name}{part}"] = unit
        flags = [row[at] or None for row in table.flags]
        if any(flags):
            columns["flags" if at == 0 else f"{name}.flags"] = flags
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    frame = data_frame.set_types(rows)
    frame.attrs["units"] = {n: unit for n, unit in units.items() if n in frame.columns}
    return frame


def _read_column(cells: Sequence[str]) -> dict[str, tuple[list[Any], str]]:
    """Values and unit by the end of the column's name: `""`, `.low`, `.high`, `.of`, `.reason`."""
    unknown = [_UNKNOWN.fullmatch(cell) for cell in cells]
    reasons = [match["reason"] if match else None for match in unknown]
    present = [cell for cell, match in zip(cells, unknown, strict=True) if not match]
    filled = [cell for cell in present if cell not in BLANKS and cell != NAN]
    for quantity in QUANTITIES if filled else ():
        parts = [_read_cell(cell, quantity.parse) for cell in filled]
        if any(part is None for part in parts):
            continue
        values = iter(parts)
        blank = CellNumbers()
        numbers = [
            blank if match or cell in BLANKS or cell == NAN else next(values) or blank
            for cell, match in zip(cells, unknown, strict=True)
        ]
        reasons = [NAN if cell == NAN else r for cell, r in zip(cells, reasons, strict=True)]
        columns: dict[str, tuple[list[Any], str]] = {
            "": ([n.value for n in numbers], quantity.unit)
        }
        for name in ("low", "high", "of"):
            limits = [getattr(n, name) for n in numbers]
            if any(number is not None for number in limits):
                columns[f".{name}"] = (limits, quantity.unit)
        break
    else:
        texts = [None if m or c in BLANKS else c for c, m in zip(cells, unknown, strict=True)]
        columns = {"": (texts, "")}
    if any(reasons):
        columns[".reason"] = (reasons, "")
    return columns


def _read_cell(text: str, parse: Callable[[str], float | None]) -> CellNumbers | None:
    """Value and limits, which have the unit of the value. None: no quantity of this kind."""
    if (value := parse(text)) is not None:
        return CellNumbers(value)
    if text in ("inf", "-inf"):
        return CellNumbers(float(text))
    if text.startswith("≤ "):
        high = parse(text.removeprefix("≤ "))
        return None if high is None else CellNumbers(high=high)
    if match := _FORECAST.fullmatch(text):
        value, half = parse(match["value"]), parse(match["half"])
        if value is None or half is None:
            return None
        return CellNumbers(value, value - half, value + half)
    if match := _PART.fullmatch(text):
        value, whole = parse(match["value"]), parse(match["whole"])
        return None if value is None or whole is None else CellNumbers(value, of=whole)
    match = _INTERVAL.fullmatch(text)
    if match is None or (value := parse(match["value"])) is None:
        return None
    unit = re.sub(rf"^~?{_NUMBER}", "", match["value"])
    low, high = (
        limit if (limit := parse(match[end])) is not None else parse(match[end] + unit)
        for end in ("low", "high")
    )
    return None if low is None or high is None else CellNumbers(value, low, high)
