"""From a caption to words, and the name of how: part of every score's name.

Korean glues particles to nouns, so words between blanks rarely agree; kiwipiepy (extra `captions`)
splits morphemes without Java. Where it is not installed Korean is split at blanks, and named so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

_WORD: Final = re.compile(r"\w+(?:['’]\w+)*")
_SIGN: Final = re.compile(r"\w")
UNSPACED: Final = frozenset({"zh", "ja", "th"})
"""Languages written without blanks: every letter is a word."""


class Tokenizer(NamedTuple):
    """A way to split captions, and its name in metrics."""

    name: str
    split: Callable[[str], list[str]]


@cache
def tokenizer(language: str) -> Tokenizer:
    """How captions of a language are split."""
    if language == "ko":
        if find_spec("kiwipiepy") is not None:
            return Tokenizer("kiwi morphemes", _kiwi())
        return Tokenizer("ko split at blanks", split_words)
    if language in UNSPACED:
        return Tokenizer(f"{language} letters", lambda text: _SIGN.findall(normal(text)))
    return Tokenizer(f"{language} words".strip(), split_words)


def normal(text: str) -> str:
    """Composed letters, lower case, single blanks: two ways to write one caption become one."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def split_words(text: str) -> list[str]:
    """Words without punctuation, as the PTB tokenizer of the COCO evaluation leaves them."""
    return _WORD.findall(normal(text))


def ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    """All n-grams in order; none of a text that is too short."""
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


def _kiwi() -> Callable[[str], list[str]]:
    """Morphemes without punctuation. Kiwi writes some endings as lone consonants: composed again
    by NFC, so that equal morphemes are equal strings."""
    from kiwipiepy import Kiwi

    kiwi: Any = Kiwi(num_workers=1)

    def split(text: str) -> list[str]:
        found = kiwi.tokenize(normal(text))
        forms = (unicodedata.normalize("NFC", token.form) for token in found)
        return [form for form in forms if _SIGN.search(form)]

    return split
