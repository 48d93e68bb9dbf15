"""Which key of a label holds its medium, its captions, its language and its split.

What a file says is chosen by the recipe, or by one key that alone can be meant. Several candidates
are refused with their names: the description of a data set, of an object or in another language
looks like a caption, and would train and score like one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from datasets_mm.adapters.languages import CODES, SPLITS, language_code, split_name, variant
from datasets_mm.adapters.m2kr_fields import LineError, heading, listed, text, type_of
from datasets_mm.adapters.nested_values import Leaves, leaves, lookup
from datasets_mm.media_paths import clean
from datasets_mm.media_types import is_medium
from datasets_mm.sources.fingerprint import SourceError

MEDIA: Final = (
    "media", "image_path", "video_path", "media_path", "image", "video", "img_path", "file_name",
    "filename", "file_path", "image_name", "img_name", "video_name", "image_file", "video_file",
    "file", "img", "path", "clip_name", "clip", "이미지", "영상", "파일명", "imagepath",
    "videopath", "images", "videos", "video_id", "videoid",
)  # fmt: skip
"""What the medium's path is called; of several that fit the first."""
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
"""Blocks that may name the medium, and describe what is not in the picture."""
PARTS: Final = frozenset({
    "objects", "object", "shapes", "regions", "region", "bboxes", "boxes", "instances",
    "detections", "segments_info", "predictions",
})  # fmt: skip
"""Blocks about parts of the picture, or of another origin: what they say is not its caption."""
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
class Keys:
    """What the recipe says about keys; "" and (): found out."""

    caption: tuple[str, ...] = ()
    media: str = ""
    split: str = ""
    language: str = ""
    """Of captions whose file names none, and the one that is meant where keys name several."""
    stem: str = ""
    """Name of the label file without its ending: `{stem}` in a template of `media`."""
    optional: bool = False
    """A medium without a caption is a label too."""


@dataclass(frozen=True)
class Key:
    """Where captions were. "": under the recipe's key, or a usual one on the own level."""

    family: str = ""
    """Its path without number and language."""
    path: str = ""


@dataclass
class Label:
    """What one object says."""

    media: str
    captions: list[str]
    language: str
    split: str = ""
    id: str = ""
    key: Key = Key()
    notes: list[str] = field(default_factory=list)


class AmbiguousError(SourceError):
    """Several keys may be meant; the recipe has to name one."""


class NoCaptionError(LineError):
    """Nothing is said about the medium."""


def label(record: Mapping[str, Any], keys: Keys, split: str = "") -> Label:
    """What an object says; `split`: what its file says of all its objects.

    Raises:
        LineError: it has no medium or no caption; the text is the reason.
        AmbiguousError: several keys may hold them.
    """
    found = dict(leaves(record))
    media = _chosen_media(record, found, keys)
    notes: list[str] = []
    try:
        captions, language, key = _chosen_captions(record, found, keys, notes)
    except NoCaptionError:
        if not keys.optional:
            raise
        captions, language, key = [], "", Key()
    said = _one_of(found, LANGUAGE)
    return Label(
        media=NUMBERED.sub(r"\1", media),
        captions=captions,
        language=language_code(said) if said else language or keys.language,
        split=_split(record, found, keys) or split,
        id=_id(record),
        key=key,
        notes=notes,
    )


