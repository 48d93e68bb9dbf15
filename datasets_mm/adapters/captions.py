"""Adapter for captions of images or videos: JSON, JSON lines or tables of (media, captions).

Lines about one medium become one record with several captions, so one line per caption (as in
Flickr's and COCO's tables) and one line per medium mean the same. A record has no passages:
`answer` holds the captions and `dataset_id` their language. One JSON file for each video, as AI-Hub
publishes them, is read through a pattern in `uri`. Several splits or languages are never mixed
silently.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.caption_files import CaptionItem, read_items
from datasets_mm.adapters.caption_keys import NO_TOKENS, TOKENS, AmbiguousError, RecipeKeys
from datasets_mm.adapters.caption_labels import (
    Label,
    drop_withdrawn,
    read_label,
    split_by_caption,
)
from datasets_mm.adapters.languages import language_code, split_name
from datasets_mm.adapters.m2kr_fields import LineError
from datasets_mm.adapters.nested_values import flatten
from datasets_mm.adapters.text_damage import note_damage
from datasets_mm.child_messages import Progress
from datasets_mm.media_paths import printable_name
from datasets_mm.media_types import is_medium
from datasets_mm.recipes.recipe import Source
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.sources.location import Location
from datasets_mm.storage import arrow_store

REVISION = 3
ALIKE: Final = "media all have the same caption: is its key the right one?"
COMMON: Final = "media share one caption, which is that of most: is its key the right one?"
TAKEN_BACK: Final = "annotations are marked {}, and were left out"
SEVERAL_FILES: Final = "media have several label files, whose captions were joined"
UNLABELLED: Final = "files of media have no label"
SHOWN_KEYS: Final = 12
"""Keys of labels that an error names."""


def write(location: Location, folder: Path, progress: Progress) -> SourceReport:
    """Write one record for each medium and language.

    Raises:
        SourceError: a file is no table of captions at all, or several keys, splits or languages
            may be meant and the recipe names none.
    """
    report = SourceReport()
    labels = _drop_token_lists(list(_read_labels(location, report, progress)), report)
    labels = _select_key(_select_splits_and_languages(labels, location.source, report), report)
    if "{stem}" in location.source.media:
        _note_pairs(labels, location, report)
    media: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for position, label in labels:
        note_damage(label.captions, position, report)
        media.setdefault((label.media, label.language), (label.id, []))[1].extend(label.captions)
    arrow_store.corpus_writer(folder).close()
    records = arrow_store.record_writer(folder)
    for (path, language), (name, captions) in media.items():
        data_id = name or f"{path}.{language}".rstrip(".")
        records.add(make_record(data_id, path, list(dict.fromkeys(captions)), language))
    records.close()
    arrow_store.sort_by(folder / "records.arrow", "data_id")
    report.content = arrow_store.content_digest(folder / "records.arrow")
    report.facts = {"captions": str(sum(len(captions) for _, captions in media.values()))}
    _note_common_captions(
        Counter(c for _, captions in media.values() for c in set(captions)), len(media), report
    )
    return report


def _note_common_captions(counts: Counter[str], media: int, report: SourceReport) -> None:
    """A caption of most media is a prompt or a description of the data set."""
    if media <= 2 or not counts:
        return
    caption, count = counts.most_common(1)[0]
    if len(counts) == 1:
        report.note(f"{media} {ALIKE}", caption[:80])
    elif count > media / 2:
        report.note(f"{count} of {media} {COMMON}", caption[:80])


def make_record(data_id: str, media: str, captions: list[str], language: str) -> dict[str, Any]:
    """The nine fields of a medium with its captions."""
    nothing: dict[str, Any] = {"instruction": "", "question": ""}
    lists = ("passage_id", "passage_image_path", "passage_text")
    return nothing | {name: [] for name in lists} | {
        "answer": captions, "data_id": data_id, "dataset_id": language, "image_path": media,
    }  # fmt: skip


LocatedLabel = tuple[str, Label]
"""Position of an object in its file, and its label."""


def _read_labels(
    location: Location, report: SourceReport, progress: Progress
) -> Iterator[LocatedLabel]:
    """The labels of all files.

    Raises:
        SourceError: several keys may be meant, or none of the labels has a caption and a medium.
    """
    source = location.source
    recipe_keys = RecipeKeys(source.caption, source.media, source.split_key, source.dataset,
                             optional=source.captions_optional)  # fmt: skip
    count, key_counts = 0, Counter[str]()
    for number, path in enumerate(location.records, 1):
        keys = replace(recipe_keys, stem=path.stem) if "{stem}" in source.media else recipe_keys
        for item in read_items(path, location.name(path), keys, source.encoding, report):
            for label in _labels_of_item(item, keys, report):
                count += 1
                yield item.position, label
            if not count:
                key_counts.update(name for name, _ in flatten(item.content))
        progress(number, len(location.records), "files")
    unread = all(reason.startswith(("no caption", "no medium")) for reason in report.skipped)
    if not count and key_counts and unread:
        raise SourceError(_unread_message(source, report, key_counts))


def _unread_message(source: Source, report: SourceReport, key_counts: Counter[str]) -> str:
    """That no label has what the recipe names, with the keys that labels have."""
    key_text = f" under {', '.join(source.caption)}" if source.caption else ""
    key_text += f" and a medium under {source.media}" if source.media else " and a medium"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.skipped.items())
    names = ", ".join(name for name, _ in key_counts.most_common(SHOWN_KEYS))
    return (
        f"none of {sum(report.skipped.values()):,} labels has a caption{key_text} ({reasons}); "
        f"their keys are {names}; choose with caption and media in [source]"
    )


def _labels_of_item(item: CaptionItem, keys: RecipeKeys, report: SourceReport) -> Iterator[Label]:
    """The labels of one object of a file, one for each language that the recipe's keys name."""
    try:
        record, marks = drop_withdrawn(item.content)
    except LineError as reason:
        report.skip(str(reason), item.position)
        return
    for mark in marks:
        report.note(TAKEN_BACK.format(mark), item.position)
    for content in split_by_caption(record):
        for own_keys in keys.by_language():
            try:
                label = read_label(content, own_keys, item.split)
            except AmbiguousError as error:
                raise SourceError(f"{item.position}: {error}") from None
            except LineError as reason:
                report.skip(str(reason), item.position)
                continue
            for note in dict.fromkeys(label.notes):
                report.note(note, item.position)
            yield label


