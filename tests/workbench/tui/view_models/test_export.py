"""Results as CSV and Markdown."""

from __future__ import annotations

import csv
import io
import random

from results.text.table import csv_text, render_markdown
from tests.workbench.tui import sample_suites
from workbench.tui.view_models import (
    export,
    result_rows,
)


def hostile_row() -> result_rows.ResultRow:
    built = sample_suites.record("=HYPERLINK(1)", 1, random.Random(1))
    identity = built.identity.model_copy(update={"subset": "a|b\x1b[31m`<x>", "label": "@sum"})
    return result_rows.make_row(built.model_copy(update={"identity": identity}))


def test_csv_holds_no_formula_and_reads_back() -> None:
    header, line = list(csv.reader(io.StringIO(csv_text(export.build_table([hostile_row()])))))
    assert len(header) == len(line) == len(result_rows.COLUMNS)
    assert line[1] == "'=HYPERLINK(1)"
    assert line[2] == "'@sum"
    assert "\x1b" not in "".join(line)


def test_csv_leaves_negative_numbers_alone() -> None:
    built = sample_suites.record("s", 1, random.Random(1)).model_copy(
        update={"train": {"loss": -1.5}}
    )
    table = export.build_table([result_rows.make_row(built)])
    assert csv_text(table).count(",-1.500,") == 1


def test_markdown_keeps_its_columns() -> None:
    head, rule, line = render_markdown(export.build_table([hostile_row()])).splitlines()
    cells = line.replace(r"\|", "").strip("| ").split(" | ")
    assert len(cells) == len(result_rows.COLUMNS) == head.count(" | ") + 1 == rule.count("|") - 1
    assert r"a\|b" in line
    assert r"\<x\>" in line
