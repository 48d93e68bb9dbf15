"""Languages and splits as label files write them, under one name each."""

from __future__ import annotations

import re
from typing import Final

from datasets_mm.adapters.m2kr_fields import normalize_name

LANGUAGES: Final[dict[str, tuple[str, ...]]] = {
    "ko": ("ko", "kr", "kor", "korean", "ko_kr", "ko-kr", "한국어", "한글", "국문"),
    "en": ("en", "eng", "english", "en_us", "en-us", "en_gb", "en-gb", "영어", "영문"),
    "zh": ("zh", "ch", "cn", "chi", "zho", "chinese", "zh_cn", "zh-cn", "중국어"),
    "ja": ("ja", "jp", "jpn", "japanese", "일본어"),
    "de": ("de", "ger", "deu", "german"),
    "fr": ("fr", "fre", "fra", "french"),
    "es": ("es", "spa", "spanish"),
    "it": ("it", "ita", "italian"),
    "pt": ("pt", "por", "portuguese"),
    "ru": ("ru", "rus", "russian"),
    "vi": ("vi", "vie", "vietnamese"),
}
"""ISO 639-1 code -> spellings in data. Korean data use `kr`, VATEX uses `ch`."""
CODES: Final = {name: code for code, names in LANGUAGES.items() for name in names}
STEM: Final = r"captions?|sentences?|descriptions?|desc|texts?"
_NAMES: Final = "|".join(sorted(map(re.escape, CODES), key=len, reverse=True))
VARIANT: Final = re.compile(
    rf"(?P<stem>{STEM}|caps?)[_-](?P<last>{_NAMES})|(?P<first>{_NAMES})[_-](?P<stem2>{STEM}|caps?)"
    rf"|(?P<joined>{_NAMES})(?P<stem3>caps?)"
)

SPLITS: Final = {
    "train": "train", "training": "train", "restval": "restval", "trainval": "trainval",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "minival": "minival",
    "test": "test", "testing": "test", "testa": "testa", "testb": "testb", "eval": "eval",
    "evaluation": "eval", "holdout": "holdout",
}  # fmt: skip
"""Spelling of a split -> its name. Karpathy's `restval` is a part of its own."""


def language_code(name: str) -> str:
    """ISO 639-1 code of a language name; unknown names are returned unchanged."""
    return CODES.get(name.strip().lower(), name)


def split_language(key: str) -> tuple[str, str]:
    """(stem, language) of a key such as `caption_kr`, `en_caption`, `enCap`; language "": none."""
    match = VARIANT.fullmatch(key)
    if match is None:
        return key, ""
    parts = match.groupdict()
    name = parts["last"] or parts["first"] or parts["joined"]
    stem = parts["stem"] or parts["stem2"] or parts["stem3"]
    return stem, CODES[name]


def split_name(text: str) -> str:
    """Canonical name of a split; unknown names are returned unchanged."""
    return SPLITS.get(normalize_name(text), text)
