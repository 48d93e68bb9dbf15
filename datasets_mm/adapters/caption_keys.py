"""Selects the keys of a label that hold its medium, captions, language and split.

The recipe chooses the keys, or one key is the only candidate. Several candidates raise an error
that lists them: the description of a data set, of an object or in another language looks like a
caption, and would train and score like one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from datasets_mm.adapters.languages import CODES, SPLITS, language_code, split_language, split_name
from datasets_mm.adapters.m2kr_fields import (
    LineError,
    normalize_name,
    parse_text_list,
    scalar_text,
    type_of,
)
from datasets_mm.adapters.nested_values import Leaves, flatten, lookup
from datasets_mm.media_paths import clean_path
from datasets_mm.media_types import is_medium
from datasets_mm.sources.fingerprint import SourceError

MEDIA: Final = (
    "media", "image_path", "video_path", "media_path", "image", "video", "img_path", "file_name",
    "filename", "file_path", "image_name", "img_name", "video_name", "image_file", "video_file",
    "file", "img", "path", "clip_name", "clip", "이미지", "영상", "파일명", "imagepath",
    "videopath", "images", "videos", "video_id", "videoid",
)  # fmt: skip
"""Keys of the medium's path; the first that matches is used."""
CAPTIONS: Final = frozenset({
    "caption", "captions", "caption_str", "sentence", "sentences", "cap", "caps", "캡션", "문장",
})  # fmt: skip
WEAK: Final = frozenset({
    "description", "descriptions", "desc", "answer", "answers", "text", "texts", "raw", "comment",
    "설명",
})  # fmt: skip
"""Called so for other things too: on the record's own level they yield to nothing, and refuse."""
LANGUAGE: Final = ("language", "lang")
SPLIT: Final = ("split", "subset", "set", "set_name", "data_split", "partition")
SIDE: Final = frozenset({"metadata", "meta"})
"""Blocks that may name the medium; their texts are not captions."""
PARTS: Final = frozenset({
    "objects", "object", "shapes", "regions", "region", "bboxes", "boxes", "instances",
    "detections", "segments_info", "predictions",
})  # fmt: skip
"""Blocks about parts of the image, or from a model: their texts are not captions of it."""
LISTED: Final = "captions are lists written as text and were read as their elements"
TOKENS: Final = "captions are lists of single words: are these the tokens of one sentence?"
NO_TOKENS: Final = "{} is a list of tokens where captions belong (join them)"
LEAST_TOKENS: Final = 3
NUMBERED: Final = re.compile(r"(.+\.[A-Za-z0-9]{3,4})#\d+\Z")
"""A medium with the number of its caption, as Flickr's token files write them."""
WITHDRAWN: Final = frozenset({
    "is_rejected", "rejected", "was_cancelled", "is_deleted", "deleted",
})  # fmt: skip
"""Keys by which annotators take a label back."""


@dataclass(frozen=True)
class RecipeKeys:
    """Keys that the recipe names; "" and (): detected."""

    caption: tuple[str, ...] = ()
    media: str = ""
    split: str = ""
    language: str = ""
    """Language of captions without one, and the selected one where keys name several."""
    stem: str = ""
    """Name of the label file without its ending: `{stem}` in a template of `media`."""
    optional: bool = False
    """A medium without a caption is a label too."""


@dataclass(frozen=True)
class CaptionKey:
    """Where captions were. "": under the recipe's key, or a usual one on the own level."""

    family: str = ""
    """Its path without number and language."""
    path: str = ""


@dataclass
class Label:
    """Medium, captions, language and split of one object."""

    media: str
    captions: list[str]
    language: str
    split: str = ""
    id: str = ""
    key: CaptionKey = CaptionKey()
    notes: list[str] = field(default_factory=list)


class AmbiguousError(SourceError):
    """Several keys are candidates; the recipe has to name one."""


class NoCaptionError(LineError):
    """The object has no caption of its medium."""


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
        captions, language, key = _find_captions(record, leaves, keys, notes)
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
    """Of one line a caption the ids are the captions', and any of them would name the medium."""
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


# -- levels ---------------------------------------------------------------------------------------


def _depth(path: str) -> int:
    """Level of a path, 1 for the record's own; keys inside a list of captions count as the list."""
    parts = path.split(".")
    return 1 if is_caption(parts[0]) else len(parts)


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


# -- the captions ------------------------------------------------------------------------------


def is_caption(name: str) -> bool:
    """A key that may hold a caption; `caption_1` to `caption_5` are captions too."""
    stem, language = split_language(name)
    if language:
        return True
    return _without_number(stem) in CAPTIONS | WEAK


def _without_number(name: str) -> str:
    """Without the number of `caption_1` and `sentence2`."""
    stem = name.rstrip("0123456789").rstrip("_")
    return stem if stem in {"caption", "sentence", "description", "text", "comment"} else name


