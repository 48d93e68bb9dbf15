"""VQA section of a report: runs by split, ensembles against their folds, wrong answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from results.comparison.predictions import LETTERS
from results.records import message_translations, published
from results.records.schema import RunRecord
from results.records.suite_view import AnsweredSplit, AnswerExample, SuiteView
from results.report import pictures as beside
from results.tables import vqa
from results.text import formats
from results.text.table import Table, TableCell, TableColumn, code, render_markdown
from results.text.translations import translate


def render_scores(view: SuiteView, lang: str) -> Iterator[str]:
    """Runs by split, ensembles against their folds; nothing without answered questions."""
    records = vqa.vqa_runs(view.records)
    splits = vqa.splits(records)
    if not splits:
        return
    if expected := published.table(records, lang):
        yield f"## {translate('published.title', lang)}"
        yield render_markdown(expected)
    yield f"## {translate('vqa.title', lang)}"
    for split in splits:
        yield f"### {code(split)}"
        yield from vqa.sections(records, split, lang, view.answers)


def render_errors(view: SuiteView, lang: str, pictures: Mapping[str, str]) -> Iterator[str]:
    """Wrong answers with a high confidence; nothing without answered questions.

    `pictures`: link by path; without one an example has its medium's name alone.
    """
    records = vqa.vqa_runs(view.records)
    for record in _select_runs(records) if vqa.splits(records) else ():
        for answered in view.answers.get(record.identity.run_id, ()):
            names = code(record.identity.run_id), code(answered.split)
            yield f"### {translate('vqa.errors', lang).format(*names)}"
            yield from _render_errors(answered, lang, pictures)


def copy_pictures(view: SuiteView, folder: Path) -> dict[str, str]:
    """Copy the pictures of all examples into `folder`; link by path, relative to its parent."""
    examples = (
        example for splits in view.answers.values() for split in splits for example in split.worst
    )
    return beside.copy_pictures((example.picture for example in examples), folder)


def _select_runs(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Whose errors are shown: of the ensembles, where there are any, else of every run."""
    ensembles = [r for r in records if r.identity.task == "ensemble" and r.metrics]
    return ensembles or list(records)


def _render_errors(
    answered: AnsweredSplit, lang: str, pictures: Mapping[str, str]
) -> Iterator[str]:
    yield render_markdown(vqa.kind_table(answered, lang))
    yield f"{translate('vqa.confusion', lang)}\n"
    yield render_markdown(vqa.confusion_table(answered, lang))
    yield f"{translate('vqa.reliability', lang)}\n"
    yield render_markdown(vqa.reliability_table(answered, lang))
    if answered.worst:
        yield f"{translate('vqa.worst', lang)}\n"
        yield render_markdown(_examples_table(answered.worst, lang, pictures))


def _examples_table(
    examples: Sequence[AnswerExample], lang: str, pictures: Mapping[str, str]
) -> Table:
    columns = (
        TableColumn(translate("captions.picture", lang)),
        TableColumn(translate("vqa.question", lang)),
        TableColumn(translate("vqa.answered", lang)),
        TableColumn(translate("vqa.true", lang)),
        TableColumn(translate("vqa.confidence", lang), right=True),
        TableColumn(translate("vqa.kind", lang)),
    )
    body = tuple(
        (
            beside.picture_cell(example.picture, example.medium, pictures),
            TableCell(example.question),
            TableCell(_format_option(example, example.answer)),
            TableCell(_format_option(example, example.truth)),
            TableCell(formats.percent(example.confidence), "value"),
            TableCell(message_translations.localize(example.kind, lang)),
        )
        for example in examples
    )
    return Table(columns, body)


def _format_option(example: AnswerExample, letter: str) -> str:
    """`b. two`."""
    index = LETTERS.find(letter)
    is_known = 0 <= index < len(example.options)
    return f"{letter}. {example.options[index]}" if is_known else letter
