"""Tables as Markdown, terminal text and CSV; hostile names stay in their cells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from results.text.table import (
    Table,
    TableCell,
    TableColumn,
    clean,
    code,
    code_block,
    escape,
    prose,
    render_markdown,
    render_terminal,
    sentence,
)

HOSTILE = [
    "a|b", "a\\|b", "`x`", "``", "a\nb", "<script>alert(1)</script>", "![x](http://a/b.png)",
    "[x](http://a)", "**bold**", "\x1b[31mred\x07", "\u202eevil", "$x$", "&lt;", "~~x~~", "# h",
    "a\r\nb", "\x9b2J", "</td>", "\\", "|", "- x", "=1+1", "\ud800", "\u2028| x |", "``|`",
    "1. x", "2) x", "+ x", "---", "===",
]  # fmt: skip


def _parsed(page):
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(page)
    inline = [child for token in tokens for child in (token.children or [])]
    return tokens, {token.type for token in (*tokens, *inline)}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["text", "code", "prose", "unknown"])
def test_hostile_text_stays_in_its_cell(name, kind):
    table = Table(
        (TableColumn("a"), TableColumn("b")),
        ((TableCell(name, kind, (name,)), TableCell("end", "value")),),
        (TableCell(name),),
    )  # fmt: skip
    page = render_markdown(table)
    tokens, types = _parsed(page)
    assert sum(t.type == "td_open" for t in tokens) == 2
    assert sum(t.type == "table_open" for t in tokens) == 1
    assert not types & {
        "html_inline",
        "html_block",
        "link_open",
        "image",
        "heading_open",
        "list_item_open",
    }
    assert not set(page) & (set(map(chr, range(32))) - {"\n"} | set("\x9b\u202e\u2028\ud800"))
    page.encode()
    assert "\x1b" not in render_terminal(table)
    assert len(render_terminal(table).splitlines()) == 4


@given(st.text(max_size=40))
def test_code_and_escape_show_the_cleaned_text(name):
    """What a reader of the rendered page sees is the cleaned name, to the character."""
    shown = " ".join(clean(name).split())
    for face in (escape, code):
        table = Table(
            (TableColumn("a"),), ((TableCell(name, "code" if face is code else "text"),),)
        )
        tokens, _ = _parsed(render_markdown(table))
        cell = tokens[[t.type for t in tokens].index("td_open") + 1]
        seen = "".join(c.content for c in cell.children)
        assert " ".join(seen.split()) == shown


def test_no_line_ends_a_fence():
    page = code_block("a\n```\n````\n# not a heading\x1b", "toml")
    tokens, _ = _parsed(page)
    assert [t.type for t in tokens] == ["fence"]
    assert tokens[0].content == "a\n```\n````\n# not a heading\\x1b\n"


def test_prose_keeps_what_a_person_marked():
    assert prose("3.15 GiB of 2. x - y") == "3.15 GiB of 2. x - y"
    assert prose("**bold** and `code` | <b>") == "**bold** and `code` \\| \\<b\\>"


def test_terminal_aligns_wide_characters():
    table = Table(
        (TableColumn("이름"), TableColumn("n", right=True)),
        (
            (TableCell("한국어"), TableCell("7", "value")),
            (TableCell("x"), TableCell("1,234", "value")),
        ),
    )
    assert render_terminal(table) == "이름        n\n──────  ─────\n한국어      7\nx       1,234\n"


def test_code_of_our_sentences_is_code_and_the_rest_is_escaped():
    said = "the first of `uri` that is *there* [x]"
    assert sentence(said) == r"the first of `uri` that is \*there\* \[x\]"
    assert sentence("one ` alone") == r"one \` alone"
    columns = (TableColumn("why"),)
    for kind, text in (("sentence", "by `a|b`"), ("unknown", "n/a (by `a|b`)")):
        page = render_markdown(Table(columns, ((TableCell("by `a|b`", kind),),)))
        assert text.replace("|", r"\|") in page
