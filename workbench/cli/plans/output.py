"""Output of `workbench plan`: texts, lists and tables, for a terminal or as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from workbench.output_language import translate, translate_table

if TYPE_CHECKING:
    from results.text.table import Table


def print_heading(title: str, level: str, *, markdown: bool) -> None:
    """Print a heading of a Markdown document; nothing on a terminal, where tables have titles."""
    if markdown:
        typer.echo(f"{level} {translate(title)}\n")


def print_list(title: str, lines: Sequence[str], *, markdown: bool) -> None:
    """Print a titled list; numbered lines keep their numbers."""
    print_text(
        f"### {translate(title)}" if markdown else f"\n{translate(title)}:", markdown=markdown
    )
    for line in map(translate, lines):
        text = line if line[:1].isdigit() else f"- {line}"
        print_text(text if markdown else wrap(text), markdown=False)
    print_text("", markdown=False)


def wrap(line: str) -> str:
    """The line wrapped at 80 columns without cutting words, so that commands can be copied."""
    indent = " " * (line.index(" ") + 1)
    return textwrap.fill(
        line, 80, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def print_text(text: str, *, markdown: bool) -> None:
    """Print a text in the language of the process; a paragraph in Markdown."""
    from results.text.sanitize import clean

    typer.echo(clean(translate(text)) + ("\n" if markdown else ""))


def print_paragraph(sentence: str, *, markdown: bool) -> None:
    """Print a sentence in the language of the process, in lines of a terminal."""
    text = translate(sentence)  # before it is wrapped: its template has no line breaks
    print_text(text if markdown else wrap(text), markdown=markdown)


def print_table(table: Table, *, markdown: bool) -> None:
    """Print a table in the language of the process."""
    from results.text.table import render_markdown, render_terminal

    typer.echo((render_markdown if markdown else render_terminal)(translate_table(table)))
