"""A Markdown document of ours as text for a terminal: wrapped, with tables that fit its width.

A table that is too wide is shown in parts, each with the first column; folded parts (`<details>`)
are named and left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from results.text.sanitize import clean
from results.text.table import text_width

if TYPE_CHECKING:
    from markdown_it.token import Token

BOLD: Final = "\x1b[1m"
PLAIN: Final = "\x1b[0m"
GAP: Final = 2
"""Cells between the columns of a table."""
MIN_WIDTH: Final = 40
MAX_CELL: Final = 44
"""A cell of a table is at most so wide; longer texts have several lines."""
_FOLD: Final = re.compile(r"<details>\s*<summary>(?P<title>[^<>\n]*)</summary>|</details>")
_TOKENS: Final = {"softbreak": " ", "hardbreak": "\n"}


class _Table(NamedTuple):
    rows: list[list[str]]
    """The first one is the heading."""
    right: list[bool]


def render_document(markdown: str, width: int, *, styled: bool = True) -> str:
    """The document in lines of at most `width` cells.

    Args:
        markdown: The document.
        width: Of the terminal; words and code blocks that are wider stay whole.
        styled: Headings in bold, as SGR sequences.
    """
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark", {"html": False}).enable("table").parse(markdown)
    lines = list(_BlockRenderer(tokens, max(MIN_WIDTH, width), styled).lines())
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
    return text.strip("\n") + "\n"


class _BlockRenderer:
    """Walks over the tokens; `lines` yields the text."""

    def __init__(self, tokens: Sequence[Token], width: int, styled: bool) -> None:
        self._tokens, self._width, self._styled = tokens, width, styled
        self._indent, self._marker = 0, ""
        self._folded = False

    def lines(self) -> Iterator[str]:
        at = 0
        while at < len(self._tokens):
            token = self._tokens[at]
            if token.type == "table_open":
                at, table = _read_table(self._tokens, at)
                block: Iterator[str] = _frame(_render_table(table, self._width))
            elif token.type == "inline":
                block = self._render_inline(token, self._tokens[at - 1])
            else:
                block = self._render_structure(token)
            was_folded = self._folded
            shown = list(block)
            if not was_folded:
                yield from shown
            at += 1

    def _render_structure(self, token: Token) -> Iterator[str]:
        match token.type:
            case "bullet_list_open" | "ordered_list_open":
                self._indent += 2
            case "bullet_list_close" | "ordered_list_close":
                self._indent -= 2
                yield ""
            case "list_item_open":
                self._marker = f"{token.info}." if token.info else "·"
            case "fence" | "code_block":
                yield from _frame(f"  {clean(line)}" for line in token.content.splitlines())
            case "hr":
                yield from _frame(("─" * self._width,))
            case _:
                pass

    def _render_inline(self, token: Token, opening: Token) -> Iterator[str]:
        text = _inline_text(token)
        if fold := _FOLD.fullmatch(text.strip()):
            self._folded = fold["title"] is not None
            if self._folded:
                yield from _frame((f"▸ {fold['title']} (folded; in the written report)",))
        elif opening.type == "heading_open":
            yield from ("", f"{BOLD}{text}{PLAIN}" if self._styled else text)
            rule = "─" * min(self._width, text_width(text))
            yield rule if opening.tag in ("h1", "h2") else ""
        else:
            yield from self._render_paragraph(text)

    def _render_paragraph(self, text: str) -> Iterator[str]:
        marker = f"{self._marker} " if self._marker else "  " if self._indent else ""
        lead, self._marker = " " * max(0, self._indent - 2) + marker, ""
        rest = " " * text_width(lead)
        for number, line in enumerate(wrap_text(text, self._width - text_width(lead))):
            yield (lead if number == 0 else rest) + line
        if not self._indent:
            yield ""


def _frame(lines: Iterable[str]) -> Iterator[str]:
    """The lines between blank ones."""
    yield from ("", *lines, "")


def _inline_text(token: Token) -> str:
    """The text without markup; a picture is its title."""
    parts = []
    for child in token.children or ():
        if child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.type == "image":
            parts.append(f"[{child.content or 'picture'}]")
        else:
            parts.append(_TOKENS.get(child.type, ""))
    return clean("".join(parts))


def first_section(markdown: str) -> str:
    """The document up to its second section: its title and what came out."""
    starts = [match.start() for match in re.finditer(r"^## ", markdown, re.MULTILINE)]
    return markdown[: starts[1]] if len(starts) > 1 else markdown


def wrap_text(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken at blanks; wide characters count as two."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line, used = "", 0
        for word in paragraph.split(" "):
            cells = text_width(word)
            if line and used + 1 + cells > width:
                lines.append(line)
                line, used = word, cells
            else:
                line = f"{line} {word}" if line else word
                used += cells + (1 if used else 0)
        lines.append(line)
    return lines


def _read_table(tokens: Sequence[Token], at: int) -> tuple[int, _Table]:
    """Index of the closing token, and the table."""
    rows: list[list[str]] = []
    right: list[bool] = []
    while tokens[at].type != "table_close":
        token = tokens[at]
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            if len(rows) == 1:
                right.append("right" in str(token.attrs.get("style", "")))
            rows[-1].append(_inline_text(tokens[at + 1]))
        at += 1
    return at, _Table(rows, right)


def _render_table(table: _Table, width: int) -> Iterator[str]:
    """The table, in parts where it is wider; each part begins with the first column."""
    cells = [[wrap_text(text, MAX_CELL) for text in row] for row in table.rows]
    widths = [
        max(text_width(line) for row in cells for line in row[column])
        for column in range(len(table.right))
    ]
    start = 1
    while True:
        columns, used = [0], widths[0]
        while start < len(widths) and (len(columns) == 1 or used + GAP + widths[start] <= width):
            used += GAP + widths[start]
            columns.append(start)
            start += 1
        yield from _render_part(cells, columns, widths, table.right)
        if start >= len(widths):
            return
        yield ""


def _render_part(
    cells: Sequence[Sequence[Sequence[str]]],
    columns: Sequence[int],
    widths: Sequence[int],
    right: Sequence[bool],
) -> Iterator[str]:
    for number, row in enumerate(cells):
        for line in range(max(len(row[column]) for column in columns)):
            texts = []
            for column in columns:
                text = row[column][line] if line < len(row[column]) else ""
                gap = " " * (widths[column] - text_width(text))
                texts.append(gap + text if right[column] else text + gap)
            yield (" " * GAP).join(texts).rstrip()
        if number == 0:
            yield (" " * GAP).join("─" * widths[column] for column in columns)
