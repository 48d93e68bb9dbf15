"""The captioning part of a report: experiments, scores by split, best and worst with pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from results.records.suite_view import CaptionExample, SuiteView
from results.report import pictures as beside
from results.tables import captioning
from results.tables.table import Cell, Column, Table, code, escape, markdown
from results.text import formats
from results.text.translations import say

IN_A_ROW: Final = 4
"""Frames of a video in a row of its contact sheet."""


def render(view: SuiteView, lang: str, pictures: Mapping[str, str] | None = None) -> Iterator[str]:
    """The parts, in order; nothing for a suite without captioning runs.

    `pictures`: link by path; without one an example has its medium's name alone.
    """
    found = captioning.of(view.records)
    table = captioning.experiments(found, view.planned, view.states, view.notes, lang)
    if not table.rows:
        return
    yield f"## {say('captions.experiments', lang)}"
    yield markdown(table)
    if not captioning.splits(found):
        return
    yield f"## {say('captions.title', lang)}"
    yield say("captions.together", lang)
    for split in captioning.splits(found):
        yield f"### {code(split)}"
        yield markdown(captioning.scores(found, split, lang))
    if any(view.captions.values()):
        yield f"### {say('captions.examples', lang)}"
    for record in found:
        yield from _examples(record.identity.run_id, view, lang, pictures or {})


def copy_pictures(view: SuiteView, folder: Path) -> dict[str, str]:
    """Copy the pictures of all examples into `folder`; link by path, relative to its parent."""
    return beside.copy((one.picture for many in view.captions.values() for one in many), folder)


def _examples(run: str, view: SuiteView, lang: str, pictures: Mapping[str, str]) -> Iterator[str]:
    shown = view.captions.get(run, ())
    for split in dict.fromkeys(one.split for one in shown):
        mine = [one for one in shown if one.split == split]
        yield f"#### {code(run)} · {code(split)}"
        yield markdown(_table(mine, lang, pictures))
        yield say("captions.ranked", lang).format(escape(mine[0].metric))


def _table(shown: list[CaptionExample], lang: str, pictures: Mapping[str, str]) -> Table:
    columns = (
        Column(""),
        Column(say("captions.picture", lang)),
        Column(say("captions.caption", lang)),
        Column(say("captions.references", lang)),
        Column(_heading(shown[0].metric), right=True),
    )
    body = tuple(
        (
            Cell(say(f"captions.{one.standing}", lang), "value"),
            _picture(one, pictures),
            Cell(one.caption),
            Cell("; ".join(one.references)),
            Cell(formats.number(one.score, 3), "value"),
        )
        for one in shown
    )
    return Table(columns, body)


def _picture(example: CaptionExample, pictures: Mapping[str, str]) -> Cell:
    columns = max(1, min(IN_A_ROW, example.frames))
    return beside.cell(example.picture, example.medium, pictures, columns)


def _heading(metric: str) -> str:
    """`METEOR (exact+stem, en words)` -> `METEOR`: the sentence below has the whole name."""
    return escape(metric.partition(" (")[0])
