"""One label: the medium of an object with its captions, language and split.

Which key holds the captions is decided in caption_keys.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from datasets_mm.adapters.caption_keys import (
    AmbiguousError,
    CaptionKey,
    NoCaptionError,
    RecipeKeys,
    find_captions,
    is_caption,
)
from datasets_mm.adapters.languages import SPLITS, language_code, split_name
from datasets_mm.adapters.m2kr_fields import LineError, normalize_name, scalar_text, type_of
from datasets_mm.adapters.nested_values import Leaves, flatten, lookup
from datasets_mm.media_paths import clean_path
from datasets_mm.media_types import is_medium

MEDIA: Final = (
    "media", "image_path", "video_path", "media_path", "image", "video", "img_path", "file_name",
    "filename", "file_path", "image_name", "img_name", "video_name", "image_file", "video_file",
    "file", "img", "path", "clip_name", "clip", "이미지", "영상", "파일명", "imagepath",
    "videopath", "images", "videos", "video_id", "videoid",
)  # fmt: skip
"""Keys of the medium's path; the first that matches is used."""
LANGUAGE: Final = ("language", "lang")
SPLIT: Final = ("split", "subset", "set", "set_name", "data_split", "partition")
NUMBERED: Final = re.compile(r"(.+\.[A-Za-z0-9]{3,4})#\d+\Z")
"""A medium with the number of its caption, as Flickr's token files write them."""
WITHDRAWN: Final = frozenset({
    "is_rejected", "rejected", "was_cancelled", "is_deleted", "deleted",
})  # fmt: skip
"""Keys by which annotators take a label back."""


@dataclass
class Label:
    """Medium, captions, language and split of one object."""

    media: str
    captions: list[str]
    language: str
    split: str = ""
    id: str = ""
    key: CaptionKey = field(default_factory=CaptionKey)
    notes: list[str] = field(default_factory=list)


def read_label(record: Mapping[str, Any], keys: RecipeKeys, split: str = "") -> Label:
    """The label of one object. `split`: of the whole file, where the object names none.

    Raises:
        LineError: it has no medium or no caption; the text is the reason.
        AmbiguousError: several keys may hold them.
    """
    leaves = dict(flatten(record))
    media = _find_media(record, leaves, keys)
    notes: list[str] = []
    try:
        captions, language, key = find_captions(record, leaves, keys, notes)
    except NoCaptionError:
        if not keys.optional:
            raise
        captions, language, key = [], "", CaptionKey()
    stated_language = _first_text(leaves, LANGUAGE)
    return Label(
        media=NUMBERED.sub(r"\1", media),
        captions=captions,
        language=language_code(stated_language) if stated_language else language or keys.language,
        split=_read_split(record, leaves, keys) or split,
        id=_read_id(record),
        key=key,
        notes=notes,
    )


