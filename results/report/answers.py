"""The VQA part of a report: runs by split, ensembles against their folds, what went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from results.records.schema import RunRecord
from results.records.suite_view import AnsweredSplit, AnswerExample, SuiteView
from results.report import pictures as beside
from results.tables import message_translations, published, vqa
from results.tables.table import Cell, Column, Table, code, markdown
from results.text import formats
from results.text.translations import say


def render(view: SuiteView, lang: str, pictures: Mapping[str, str] | None = None) -> Iterator[str]:
    """The parts, in order; nothing for a suite without answered questions.

    `pictures`: link by path; without one an example has its medium's name alone.
    """
    found = vqa.of(view.records)
    splits = vqa.splits(found)
    if not splits:
        return
    if expected := published.table(found, lang):
        yield f"## {say('published.title', lang)}"
        yield markdown(expected)
    yield f"## {say('vqa.title', lang)}"
    for split in splits:
        yield f"### {code(split)}"
        yield from vqa.sections(found, split, lang)
    for record in _looked_into(found):
        for answered in view.answers.get(record.identity.run_id, ()):
            names = code(record.identity.run_id), code(answered.split)
            yield f"### {say('vqa.errors', lang).format(*names)}"
            yield from _errors(answered, lang, pictures or {})


def copy_pictures(view: SuiteView, folder: Path) -> dict[str, str]:
    """Copy the pictures of all examples into `folder`; link by path, relative to its parent."""
    shown = (one for many in view.answers.values() for split in many for one in split.worst)
    return beside.copy((one.picture for one in shown), folder)


def _looked_into(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Whose errors are shown: of the ensembles, where there are any, else of every run."""
    put_together = [r for r in records if r.identity.task == "ensemble" and r.metrics]
    return put_together or list(records)


def _errors(answered: AnsweredSplit, lang: str, pictures: Mapping[str, str]) -> Iterator[str]:
    yield markdown(vqa.kinds(answered, lang))
    yield f"{say('vqa.confusion', lang)}\n"
    yield markdown(vqa.confusion(answered, lang))
    yield f"{say('vqa.reliability', lang)}\n"
    yield markdown(vqa.reliability(answered, lang))
    if answered.worst:
        yield f"{say('vqa.worst', lang)}\n"
        yield markdown(_worst(answered.worst, lang, pictures))


def _worst(shown: Sequence[AnswerExample], lang: str, pictures: Mapping[str, str]) -> Table:
    columns = (
        Column(say("captions.picture", lang)),
        Column(say("vqa.question", lang)),
        Column(say("vqa.answered", lang)),
        Column(say("vqa.true", lang)),
        Column(say("vqa.confidence", lang), right=True),
        Column(say("vqa.kind", lang)),
    )
    body = tuple(
        (
            beside.cell(one.picture, one.medium, pictures),
            Cell(one.question),
            Cell(_option(one, one.answer)),
            Cell(_option(one, one.truth)),
            Cell(formats.percent(one.confidence), "value"),
            Cell(message_translations.localized(one.kind, lang)),
        )
        for one in shown
    )
    return Table(columns, body)


def _option(example: AnswerExample, letter: str) -> str:
    """`b. two`."""
    place = vqa.LETTERS.find(letter)
    known = 0 <= place < len(example.options)
    return f"{letter}. {example.options[place]}" if known else letter
