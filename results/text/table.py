"""A table as data, rendered as Markdown, terminal text or CSV.

Each cell knows its kind, so that untrusted text (a subset's name, an error's text) is escaped
everywhere, and our own formatted numbers stay unchanged.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from results.text import sanitize
from results.text.formats import n_a

_BREAKS: Final = re.compile(r"[\n\t]+")
_STRUCTURE: Final = re.compile(r"([|<>\[\]\\])")
_MARKUP: Final = re.compile(r"([|<>\[\]\\`*~$&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")

_CODE: Final = re.compile(r"(`[^`]+`)")
_BLOCK: Final = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[#+=-]))")
"""Characters that begin a heading, list or rule at the start of a line."""


class TableCell(NamedTuple):
    """One cell: `text` by its `kind`, then `flags` in brackets.

    Kinds: `value` is trusted and needs no escaping; `strong` is such a value in bold;
    `text` is foreign; `sentence` is one of ours, whose backticks count; `code` is a foreign name;
    `prose` was written by a person, whose `*` and backticks count; `unknown` is the reason why
    there is no value.
    """

    text: str
    kind: Literal["value", "strong", "text", "sentence", "code", "prose", "unknown"] = "text"
    flags: tuple[str, ...] = ()


class TableColumn(NamedTuple):
    """A column's heading, trusted text."""

    title: str
    right: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, and remarks below them."""

    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    remarks: tuple[TableCell, ...] = ()


def clean(text: str) -> str:
    """Foreign text on one line, every control character visible."""
    return _BREAKS.sub(" ", sanitize.clean(text)).strip()


def escape(text: str) -> str:
    """Foreign text that Markdown, in a table or outside, shows as it is."""
    return _BLOCK.sub(r"\1\\", _MARKUP.sub(r"\\\1", clean(text)))


def sentence(text: str) -> str:
    """What the workbench, an engine or a recipe says: `code` stays code, the rest is escaped."""
    parts = _CODE.split(clean(text))
    shown = (
        code(part[1:-1]) if n % 2 else _MARKUP.sub(r"\\\1", part) for n, part in enumerate(parts)
    )
    return _BLOCK.sub(r"\1\\", "".join(shown))


def code(text: str) -> str:
    """A foreign name as a code span; a name with a backtick cannot be one and is escaped."""
    name = clean(text)
    if not name or "`" in name:
        return escape(name)
    return "`" + name.replace("|", "\\|") + "`"


def code_block(text: str, language: str = "") -> str:
    """A code block that no line of the text can end."""
    content = sanitize.clean(text).strip("\n")
    longest = max((len(ticks) for ticks in re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content}\n{fence}\n"


def prose(text: str) -> str:
    """User text in Markdown: bold and code stay, characters that would end its cell are escaped."""
    return _BLOCK.sub(r"\1\\", _STRUCTURE.sub(r"\\\1", clean(text)))


def join_lines(lines: Sequence[str]) -> str:
    """A block of Markdown from its lines; empty: there are none."""
    return "\n".join(lines) + "\n" if lines else ""


def render_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, remarks below; of a table without columns only these."""
    remarks = [f"{_render_markdown(remark)}\n" for remark in table.remarks]
    if not table.columns:
        return "\n".join(remarks)
    rules = "|" + "|".join("---:" if c.right else "---" for c in table.columns) + "|"
    lines = [_join_row(c.title for c in table.columns), rules]
    lines += [_join_row(map(_render_markdown, row)) for row in table.rows]
    return "\n".join(["\n".join(lines) + "\n", *remarks])


def render_terminal(table: Table) -> str:
    """The table as aligned plain text; Korean and other wide characters count as two."""
    remarks = [f"  {plain_text(remark)}" for remark in table.remarks]
    if not table.columns:
        return "\n".join(remarks) + "\n"
    titles = [c.title for c in table.columns]
    rows = [titles, *([plain_text(cell) for cell in row] for row in table.rows)]
    widths = [max(text_width(row[i]) for row in rows) for i in range(len(titles))]
    lines = [_align_row(row, widths, table.columns) for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join([*lines, *remarks]) + "\n"


def plain_text(cell: TableCell) -> str:
    """The cell without markup, safe for a terminal."""
    text = clean(cell.text)
    if cell.kind == "unknown":
        text = n_a(text)
    return f"{text} [{clean(', '.join(cell.flags))}]" if cell.flags else text


def _render_markdown(cell: TableCell) -> str:
    match cell.kind:
        case "value":
            text = cell.text
        case "strong":
            text = f"**{cell.text}**"
        case "text":
            text = escape(cell.text)
        case "sentence":
            text = sentence(cell.text)
        case "code":
            text = code(cell.text)
        case "prose":
            text = prose(cell.text)
        case "unknown":
            text = n_a(sentence(cell.text))
    return f"{text} **[{escape(', '.join(cell.flags))}]**" if cell.flags else text


def _join_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _align_row(row: Sequence[str], widths: Sequence[int], columns: Sequence[TableColumn]) -> str:
    cells = []
    for text, width, column in zip(row, widths, columns, strict=True):
        gap = " " * (width - text_width(text))
        cells.append(gap + text if column.right else text + gap)
    return "  ".join(cells).rstrip()


def text_width(text: str) -> int:
    """Columns on a terminal: letters of East Asia take two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)
