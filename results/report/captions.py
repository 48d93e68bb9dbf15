"""Captioning section of a report: experiments, scores by split, best and worst captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from results.records.suite_view import CaptionExample, SuiteView
from results.report import pictures as beside
from results.tables import captioning
from results.text import formats
from results.text.table import Table, TableCell, TableColumn, code, escape, render_markdown
from results.text.translations import translate

FRAMES_PER_ROW: Final = 4
"""Frames of a video in a row of its contact sheet."""


def render_scores(view: SuiteView, lang: str) -> Iterator[str]:
    """The list of experiments, and all scores by split; nothing without captioning runs."""
    records = captioning.captioning_runs(view.records)
    table = captioning.experiments(view, lang)
    if not table.rows:
        return
    yield f"## {translate('captions.experiments', lang)}"
    yield render_markdown(table)
    if not captioning.splits(records):
        return
    yield f"## {translate('captions.title', lang)}"
    yield translate("captions.together", lang)
    for split in captioning.splits(records):
        yield f"### {code(split)}"
        yield render_markdown(captioning.scores(records, split, lang))


def render_examples(view: SuiteView, lang: str, pictures: Mapping[str, str]) -> Iterator[str]:
    """Best and worst captions of each run; nothing for a suite without captions.

    `pictures`: link by path; without one an example has its medium's name alone.
    """
    records = captioning.captioning_runs(view.records)
    if captioning.splits(records) and any(view.captions.values()):
        yield f"### {translate('captions.examples', lang)}"
        for record in records:
            run = record.identity.run_id
            yield from render_run_examples(run, view, lang, pictures, "####", code(run))


def copy_pictures(view: SuiteView, folder: Path) -> dict[str, str]:
    """Copy the pictures of all examples into `folder`; link by path, relative to its parent."""
    return beside.copy_pictures(
        (example.picture for examples in view.captions.values() for example in examples), folder
    )


def render_run_examples(
    run: str, view: SuiteView, lang: str, pictures: Mapping[str, str], level: str, title: str = ""
) -> Iterator[str]:
    """Best and worst captions of a run by split, below headings of that level."""
    title = title or translate("captions.examples", lang)
    examples = view.captions.get(run, ())
    for split in dict.fromkeys(example.split for example in examples):
        examples_of_split = [example for example in examples if example.split == split]
        yield f"{level} {title} · {code(split)}"
        yield render_markdown(_examples_table(examples_of_split, lang, pictures))
        yield translate("captions.ranked", lang).format(escape(examples_of_split[0].metric))


def _examples_table(
    examples: list[CaptionExample], lang: str, pictures: Mapping[str, str]
) -> Table:
    columns = (
        TableColumn(""),
        TableColumn(translate("captions.picture", lang)),
        TableColumn(translate("captions.caption", lang)),
        TableColumn(translate("captions.references", lang)),
        TableColumn(short_metric_name(examples[0].metric), right=True),
    )
    body = tuple(
        (
            TableCell(translate(f"captions.{example.standing}", lang), "value"),
            _picture_cell(example, pictures),
            TableCell(example.caption),
            TableCell("; ".join(example.references)),
            TableCell(formats.number(example.score, 3), "value"),
        )
        for example in examples
    )
    return Table(columns, body)


def _picture_cell(example: CaptionExample, pictures: Mapping[str, str]) -> TableCell:
    columns = max(1, min(FRAMES_PER_ROW, example.frames))
    return beside.picture_cell(example.picture, example.medium, pictures, columns)


def short_metric_name(metric: str) -> str:
    """`METEOR (exact+stem, en words)` -> `METEOR`; the full name is below the table."""
    return escape(metric.partition(" (")[0])
