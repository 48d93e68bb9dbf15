"""The captioning part of a report: experiments, scores by split, best and worst with pictures.

Pictures are copied beside the report under names of our own, as they are: a report that is moved to
another machine keeps them. Only regular files that begin like JPEG, PNG or WEBP are copied.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from results import captioning, formats
from results.markdown import Cell, Column, Table, code, escape, markdown
from results.schema import CaptionExample, SuiteView
from results.words import say

MAX_BYTES: Final = 8 << 20
WIDTH: Final = 96
"""Pixels in the report; the file is the data's own."""

HEADS: Final = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
)


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
    links: dict[str, str] = {}
    for example in (one for many in view.captions.values() for one in many):
        if example.picture and example.picture not in links:
            data = _read(Path(example.picture))
            ending = _ending(data)
            if not ending:
                continue
            name = f"{hashlib.blake2b(data, digest_size=12).hexdigest()}.{ending}"
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
            links[example.picture] = f"{folder.name}/{name}"
    return links


def _ending(data: bytes) -> str:
    """What kind of picture the bytes begin like; empty for anything else."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":  # RIFF alone may be a video
        return "webp"
    return next((ending for head, ending in HEADS if data.startswith(head)), "")


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
    link = pictures.get(example.picture)
    if link is None:
        return Cell(example.medium, "code")
    return Cell(f'<img src="{link}" width="{WIDTH}" alt="">', "value")


def _heading(metric: str) -> str:
    """`METEOR (exact+stem, en words)` -> `METEOR`: the sentence below has the whole name."""
    return escape(metric.partition(" (")[0])


def _read(path: Path) -> bytes:
    """The file's bytes; none of what is no regular file, or too large, or gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            return b""
        return file.read(MAX_BYTES)
