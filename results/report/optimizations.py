"""Sections about optimizations: what each was worth or where it is on, and changes of code."""

from __future__ import annotations

from collections.abc import Iterator

from results.records.code_changes import CodeChange
from results.report.suite_sections import ReportInput, titled
from results.tables import ablation
from results.text.table import code_block, escape, join_lines, prose, render_markdown
from results.text.translations import translate


def render_optimizations(page: ReportInput) -> Iterator[str]:
    """Ablation table where there is a run with all on; else where each optimization is applied."""
    view, lang = page.view, page.lang
    if changes_table := ablation.table(view.records, lang, view.changes):
        yield from titled("##", "optimization.heading", render_markdown(changes_table), lang)
    elif applied := ablation.applied(view.records, lang, view.published_effects):
        yield from titled("##", "optimization.applied heading", render_markdown(applied), lang)


def render_code_changes(page: ReportInput) -> Iterator[str]:
    """A part for each change of code: purpose, lines before and after."""
    changes = page.view.code_changes
    if changes:
        yield f"## {translate('optimization.code changes', page.lang)}"
    for change in changes:
        yield f"### {escape(change.title)}"
        yield from _render_change(change, page.lang)


def _render_change(change: CodeChange, lang: str) -> Iterator[str]:
    facts = {"code purpose": prose(change.purpose), "applied in": escape(change.applied_in)}
    lines = [
        f"- {translate(f'optimization.{n}', lang)}: {text}" for n, text in facts.items() if text
    ]
    yield from filter(None, [join_lines(lines)])
    for name, block in (("before", change.before), ("after", change.after)):
        if block.strip():
            yield f"**{translate(f'optimization.{name}', lang)}**\n"
            yield code_block(block, change.language)