def split_by_caption(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The record, or one for each of its captions where these name a language or split each."""
    for key, value in record.items():
        if not (
            isinstance(value, list) and (is_caption(normalize_name(key)) or key == "annotations")
        ):
            continue
        names = [
            {normalize_name(k) for k in item} if isinstance(item, dict) else set() for item in value
        ]
        if any(item_keys & {*LANGUAGE, *SPLIT} for item_keys in names):
            return [{**record, key: [item]} for item in value]
    return [record]


def drop_withdrawn(record: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """The record without annotations that are marked as withdrawn, and those marks.

    Raises:
        LineError: the record itself is.
    """
    if mark := _withdrawal_mark(record):
        raise LineError(f"label is marked {mark}")
    marks: list[str] = []
    record_copy = dict(record)
    for key, value in record.items():
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            item_marks = [
                _withdrawal_mark(item) if isinstance(item, dict) else "" for item in value
            ]
            marks += filter(None, item_marks)
            record_copy[key] = [
                item for item, mark in zip(value, item_marks, strict=True) if not mark
            ]
    return (record_copy, marks) if marks else (record, marks)


def _withdrawal_mark(record: Mapping[str, Any]) -> str:
    return next((k for k, v in record.items() if v is True and normalize_name(k) in WITHDRAWN), "")


def _read_id(record: Mapping[str, Any]) -> str:
    """Of one line per caption the ids are the captions', and any of them would name the medium."""
    if not any(normalize_name(key) == "captions" for key in record):
        return ""
    levels = [record, *(value for value in record.values() if isinstance(value, dict))]
    for name in ("data_id", "id", "annotation_id"):
        for level in levels:
            if identifier := next(
                (scalar_text(v) for k, v in level.items() if normalize_name(k) == name), ""
            ):
                return identifier
    return ""


def _first_text(leaves: Leaves, names: tuple[str, ...]) -> str:
    """The first of these keys, on the own level and then below, that holds one text."""
    for path, values in sorted(leaves.items(), key=lambda item: item[0].count(".")):
        if path.rpartition(".")[2] in names:
            texts = [scalar_text(value) for value in values]
            if len(set(texts)) == 1 and texts[0]:
                return texts[0]
    return ""


def _read_split(record: Mapping[str, Any], leaves: Leaves, keys: RecipeKeys) -> str:
    if keys.split:
        return split_name(
            next((value for v in lookup(record, keys.split) if (value := scalar_text(v))), "")
        )
    for name in SPLIT:
        value = _first_text(leaves, (name,))
        if normalize_name(value) in SPLITS:
            return split_name(value)
    return ""


# -- the medium --------------------------------------------------------------------------------


def _find_media(record: Mapping[str, Any], leaves: Leaves, keys: RecipeKeys) -> str:
    if keys.media:
        return clean_path(_media_from_recipe(record, keys))
    candidates: dict[str, str] = {}
    reason = LineError(f"no medium under any of {', '.join(MEDIA[:5])}, …")
    for path, values in leaves.items():
        if path.rpartition(".")[2] in MEDIA and any(
            scalar_text(v) or _is_nested(v) for v in values
        ):
            try:
                candidates[path] = _single_path(path, values)
            except LineError as error:
                reason = error
    order = sorted(
        candidates, key=lambda path: (path.count("."), MEDIA.index(path.rpartition(".")[2]))
    )
    with_ending = [path for path in order if is_medium(candidates[path])]
    level = (
        [path for path in with_ending if path.count(".") == with_ending[0].count(".")]
        if with_ending
        else []
    )
    if len({clean_path(candidates[path]).rpartition("/")[2].lower() for path in level}) > 1:
        raise AmbiguousError(f"several keys may name the medium ({', '.join(level)}); choose one "
                             f'with media = "{level[0]}" in [source]')  # fmt: skip
    best_path = next(iter([*with_ending, *order]), "")
    if not best_path:
        raise reason
    return clean_path(candidates[best_path])


def _single_path(path: str, values: list[Any]) -> str:
    filled = [value for value in values if scalar_text(value) or _is_nested(value)]
    if not filled:
        raise LineError(f"no medium under {path}")
    if len({str(value) for value in filled}) > 1:
        raise LineError(f"{path} names several media (one is read)")
    if not isinstance(filled[0], str | int | float) or isinstance(filled[0], bool):
        raise LineError(f"{path} is {type_of(filled[0])} where a path belongs")
    return scalar_text(filled[0])


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _media_from_recipe(record: Mapping[str, Any], keys: RecipeKeys) -> str:
    """Path of the medium under the recipe's key, or by its template (`{video_id}.mp4`)."""
    media = keys.media
    template = media if "{" in media else "{" + media + "}"

    def fill(match: re.Match[str]) -> str:
        path = match.group(1)
        if path == "stem" and keys.stem:
            return keys.stem
        values = [value for value in lookup(record, path) if value is not None]
        if not values:
            raise LineError(f"no medium under {path}")
        return _single_path(path, values)

    return re.sub(r"\{([^{}]+)\}", fill, template)