def _note_pairs(labels: Sequence[LocatedLabel], location: Location, report: SourceReport) -> None:
    """Of pairs by name: media with several label files, and files of media without any."""
    files: dict[str, set[str]] = {}
    for position, label in labels:
        files.setdefault(_pair_name(label.media), set()).add(position)
    for name, positions in files.items():
        if len(positions) > 1:
            report.note(SEVERAL_FILES, f"{name}: {', '.join(sorted(positions))}")
    if location.images is None or not location.images.is_dir():
        return
    for path in sorted(location.images.rglob("*")):
        name = path.relative_to(location.images).as_posix()
        if is_medium(name) and _pair_name(name) not in files:
            report.note(UNLABELLED, printable_name(name))


def _pair_name(path: str) -> str:
    """Name by which labels and media are paired, however a file system spells it."""
    return unicodedata.normalize("NFC", path.removeprefix("./")).casefold()


def _select_key(labels: Sequence[LocatedLabel], report: SourceReport) -> list[LocatedLabel]:
    """The labels whose captions are under one key, in all files alike, and those without captions.

    Where some have a usual key on their own level, another one is not taken in its place.

    Raises:
        SourceError: there are several others.
    """
    counts = Counter(label.key.family for _, label in labels if label.captions)
    if len(counts) < 2:
        return list(labels)
    if "" not in counts:
        paths = {label.key.family: label.key.path for _, label in labels}
        sizes = ", ".join(f"{paths[key]} {n:,}" for key, n in counts.most_common())
        names = ", ".join(f'"{paths[key]}"' for key in sorted(counts))
        raise SourceError(
            f"the captions are under different keys ({sizes}); choose one with caption, or read "
            f"all with caption = [{names}] in [source]"
        )
    for position, label in labels:
        if label.key.family:
            report.skip(f"no caption ({label.key.path} is not taken in its place)", position)
    return [(position, label) for position, label in labels if not label.key.family]


def _drop_token_lists(labels: Sequence[LocatedLabel], report: SourceReport) -> list[LocatedLabel]:
    """The labels without lists of single words, where others are lists of tokens for certain."""
    start, _, end = NO_TOKENS.partition("{}")
    reason = next((r for r in report.skipped if r.startswith(start) and r.endswith(end)), "")
    if not reason:
        return list(labels)
    for position, label in labels:
        if TOKENS in label.notes:
            report.skip(reason, position)
    return [(position, label) for position, label in labels if TOKENS not in label.notes]


def _select_splits_and_languages(
    labels: Sequence[LocatedLabel], source: Source, report: SourceReport
) -> list[LocatedLabel]:
    """Labels of the selected splits and languages; the others are counted as skipped."""
    splits = [split_name(name) for name in source.split]
    labels = _select_values(labels, "split", splits, report)
    languages = [language_code(name) for name in source.languages]
    if not languages and source.dataset in {label.language for _, label in labels}:
        languages = [source.dataset]
    return _select_values(labels, "language", languages, report)


def _select_values(
    labels: Sequence[LocatedLabel], name: str, values: Sequence[str], report: SourceReport
) -> list[LocatedLabel]:
    """Labels whose attribute `name` has one of the chosen values.

    Raises:
        SourceError: there are several values, and none is wanted in particular.
    """
    counts = Counter(str(getattr(label, name)) for _, label in labels)
    if not values and len(counts) > 1:
        sizes = ", ".join(f"{value or 'none named'} {n:,}" for value, n in counts.most_common())
        key = "split" if name == "split" else "languages"
        first = next(filter(None, counts))
        raise SourceError(
            f"the labels are of several {name}s ({sizes}); choose with "
            f'{key} = ["{first}"] in [source]'
        )
    selected = []
    for position, label in labels:
        value = str(getattr(label, name))
        if values and value not in values:
            report.skip(f"{name} {value or 'none'}: the recipe chooses another", position)
        else:
            selected.append((position, label))
    return selected
