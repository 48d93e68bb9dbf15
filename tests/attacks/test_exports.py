"""What leaves the workbench as a file for another program: Markdown for a browser, CSV for a
spreadsheet (CWE-1236). The attacker's text is shown as text in both."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from results.records import data_frame
from results.text import table as md
from results.text.table import Table, TableCell, TableColumn
from tests.attacks import hostile

GITHUB = MarkdownIt("gfm-like", {"html": True, "linkify": False})
"""Reads HTML, too, so that it is seen."""
FORMULAS = (
    '=HYPERLINK("http://evil","x")', "+1+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+9)*cmd|' /C calc'!A0", "\t=1+1", "\r=1+1", " =1+1", "\n=1+1", "＝1+1",
    "=cmd|' /C notepad'!'A1'", ";=1+1", '";=1+1', "x\r=1+1", "x\r\n@SUM(1)",
)  # fmt: skip
MARKUP = (
    "<script>alert(1)</script>", "<img src=http://evil/x.png>", "![x](http://evil/x.png)",
    "[x](javascript:alert(1))", "a | b | c", "`` ` ``", "`code` | <b>", "# heading", "- item",
    "<!-- hidden -->", "[x]: http://evil", "&lt;script&gt;", "***bold***", "~~gone~~",
    "```\n<script>\n```", "$\\href{http://evil}{x}$", "<http://evil>", "1. item", "===", "---",
)  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_a_csv_begins_a_formula(text: str, tmp_path: Path) -> None:
    frame = data_frame.set_types([{"a": text, "b": "x"}, {"a": "x", "b": text}])
    data_frame.write_frame(frame, tmp_path / "t.csv")
    written = (tmp_path / "t.csv").read_bytes().decode()
    for row in csv.reader(io.StringIO(written, newline="")):
        assert len(row) == 2
        for cell in row:
            inner = cell.lstrip(' ；;"')
            assert not inner.startswith(("=", "+", "-", "@")) or cell.startswith("'")
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝"))


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    data_frame.write_frame(data_frame.set_types([{"a": -0.03, "b": 2}]), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == "-0.03,2"


def rendered(text: str) -> str:
    """The text as GitHub would show it, backslashes taken away: what is left must be the text."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


@pytest.mark.parametrize("text", [*MARKUP, hostile.EVIL])
@pytest.mark.parametrize("kind", ["text", "code", "unknown"])
def test_no_text_in_a_table_is_markup(text: str, kind: str) -> None:
    table = Table(
        (TableColumn("a"), TableColumn("b")), ((TableCell(text, kind), TableCell("end")),)
    )  # type: ignore[arg-type]
    lines = md.render_markdown(table).splitlines()
    assert len(lines) == 3
    assert re.sub(r"\\.", "", lines[2]).count("|") == 3, "two cells, whatever the text"
    cell = lines[2].removeprefix("| ").removesuffix(" | end |")
    if kind != "unknown" and not (cell.startswith("`") and cell.endswith("`")):
        bare = re.sub(r"\\.", "", cell)
        assert not set("<>[]`*") & set(bare), bare
    tokens = GITHUB.parse("\n".join(lines))
    inline = {child.type for token in tokens for child in token.children or ()}
    assert inline <= {"text", "text_special", "code_inline"}, "no tag, link, image or emphasis"
    assert hostile.raw(lines[2].encode()) == set()


@pytest.mark.parametrize("text", MARKUP)
def test_no_log_ends_its_fence(text: str) -> None:
    block = md.code_block(f"before\n{text}\n````\nafter")
    fence = block.split("\n", 1)[0]
    body = block[len(fence) + 1 :].rsplit(fence, 1)[0]
    assert fence not in body.split("\n")