def _find_captions(
    record: Mapping[str, Any], leaves: Leaves, keys: RecipeKeys, notes: list[str]
) -> tuple[list[str], str, CaptionKey]:
    """(captions, language that their key names or "", that key)."""
    if keys.caption:
        values = [value for path in keys.caption for value in lookup(record, path)]
        captions = _read_captions(", ".join(keys.caption), values, notes)
        languages = {
            split_language(normalize_name(path.rpartition(".")[2]))[1] for path in keys.caption
        }
        if not captions:
            raise NoCaptionError("no caption")
        return captions, languages.pop() if len(languages) == 1 else "", CaptionKey()
    groups: dict[str, dict[str, list[str]]] = {}
    paths: dict[str, str] = {}
    reason: LineError = NoCaptionError("no caption")
    for path, values in leaves.items():
        if candidate := _caption_candidate(path):
            family, language = candidate
            try:
                captions = _read_captions(path, values, notes)
            except LineError as error:
                reason = error
                if _depth(path) == 1 and family in CAPTIONS:
                    raise  # another key would be read as the caption
                continue
            if captions:
                paths.setdefault(family, path)
                groups.setdefault(family, {}).setdefault(language, []).extend(captions)
    if not groups:
        raise reason
    family = _select_group(groups, paths)
    if PARTS & set(family.split(".")[:-1]):
        raise NoCaptionError(f"no caption ({paths[family]} is about parts, or no annotator's)")
    is_usual = _depth(family) == 1 and bool(CAPTIONS & set(family.split(".")))
    key = CaptionKey() if is_usual else CaptionKey(family, paths[family])
    return *_select_language(family, groups[family], keys, notes), key


def _caption_candidate(path: str) -> tuple[str, str] | None:
    """(path without number and language, language) of a key that may hold captions."""
    before, dot, name = path.rpartition(".")
    if SIDE & set(before.split(".")):
        return None
    if name in CODES and before and is_caption(before.rpartition(".")[2]):
        return before, CODES[name]  # caption: {ko: …, en: …}
    if not is_caption(name):
        return None
    stem, language = split_language(name)
    return f"{before}{dot}{_without_number(stem)}", language


def _select_group(groups: Mapping[str, Mapping[str, list[str]]], paths: Mapping[str, str]) -> str:
    """The one key family with captions. `paths`: first path of each, with language and number.

    Raises:
        AmbiguousError: several may be.
    """
    texts = {path: {t for captions in by.values() for t in captions} for path, by in groups.items()}
    top_level = [path for path in groups if _depth(path) == 1]
    strong = [path for path in top_level if path.rpartition(".")[2] in CAPTIONS]
    level = top_level if len(top_level) == len(strong) and top_level else list(groups)
    widest = max(level, key=lambda path: len(texts[path]))
    if all(texts[path] <= texts[widest] for path in level):
        return widest  # one candidate, or others that only repeat it
    names = sorted(paths[path] for path in level)
    raise AmbiguousError(
        f"several keys may hold the caption ({', '.join(names)}); choose with "
        f'caption = "{names[0]}" in [source]'
    )


def _select_language(
    family: str, languages: Mapping[str, list[str]], keys: RecipeKeys, notes: list[str]
) -> tuple[list[str], str]:
    if len(languages) == 1:
        language, captions = next(iter(languages.items()))
        return captions, language
    target = language_code(keys.language)
    if target not in languages:
        names = ", ".join(language or "none named" for language in languages)
        raise AmbiguousError(
            f"{family} comes in several languages ({names}); choose with "
            f'dataset = "{next(filter(None, languages))}" in [source]'
        )
    others = ", ".join(language or "no language" for language in languages if language != target)
    notes.append(f"labels have captions in {others} too, which were not read")
    return languages[target], target


def _read_captions(path: str, values: list[Any], notes: list[str]) -> list[str]:
    """Captions under one key, in one line each.

    Raises:
        LineError: one of them is no text.
    """
    captions = []
    for value in values:
        if isinstance(value, str):
            elements = parse_text_list(value)
            if elements is not None:
                notes.append(LISTED)
            captions += elements if elements is not None else [scalar_text(value)]
        elif value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124 - NaN
            continue
        elif isinstance(value, int | float) and not isinstance(value, bool):
            notes.append(f"values of {path} are numbers and were read as text")
            captions.append(scalar_text(value))
        else:
            raise LineError(f"{path} is {type_of(value)} where captions belong")
    _reject_tokens(path, captions, notes)
    return [" ".join(elements.split()) for elements in captions if elements.strip()]


def _reject_tokens(path: str, captions: list[str], notes: list[str]) -> None:
    """Tell a list of tokens from a list of captions.

    Raises:
        LineError: single words and signs, which are tokens.
    """
    if len(captions) < LEAST_TOKENS or any(len(caption.split()) > 1 for caption in captions):
        return
    if any(caption.strip() and not any(map(str.isalnum, caption)) for caption in captions):
        raise LineError(NO_TOKENS.format(path))
    notes.append(TOKENS)
