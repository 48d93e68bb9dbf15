"""Data section of a report: the full check of each subset, and comparisons of two subsets."""

from __future__ import annotations

from collections.abc import Iterator

from results.records import message_translations
from results.records.suite_view import DataComparison, DataSection, SubsetCheck, SuiteView
from results.text import formats
from results.text.table import Table, TableCell, TableColumn, code, render_markdown, sentence
from results.text.translations import translate


def render(view: SuiteView, lang: str) -> Iterator[str]:
    """The parts; nothing where nothing was scanned for this report."""
    if view.checks:
        yield f"## {translate('data.checks', lang)}"
        yield "".join(line for check in view.checks for line in _render_check(check, lang))
    for comparison in view.comparisons:
        yield from _render_comparison(comparison, lang)


def _render_check(check: SubsetCheck, lang: str) -> Iterator[str]:
    outcome = sentence(message_translations.localize(check.sentence, lang))
    if check.source:
        suffix = f" {_mark_source(check.source, lang)}"
    else:
        suffix = "" if check.problems else f" – {translate('data.clean', lang)}"
    yield f"- {code(check.subset)}: {outcome}{suffix}\n"
    for problem in check.problems:
        yield f"  - {sentence(message_translations.localize(problem, lang))}\n"


def _render_comparison(comparison: DataComparison, lang: str) -> Iterator[str]:
    names = code(comparison.first), code(comparison.second)
    yield f"## {translate('data.comparison', lang).format(*names)}"
    if comparison.problem:
        yield formats.n_a(sentence(message_translations.localize(comparison.problem, lang)))
        return
    first, second = comparison.records
    share = formats.percent(second / first) if first else formats.n_a("")
    counts = formats.count(first), formats.count(second), share
    lines = [translate("data.ratio", lang).format(*counts), translate("data.scan", lang)]
    lines += [_mark_source(comparison.source, lang)] if comparison.source else []
    yield "\n".join(f"- {line}" for line in lines)
    for section in comparison.sections:
        yield from _render_section(section, names, lang)


def _render_section(section: DataSection, names: tuple[str, str], lang: str) -> Iterator[str]:
    """A table, or where only its outcome was published the heading and the remark."""
    title = sentence(message_translations.localize(section.title, lang))
    remark = message_translations.localize(section.remark, lang)
    if not section.rows:
        yield f"- {title}: {sentence(remark)}"
        return
    columns = (
        TableColumn(title),
        TableColumn(names[0], right=True),
        TableColumn(names[1], right=True),
        TableColumn(message_translations.localize("difference", lang), right=True),
    )
    body = tuple(
        (
            TableCell(message_translations.localize(label, lang)),
            *(TableCell(text, "value") for text in figures),
        )
        for label, *figures in section.rows
    )
    yield render_markdown(Table(columns, body, (TableCell(remark, "sentence"),) if remark else ()))


def _mark_source(source: str, lang: str) -> str:
    """That figures are an imported file's, and where it has them from."""
    name = sentence(message_translations.localize(source, lang))
    return f"**[{translate('imported', lang)}]** {translate('data.source', lang).format(name)}"