def expand(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The record, or one for each of its captions where these name a language or split each."""
    for key, value in record.items():
        if not (isinstance(value, list) and (is_caption(heading(key)) or key == "annotations")):
            continue
        names = [{heading(k) for k in item} if isinstance(item, dict) else set() for item in value]
        if any(one & {*LANGUAGE, *SPLIT} for one in names):
            return [{**record, key: [item]} for item in value]
    return [record]


def without_withdrawn(record: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """The record without annotations that are marked as taken back, and those marks.

    Raises:
        LineError: the record itself is.
    """
    if mark := _mark(record):
        raise LineError(f"label is marked {mark}")
    marks: list[str] = []
    kept = dict(record)
    for key, value in record.items():
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            found = [_mark(item) if isinstance(item, dict) else "" for item in value]
            marks += filter(None, found)
            kept[key] = [item for item, mark in zip(value, found, strict=True) if not mark]
    return (kept, marks) if marks else (record, marks)


def _mark(record: Mapping[str, Any]) -> str:
    return next((k for k, v in record.items() if v is True and heading(k) in WITHDRAWN), "")


def _id(record: Mapping[str, Any]) -> str:
    """Of one line a caption the ids are the captions', and any of them would name the medium."""
    if not any(heading(key) == "captions" for key in record):
        return ""
    levels = [record, *(value for value in record.values() if isinstance(value, dict))]
    for name in ("data_id", "id", "annotation_id"):
        for level in levels:
            if said := next((text(v) for k, v in level.items() if heading(k) == name), ""):
                return said
    return ""


# -- levels ---------------------------------------------------------------------------------------


def _depth(path: str) -> int:
    """1: the record's own level; what lies in a list of captions lies where the list does."""
    parts = path.split(".")
    return 1 if is_caption(parts[0]) else len(parts)


def _one_of(leaves: Leaves, names: tuple[str, ...]) -> str:
    """The first of these keys, on the own level and then below, that holds one text."""
    for path, values in sorted(leaves.items(), key=lambda item: item[0].count(".")):
        if path.rpartition(".")[2] in names:
            said = [text(value) for value in values]
            if len(set(said)) == 1 and said[0]:
                return said[0]
    return ""


def _split(record: Mapping[str, Any], leaves: Leaves, keys: Keys) -> str:
    if keys.split:
        return split_name(next((said for v in lookup(record, keys.split) if (said := text(v))), ""))
    for name in SPLIT:
        said = _one_of(leaves, (name,))
        if heading(said) in SPLITS:
            return split_name(said)
    return ""


# -- the medium --------------------------------------------------------------------------------


def _chosen_media(record: Mapping[str, Any], leaves: Leaves, keys: Keys) -> str:
    if keys.media:
        return clean(_by_recipe(record, keys))
    found: dict[str, str] = {}
    reason = LineError(f"no medium under any of {', '.join(MEDIA[:5])}, …")
    for path, values in leaves.items():
        if path.rpartition(".")[2] in MEDIA and any(text(v) or _is_nested(v) for v in values):
            try:
                found[path] = _single(path, values)
            except LineError as error:
                reason = error
    order = sorted(found, key=lambda path: (path.count("."), MEDIA.index(path.rpartition(".")[2])))
    named = [path for path in order if is_medium(found[path])]
    level = [path for path in named if path.count(".") == named[0].count(".")] if named else []
    if len({clean(found[path]).rpartition("/")[2].lower() for path in level}) > 1:
        raise AmbiguousError(f"several keys may name the medium ({', '.join(level)}); choose one "
                             f'with media = "{level[0]}" in [source]')  # fmt: skip
    chosen = next(iter([*named, *order]), "")
    if not chosen:
        raise reason
    return clean(found[chosen])


def _single(path: str, values: list[Any]) -> str:
    filled = [value for value in values if text(value) or _is_nested(value)]
    if not filled:
        raise LineError(f"no medium under {path}")
    if len({str(value) for value in filled}) > 1:
        raise LineError(f"{path} names several media (one is read)")
    if not isinstance(filled[0], str | int | float) or isinstance(filled[0], bool):
        raise LineError(f"{path} is {type_of(filled[0])} where a path belongs")
    return text(filled[0])


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _by_recipe(record: Mapping[str, Any], keys: Keys) -> str:
    """The path under the recipe's key, or made of its template (`{video_id}.mp4`)."""
    media = keys.media
    template = media if "{" in media else "{" + media + "}"

    def fill(match: re.Match[str]) -> str:
        path = match.group(1)
        if path == "stem" and keys.stem:
            return keys.stem
        values = [value for value in lookup(record, path) if value is not None]
        if not values:
            raise LineError(f"no medium under {path}")
        return _single(path, values)

    return re.sub(r"\{([^{}]+)\}", fill, template)


# -- the captions ------------------------------------------------------------------------------


def is_caption(name: str) -> bool:
    """A key that may hold a caption; `caption_1` to `caption_5` are captions too."""
    stem, language = variant(name)
    if language:
        return True
    return _plain(stem) in CAPTIONS | WEAK


def _plain(name: str) -> str:
    """Without the number of `caption_1` and `sentence2`."""
    stem = name.rstrip("0123456789").rstrip("_")
    return stem if stem in {"caption", "sentence", "description", "text", "comment"} else name


def _chosen_captions(
    record: Mapping[str, Any], leaves: Leaves, keys: Keys, notes: list[str]
) -> tuple[list[str], str, Key]:
    """(captions, language that their key names or "", that key)."""
    if keys.caption:
        values = [value for path in keys.caption for value in lookup(record, path)]
        captions = _texts(", ".join(keys.caption), values, notes)
        languages = {variant(heading(path.rpartition(".")[2]))[1] for path in keys.caption}
        if not captions:
            raise NoCaptionError("no caption")
        return captions, languages.pop() if len(languages) == 1 else "", Key()
    groups: dict[str, dict[str, list[str]]] = {}
    written: dict[str, str] = {}
    reason: LineError = NoCaptionError("no caption")
    for path, values in leaves.items():
        if name := _candidate(path):
            family, language = name
            try:
                captions = _texts(path, values, notes)
            except LineError as error:
                reason = error
                if _depth(path) == 1 and family in CAPTIONS:
                    raise  # what stands beside it would be taken for the caption
                continue
            if captions:
                written.setdefault(family, path)
                groups.setdefault(family, {}).setdefault(language, []).extend(captions)
    if not groups:
        raise reason
    family = _one_group(groups, written)
    if PARTS & set(family.split(".")[:-1]):
        raise NoCaptionError(f"no caption ({written[family]} is about parts, or no annotator's)")
    is_usual = _depth(family) == 1 and bool(CAPTIONS & set(family.split(".")))
    key = Key() if is_usual else Key(family, written[family])
    return *_in_one_language(family, groups[family], keys, notes), key


def _candidate(path: str) -> tuple[str, str] | None:
    """(path without number and language, language) of a key that may hold captions."""
    before, dot, name = path.rpartition(".")
    if SIDE & set(before.split(".")):
        return None
    if name in CODES and before and is_caption(before.rpartition(".")[2]):
        return before, CODES[name]  # caption: {ko: …, en: …}
    if not is_caption(name):
        return None
    stem, language = variant(name)
    return f"{before}{dot}{_plain(stem)}", language


def _one_group(groups: Mapping[str, Mapping[str, list[str]]], written: Mapping[str, str]) -> str:
    """The key that is meant. `written`: the first path of each, with language and number.

    Raises:
        AmbiguousError: several may be.
    """
    texts = {path: {t for many in by.values() for t in many} for path, by in groups.items()}
    own = [path for path in groups if _depth(path) == 1]
    strong = [path for path in own if path.rpartition(".")[2] in CAPTIONS]
    level = own if len(own) == len(strong) and own else list(groups)
    widest = max(level, key=lambda path: len(texts[path]))
    if all(texts[path] <= texts[widest] for path in level):
        return widest  # one candidate, or others that only repeat it
    names = sorted(written[path] for path in level)
    raise AmbiguousError(
        f"several keys may hold the caption ({', '.join(names)}); choose with "
        f'caption = "{names[0]}" in [source]'
    )


def _in_one_language(
    family: str, languages: Mapping[str, list[str]], keys: Keys, notes: list[str]
) -> tuple[list[str], str]:
    if len(languages) == 1:
        language, captions = next(iter(languages.items()))
        return captions, language
    wanted = language_code(keys.language)
    if wanted not in languages:
        names = ", ".join(language or "none named" for language in languages)
        raise AmbiguousError(
            f"{family} comes in several languages ({names}); choose with "
            f'dataset = "{next(filter(None, languages))}" in [source]'
        )
    others = ", ".join(language or "no language" for language in languages if language != wanted)
    notes.append(f"labels have captions in {others} too, which were not read")
    return languages[wanted], wanted


def _texts(path: str, values: list[Any], notes: list[str]) -> list[str]:
    """Captions under one key, in one line each.

    Raises:
        LineError: one of them is no text.
    """
    captions = []
    for value in values:
        if isinstance(value, str):
            said = listed(value)
            if said is not None:
                notes.append(LISTED)
            captions += said if said is not None else [text(value)]
        elif value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124 - NaN
            continue
        elif isinstance(value, int | float) and not isinstance(value, bool):
            notes.append(f"values of {path} are numbers and were read as text")
            captions.append(text(value))
        else:
            raise LineError(f"{path} is {type_of(value)} where captions belong")
    _refuse_tokens(path, captions, notes)
    return [" ".join(said.split()) for said in captions if said.strip()]


def _refuse_tokens(path: str, captions: list[str], notes: list[str]) -> None:
    """Tell a list of tokens from a list of captions.

    Raises:
        LineError: single words and signs, which are tokens.
    """
    if len(captions) < LEAST_TOKENS or any(len(said.split()) > 1 for said in captions):
        return
    if any(said.strip() and not any(map(str.isalnum, said)) for said in captions):
        raise LineError(NO_TOKENS.format(path))
    notes.append(TOKENS)
