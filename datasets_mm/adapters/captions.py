"""Reads captions of pictures or videos: JSON, JSON lines or tables of (media, captions).

Lines about one medium become one record with several captions, so one line a caption (as Flickr's
and COCO's tables are) and one line a medium mean the same. A record has no passages: `answer` holds
the captions and `dataset_id` their language. One JSON file for each video, as AI-Hub hands them
out, is read through a pattern in `uri`. Several splits or languages are never mixed in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.caption_files import read
from datasets_mm.adapters.caption_keys import (
    NO_TOKENS,
    TOKENS,
    AmbiguousError,
    Keys,
    Label,
    expand,
    label,
    without_withdrawn,
)
from datasets_mm.adapters.languages import language_code, split_name
from datasets_mm.adapters.m2kr_fields import LineError
from datasets_mm.recipes.recipe import Source
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.sources.location import Location
from datasets_mm.storage import arrow_store

REVISION = 3
ALIKE: Final = "media all have the same caption: is its key the right one?"
COMMON: Final = "media share one caption, which is that of most: is its key the right one?"
TAKEN_BACK: Final = "annotations are marked {}, and were left out"

Say = Callable[[int, int, str], None]


def write(found: Location, folder: Path, progress: Say) -> SourceReport:
    """Write one record for each medium and language.

    Raises:
        SourceError: a file is no table of captions at all, or several keys, splits or languages
            may be meant and the recipe names none.
    """
    report = SourceReport()
    labels = _without_tokens(list(_labels(found, report, progress)), report)
    chosen = _of_one_key(_chosen(labels, found.source, report), report)
    media: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for _, one in chosen:
        media.setdefault((one.media, one.language), (one.id, []))[1].extend(one.captions)
    arrow_store.corpus_writer(folder).close()
    records = arrow_store.record_writer(folder)
    for (path, language), (name, captions) in media.items():
        data_id = name or f"{path}.{language}".rstrip(".")
        records.add(record(data_id, path, list(dict.fromkeys(captions)), language))
    records.close()
    arrow_store.sort_by(folder / "records.arrow", "data_id")
    report.content = arrow_store.content_digest(folder / "records.arrow")
    report.facts = {"captions": str(sum(len(captions) for _, captions in media.values()))}
    _tell_common(Counter(c for _, many in media.values() for c in set(many)), len(media), report)
    return report


def _tell_common(counts: Counter[str], media: int, report: SourceReport) -> None:
    """A caption of most media is a prompt or a description of the data set."""
    if media <= 2 or not counts:
        return
    caption, count = counts.most_common(1)[0]
    if len(counts) == 1:
        report.note(f"{media} {ALIKE}", caption[:80])
    elif count > media / 2:
        report.note(f"{count} of {media} {COMMON}", caption[:80])


def record(data_id: str, media: str, captions: list[str], language: str) -> dict[str, Any]:
    """The nine fields of a medium with its captions."""
    nothing: dict[str, Any] = {"instruction": "", "question": ""}
    lists = ("passage_id", "passage_image_path", "passage_text")
    return nothing | {name: [] for name in lists} | {
        "answer": captions, "data_id": data_id, "dataset_id": language, "image_path": media,
    }  # fmt: skip


Placed = tuple[str, Label]
"""Where an object stands, and what it says."""


def _labels(found: Location, report: SourceReport, progress: Say) -> Iterator[Placed]:
    source = found.source
    keys = Keys(source.caption, source.media, source.split_key, source.dataset,
                optional=source.captions_optional)  # fmt: skip
    for number, path in enumerate(found.records, 1):
        if "{stem}" in source.media:
            keys = replace(keys, stem=path.stem)
        for item in read(path, found.name(path), keys, source.encoding, report):
            try:
                whole, marks = without_withdrawn(item.content)
            except LineError as reason:
                report.skip(str(reason), item.where)
                continue
            for mark in marks:
                report.note(TAKEN_BACK.format(mark), item.where)
            for content in expand(whole):
                try:
                    one = label(content, keys, item.split)
                except AmbiguousError as error:
                    raise SourceError(f"{item.where}: {error}") from None
                except LineError as reason:
                    report.skip(str(reason), item.where)
                    continue
                for note in dict.fromkeys(one.notes):
                    report.note(note, item.where)
                yield item.where, one
        progress(number, len(found.records), "files")


def _of_one_key(labels: Sequence[Placed], report: SourceReport) -> list[Placed]:
    """The labels whose captions are under one key, in all files alike, and those without captions.

    Where some have a usual key on their own level, another one is not taken in its place.

    Raises:
        SourceError: there are several others.
    """
    counts = Counter(one.key.family for _, one in labels if one.captions)
    if len(counts) < 2:
        return list(labels)
    if "" not in counts:
        paths = {one.key.family: one.key.path for _, one in labels}
        sizes = ", ".join(f"{paths[key]} {n:,}" for key, n in counts.most_common())
        names = ", ".join(f'"{paths[key]}"' for key in sorted(counts))
        raise SourceError(
            f"the captions are under different keys ({sizes}); choose one with caption, or read "
            f"all with caption = [{names}] in [source]"
        )
    for where, one in labels:
        if one.key.family:
            report.skip(f"no caption ({one.key.path} is not taken in its place)", where)
    return [(where, one) for where, one in labels if not one.key.family]


def _without_tokens(labels: Sequence[Placed], report: SourceReport) -> list[Placed]:
    """The labels without lists of single words, where others are lists of tokens for certain."""
    start, _, end = NO_TOKENS.partition("{}")
    reason = next((r for r in report.skipped if r.startswith(start) and r.endswith(end)), "")
    if not reason:
        return list(labels)
    for where, one in labels:
        if TOKENS in one.notes:
            report.skip(reason, where)
    return [(where, one) for where, one in labels if TOKENS not in one.notes]


def _chosen(labels: Sequence[Placed], source: Source, report: SourceReport) -> list[Placed]:
    """The labels of the splits and languages that are meant; the others are counted."""
    splits = [split_name(name) for name in source.split]
    labels = _of_one(labels, "split", splits, report)
    languages = [language_code(name) for name in source.languages]
    if not languages and source.dataset in {one.language for _, one in labels}:
        languages = [source.dataset]
    return _of_one(labels, "language", languages, report)


def _of_one(
    labels: Sequence[Placed], name: str, wanted: Sequence[str], report: SourceReport
) -> list[Placed]:
    """The labels with a wanted value.

    Raises:
        SourceError: there are several values, and none is wanted in particular.
    """
    counts = Counter(str(getattr(one, name)) for _, one in labels)
    if not wanted and len(counts) > 1:
        sizes = ", ".join(f"{value or 'none named'} {n:,}" for value, n in counts.most_common())
        key = "split" if name == "split" else "languages"
        first = next(filter(None, counts))
        raise SourceError(
            f"the labels are of several {name}s ({sizes}); choose with "
            f'{key} = ["{first}"] in [source]'
        )
    kept = []
    for where, one in labels:
        value = str(getattr(one, name))
        if wanted and value not in wanted:
            report.skip(f"{name} {value or 'none'}: the recipe chooses another", where)
        else:
            kept.append((where, one))
    return kept
