"""Selects the keys of a label that hold its captions.

The recipe chooses the keys, or one key is the only candidate. Several candidates raise an error
that lists them: the description of a data set, of an object or in another language looks like a
caption, and would train and score like one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from datasets_mm.adapters.languages import CODES, language_code, split_language
from datasets_mm.adapters.m2kr_fields import (
    LineError,
    normalize_name,
    parse_text_list,
    scalar_text,
    type_of,
)
from datasets_mm.adapters.nested_values import Leaves, lookup
from datasets_mm.sources.fingerprint import SourceError

CAPTIONS: Final = frozenset({
    "caption", "captions", "caption_str", "sentence", "sentences", "cap", "caps", "캡션", "문장",
})  # fmt: skip
WEAK: Final = frozenset({
    "description", "descriptions", "desc", "answer", "answers", "text", "texts", "raw", "comment",
    "설명",
})  # fmt: skip
"""Called so for other things too: on the record's own level they yield to nothing, and refuse."""
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

    def by_language(self) -> list[Self]:
        """The keys once for each language that the names of its caption keys state."""
        groups: dict[str, list[str]] = {}
        for path in self.caption:
            groups.setdefault(key_language(path), []).append(path)
        if len(groups) < 2:
            return [self]
        return [replace(self, caption=tuple(paths)) for paths in groups.values()]


@dataclass(frozen=True)
class CaptionKey:
    """Where captions were. "": under the recipe's key, or a usual one on the own level."""

    family: str = ""
    """Its path without number and language."""
    path: str = ""


class AmbiguousError(SourceError):
    """Several keys are candidates; the recipe has to name one."""


class NoCaptionError(LineError):
    """The object has no caption of its medium."""


def key_language(path: str) -> str:
    """Language that a dotted key states: `description_kr` and `caption.korean`; "": none."""
    before, _, name = path.rpartition(".")
    name = normalize_name(name)
    if name in CODES and is_caption(normalize_name(before.rpartition(".")[2])):
        return CODES[name]
    return split_language(name)[1]


def _depth(path: str) -> int:
    """Level of a path, 1 for the record's own; keys inside a list of captions count as the list."""
    parts = path.split(".")
    return 1 if is_caption(parts[0]) else len(parts)


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


def find_captions(
    record: Mapping[str, Any], leaves: Leaves, keys: RecipeKeys, notes: list[str]
) -> tuple[list[str], str, CaptionKey]:
    """(captions, language that their key names or "", that key)."""
    if keys.caption:
        values = [value for path in keys.caption for value in lookup(record, path)]
        captions = _read_captions(", ".join(keys.caption), values, notes)
        languages = set(map(key_language, keys.caption))
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
    return [" ".join(caption.split()) for caption in captions if caption.strip()]


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
