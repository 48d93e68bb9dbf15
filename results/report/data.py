"""The data's part of a report: the full check of each subset, and subsets side by side."""

from __future__ import annotations

from collections.abc import Iterator

from results.records.suite_view import DataComparison, SubsetCheck, SuiteView
from results.tables import message_translations
from results.tables.table import Cell, Column, Table, code, escape, markdown
from results.text import formats
from results.text.translations import say


def render(view: SuiteView, lang: str) -> Iterator[str]:
    """The parts; nothing where nothing was scanned for this report."""
    if view.checks:
        yield f"## {say('data.checks', lang)}"
        yield "".join(line for check in view.checks for line in _check(check, lang))
    for comparison in view.comparisons:
        yield from _comparison(comparison, lang)


def _check(check: SubsetCheck, lang: str) -> Iterator[str]:
    sentence = escape(message_translations.localized(check.sentence, lang))
    found = "" if check.problems else f" – {say('data.clean', lang)}"
    yield f"- {code(check.subset)}: {sentence}{found}\n"
    for problem in check.problems:
        yield f"  - {escape(message_translations.localized(problem, lang))}\n"


def _comparison(found: DataComparison, lang: str) -> Iterator[str]:
    names = code(found.first), code(found.second)
    yield f"## {say('data.comparison', lang).format(*names)}"
    first, second = found.records
    share = formats.percent(second / first) if first else formats.n_a("")
    counts = formats.count(first), formats.count(second), share
    lines = [say("data.ratio", lang).format(*counts), say("data.scan", lang)]
    yield "\n".join(f"- {line}" for line in lines)
    for section in found.sections:
        columns = (
            Column(escape(message_translations.localized(section.title, lang))),
            Column(names[0], right=True),
            Column(names[1], right=True),
            Column(message_translations.localized("difference", lang), right=True),
        )
        body = tuple(
            (
                Cell(message_translations.localized(label, lang)),
                *(Cell(text, "value") for text in figures),
            )
            for label, *figures in section.rows
        )
        said = message_translations.localized(section.remark, lang)
        yield markdown(Table(columns, body, (Cell(said),) if said else ()))
