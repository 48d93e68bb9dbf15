"""A report as one HTML file: figures and pictures inside, light and dark, for phone and paper."""

from __future__ import annotations

import base64
import html
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from results.report.pictures import read_width, use_image_syntax
from results.text.table import text_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it.token import Token

MEDIA_TYPES: Final = {
    ".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg",
    ".webp": "image/webp", ".gif": "image/gif",
}  # fmt: skip
STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c1e21; --quiet: #5c636a; --line: #d8dce0;
  --paper: #fff; --shade: #f4f6f8; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6e8; --quiet: #9aa2aa; --line: #3a4047;
  --paper: #16181b; --shade: #1f2327; --link: #7db7f0; } }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 84rem; color: var(--ink);
  background: var(--paper); font: 16px/1.55 system-ui, "Noto Sans KR", sans-serif;
  overflow-wrap: break-word; word-break: keep-all; }
p, ul, ol, blockquote, nav, summary { max-width: 60rem; } img { max-width: min(100%, 62rem); }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 2.4rem;
  border-bottom: 1px solid var(--line); padding-bottom: .25rem; } h3 { font-size: 1.05rem; }
h4 { font-size: 1rem; color: var(--quiet); } a { color: var(--link); }
nav { font-size: .9rem; color: var(--quiet); } nav a { margin-right: .9rem; white-space: nowrap; }
.table { overflow-x: auto; margin: 1rem 0; background: linear-gradient(90deg, var(--paper) 1rem,
  transparent 2rem) local, linear-gradient(270deg, var(--paper) 1rem, transparent 2rem) local,
  linear-gradient(90deg, var(--line), transparent .8rem),
  linear-gradient(270deg, var(--line), transparent .8rem); }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top;
  white-space: nowrap; } th { text-align: left; color: var(--quiet); font-weight: 600; }
td.text, th.text { white-space: normal; min-width: 10rem; max-width: 26rem; }
td.right, th.right { text-align: right; }
code, pre { font: .85em/1.4 ui-monospace, "DejaVu Sans Mono", monospace; }
code { background: var(--shade); padding: .1em .25em; border-radius: 3px; }
pre { background: var(--shade); padding: .8rem; overflow-x: auto; border-radius: 4px; }
pre code { background: none; padding: 0; font-size: 1em; }
pre i { display: inline-block; width: 2ch; font-style: normal; }
img { height: auto; background: #fff; border-radius: 4px; }
summary { font-weight: 600; cursor: pointer; margin-top: 2.4rem; }
@media print { details::details-content { content-visibility: visible; block-size: auto; }
  summary { list-style: none; }
  :root { --ink: #000; --paper: #fff; --shade: #f4f4f4; --line: #bbb; --quiet: #444; }
  body { max-width: none; font-size: 10pt; padding: 0; } nav { display: none; }
  .table, pre { overflow: visible; } .table { background: none; } p, ul, ol { max-width: none; }
  pre { white-space: pre-wrap; }
  th, td, td.text, th.text { white-space: normal; padding: .15rem .35rem; min-width: 0; }
  table { font-size: 7.5pt; } .wide { font-size: 5.5pt; } .wide th, .wide td { padding: .1rem; }
  .wide code, .wide td { overflow-wrap: anywhere; font-size: 1em; word-break: normal; }
  h2, h3, h4 { break-after: avoid; } tr, img { break-inside: avoid; } }
"""
MAX_LINE: Final = 28
"""Letters of a cell that stand in one line."""
PAPER_COLUMNS: Final = 9
"""Columns of a table that a page of paper holds in letters of the usual size."""
FOLD: Final = re.compile(r"<details>\n<summary>(?P<title>[^<>\n]*)</summary>|</details>")
"""A paragraph that begins or ends a part which a reader opens."""
POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""No script runs and nothing is loaded, whatever a record's text says."""


def render_html(markdown: str, folder: Path, lang: str = "en") -> str:
    """The report as a page of its own.

    Args:
        markdown: The report.
        folder: Where its figures and pictures lie; those inside are embedded, others named.
        lang: `en` or `ko`, for the reader's fonts and hyphenation.

    Raises:
        ModuleNotFoundError: markdown-it-py is not installed.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("table_open", _open_table)
    parser.add_render_rule("fence", lambda _, tokens, at, *__: _render_code(tokens[at].content))
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = parser.parse(use_image_syntax(markdown))
    _render_folds(tokens)
    sections = _name_headings(tokens)
    _align_cells(tokens)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                child.attrSet("src", _embed(folder, str(child.attrGet("src") or "")))
                if width := read_width(str(child.attrs.pop("title", ""))):
                    child.attrSet("width", str(width))
    body = parser.renderer.render(tokens, parser.options, {})
    links = "".join(f'<a href="#{name}">{html.escape(title)}</a>' for name, title in sections)
    title = next((token.content for token in tokens if token.type == "inline"), "Report")
    return (
        f'<!doctype html>\n<html lang="{lang}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<nav>{links}</nav>\n{body}</body>\n</html>\n"
    )


def _render_folds(tokens: Sequence[Token]) -> None:
    """Let the report's own folds through; in foreign text `<` is escaped, so that it has none."""
    for at, token in enumerate(tokens):
        if token.type == "inline" and (match := FOLD.fullmatch(token.content)):
            title = match["title"]
            token.type, token.children = "html_block", []
            token.content = (
                f"<details><summary>{html.escape(title)}</summary>\n" if title else "</details>\n"
            )
            tokens[at - 1].hidden = tokens[at + 1].hidden = True  # of the paragraph


def _open_table(_: object, tokens: Sequence[Token], at: int, *__: object) -> str:
    """A table that scrolls alone; one of many columns is set smaller on paper."""
    row = next(i for i in range(at, len(tokens)) if tokens[i].type == "tr_close")
    columns = sum(token.type == "th_open" for token in tokens[at:row])
    kind = "wide" if columns > PAPER_COLUMNS else "narrow"
    return f'<div class="table"><table class="{kind}">\n'


def _render_code(text: str) -> str:
    """A code block; letters of East Asia take two columns, whatever their font."""
    wide = "".join(
        f"<i>{letter}</i>" if unicodedata.east_asian_width(letter) in "WF" else html.escape(letter)
        for letter in text
    )
    return f"<pre><code>{wide}</code></pre>\n"


def _name_headings(tokens: Sequence[Token]) -> list[tuple[str, str]]:
    """Give every section an anchor; returns anchors and titles of the second level."""
    sections = []
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            name = f"s{at}"
            token.attrSet("id", name)
            if token.tag == "h2":
                sections.append((name, re.sub(r"[`*\\]", "", tokens[at + 1].content)))
    return sections


def _align_cells(tokens: list[Token]) -> None:
    """Numbers to the right; long texts wrap, others do not."""
    for at, token in enumerate(tokens):
        if token.type in ("th_open", "td_open"):
            style = str(token.attrs.pop("style", ""))
            if "right" in style:
                token.attrJoin("class", "right")
            if text_width(tokens[at + 1].content) > MAX_LINE and not _is_picture(tokens[at + 1]):
                token.attrJoin("class", "text")


def _is_picture(token: Token) -> bool:
    return any(child.type == "image" for child in token.children or ())


def _embed(folder: Path, link: str) -> str:
    """A data address of a file inside the folder; others are left as they are."""
    path = (folder / link).resolve()
    media_type = MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None or not path.is_relative_to(folder.resolve()) or not path.is_file():
        return link
    return f"data:{media_type};base64,{base64.b64encode(path.read_bytes()).decode()}"
