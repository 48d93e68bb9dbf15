"""Section about what changed against the earlier period, and its table cells and sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from results.comparison.document_view import NOT_STATED, RunChange, ValueChange, short_suite_name
from results.report.documents.run_titles import title_of_run
from results.report.documents.summary import format_delta, format_share, headline_change
from results.report.suite_sections import ReportInput, titled
from results.text import formats
from results.text.table import (
    Table,
    TableCell,
    TableColumn,
    code,
    escape,
    join_lines,
    render_markdown,
)
from results.text.translations import translate

COSTS_SHOWN: Final = ("epoch", "wall", "rss", "vram")
"""Costs in the table of changes; `workbench results compare` has all."""


def render_changes(page: ReportInput) -> Iterator[str]:
    """What changed against the earlier period: each run beside its nearest earlier one."""
    document, lang = page.document, page.lang
    if document.period is None:
        return
    days = f"{document.period.earlier_first} – {document.period.earlier_last}"
    yield f"## {translate('document.changes', lang).format(days)}"
    if not document.changes:
        key = "no changes" if document.earlier_runs else "no earlier runs"
        yield translate(f"document.{key}", lang).format(document.earlier_runs)
        return
    rows = [row for change in document.changes for row in _change_rows(page, change)]
    names = ("run", "before run", "quantity", "before", "after", "difference", "verdict")
    columns = [
        TableColumn(translate(f"document.{name}", lang), name in ("before", "after", "difference"))
        for name in names
    ]
    remark = TableCell(translate("document.changes remark", lang), "value")
    yield render_markdown(Table(tuple(columns), tuple(rows), (remark,)))
    lines = [f"- {title_of_run(page.view, c.run)}: {describe_settings(c, lang)}"
             for c in document.changes if c.settings or c.others]  # fmt: skip
    yield from titled("###", "document.settings changed", join_lines(lines), lang)
    compared = {change.run for change in document.changes}
    new = [title_of_run(page.view, r.identity.run_id) for r in page.view.records
           if r.identity.run_id not in compared and r.exit.cause == "completed"]  # fmt: skip
    if new:
        yield translate("document.new runs", lang).format(", ".join(new))


def _change_rows(page: ReportInput, change: RunChange) -> Iterator[tuple[TableCell, ...]]:
    """The headline metric, then costs."""
    costs = [v for v in change.values if not v.split and v.name in COSTS_SHOWN]
    headline = headline_change(change)
    values = [*([headline] if headline else []), *costs]
    blank = TableCell("", "value")
    for at, value in enumerate(values):
        names = [TableCell(title_of_run(page.view, change.run), "value"),
                 TableCell(short_suite_name(change.baseline), "code")]  # fmt: skip
        yield (*(names if not at else [blank, blank]), *value_cells(value, page.lang))


def value_cells(value: ValueChange, lang: str) -> tuple[TableCell, ...]:
    """Name, before, after, difference, verdict; a better or worse one in bold."""
    verdict = TableCell(
        translate(f"document.{value.verdict}", lang),
        "strong" if value.verdict in ("better", "worse") else "value",
    )
    if value.split:
        name = TableCell(f"{escape(value.name)} ({code(value.split)})", "value")
        before, after = (formats.number(v, 3) for v in (value.before, value.after))
        delta = format_delta(value)
    else:
        name = TableCell(translate(f"compare.cost {value.name}", lang), "value")
        before, after = (formats.cost(value.name, v) for v in (value.before, value.after))
        delta = format_share(value)
    return name, *(TableCell(text, "value") for text in (before, after, delta)), verdict


def describe_settings(change: RunChange, lang: str) -> str:
    """`lr 2e-05 → 5e-05; also other: code, versions`; that nothing changed."""
    texts = [
        f"{code(name)} {_setting_text(before, lang)} → {_setting_text(after, lang)}"
        for name, before, after in change.settings
    ]
    text = ", ".join(texts) or translate("document.same settings", lang)
    kinds = ", ".join(translate(f"compare.kind {kind}", lang) for kind in change.others)
    return text + (translate("document.also differs", lang).format(kinds) if kinds else "")


def _setting_text(value: str, lang: str) -> str:
    """A setting's value; in words that the source of an imported run does not state it."""
    return translate("document.not stated", lang) if value == NOT_STATED else escape(value)
