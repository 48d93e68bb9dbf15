"""Results as Markdown, and the runs that a command exports."""

from __future__ import annotations

import random

from results.listing.run_filter import ListedRun
from results.listing.summary import summarize_record
from results.listing.views import ResultView
from results.text.table import render_markdown
from tests.workbench.tui import sample_suites
from workbench.tui.view_models.results import export, rows


def hostile_table(group: str = "", folded: frozenset[str] = frozenset()) -> rows.ResultTable:
    built = sample_suites.record("=HYPERLINK(1)", 1, random.Random(1))
    identity = built.identity.model_copy(update={"subset": "a|b\x1b[31m`<x>", "label": "@sum"})
    run = ListedRun(summarize_record(built.model_copy(update={"identity": identity})))
    return rows.make_table(rows.RunBatch((run,)), ResultView(group=group), folded)


def test_markdown_keeps_its_columns_and_names_the_run() -> None:
    table = hostile_table()
    head, rule, line = render_markdown(export.build_table(table)).splitlines()
    cells = line.replace(r"\|", "").strip("| ").split(" | ")
    assert len(cells) == head.count(" | ") + 1 == rule.count("|") - 1
    assert r"a\|b" in line
    assert r"\<x\>" in line
    assert "=HYPERLINK(1)/01-retrieval-" in line
    assert "2026-11" in line


def test_runs_of_folded_groups_are_exported_too() -> None:
    table = hostile_table("model", frozenset({"tinyclip-61m", "clip-nano", "effnet-minilm"}))
    assert len(table.entries) == 1
    (run,) = export.list_runs(table)
    assert export.run_lines([run]) == f"=HYPERLINK(1)/{run.summary.run_id}\n"
