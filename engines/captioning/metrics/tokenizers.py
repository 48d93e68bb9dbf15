"""Tokenizers of captions by language; their names are part of the names of scores.

Korean attaches particles to nouns, so words between blanks rarely match; kiwipiepy (extra
`captions`) splits morphemes. Where it is not installed, Korean is split at blanks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

_WORD: Final = re.compile(r"\w+(?:['’]\w+)*")
_LETTER: Final = re.compile(r"\w")
UNSPACED: Final = frozenset({"zh", "ja", "th"})
"""Languages written without blanks: every letter is a token."""
KOREAN_BLANKS: Final = "ko split at blanks"


class Tokenizer(NamedTuple):
    """A function that splits captions, and its name in metrics."""

    name: str
    split: Callable[[str], list[str]]


def get_tokenizers(language: str) -> list[Tokenizer]:
    """All rules that captions of a language are scored by, the best one first.

    Korean by morphemes and, as published scores often are, by blanks; others by one rule.
    """
    tokenizers = [get_tokenizer(language)]
    if language == "ko" and tokenizers[0].name != KOREAN_BLANKS:
        tokenizers.append(Tokenizer(KOREAN_BLANKS, split_words))
    return tokenizers


@cache
def get_tokenizer(language: str) -> Tokenizer:
    """The tokenizer of a language."""
    if language == "ko":
        if find_spec("kiwipiepy") is not None:
            return Tokenizer("kiwi morphemes", _kiwi_splitter())
        return Tokenizer(KOREAN_BLANKS, split_words)
    if language in UNSPACED:
        return Tokenizer(f"{language} letters", lambda text: _LETTER.findall(normalize_text(text)))
    return Tokenizer(f"{language} words".strip(), split_words)


def normalize_text(text: str) -> str:
    """Normalize a caption: composed letters (NFC), lower case, single blanks."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def split_words(text: str) -> list[str]:
    """Words without punctuation, as from the PTB tokenizer of the COCO evaluation."""
    return _WORD.findall(normalize_text(text))


def ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    """All n-grams in order; none of a text that is too short."""
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def _kiwi_splitter() -> Callable[[str], list[str]]:
    """Splits into morphemes without punctuation.

    Kiwi writes some endings as lone consonants; NFC composes them, so that equal morphemes are
    equal strings.
    """
    from kiwipiepy import Kiwi

    kiwi: Any = Kiwi(num_workers=1)

    def split(text: str) -> list[str]:
        tokens = kiwi.tokenize(normalize_text(text))
        forms = (unicodedata.normalize("NFC", token.form) for token in tokens)
        return [form for form in forms if _LETTER.search(form)]

    return split
