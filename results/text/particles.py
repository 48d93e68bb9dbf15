"""Particles of Korean (와/과, 은/는, 이/가, 을/를, 으로/로), chosen by the word before them.

Templates hold both forms, as `{}와(과)`: the word is known only when the template is filled in.
"""

from __future__ import annotations

import re
from typing import Final

PARTICLES: Final = {
    "은(는)": ("은", "는"), "이(가)": ("이", "가"), "을(를)": ("을", "를"), "와(과)": ("과", "와"),
    "과(와)": ("과", "와"), "(으)로": ("으로", "로"),
}  # fmt: skip
"""Both forms as templates hold them -> the form after a final consonant, the form after a vowel."""
_BOTH: Final = re.compile("|".join(map(re.escape, PARTICLES)))
_CLOSING: Final = " `'\"*_/\\.,:;…’”」』"
"""What may stand between a word and its particle and is not read."""
_BRACKETS: Final = re.compile(r"\s*(?:\([^()]*\)|\[[^\[\]]*\])$")
_LATIN: Final = re.compile(r"[A-Za-z]+$")
_VOWELS: Final = frozenset("aeiouy")
_LETTERS: Final = {"l": "ㄹ", "m": "ㅁ", "n": "ㄴ", "r": "ㄹ"}
"""Letters whose names end in a consonant: 엘, 엠, 엔, 알."""
_DIGITS: Final = {"0": "ㅇ", "1": "ㄹ", "3": "ㅁ", "6": "ㄱ", "7": "ㄹ", "8": "ㄹ"}
"""Digits whose names end in a consonant; so do tens, hundreds and thousands."""
_ENDINGS: Final = (
    (re.compile(r"(?:l|[^aeiouy]le|[aeiouy]{1,2}le)$"), "ㄹ"),
    (re.compile(r"(?:m|[aeiou]me)$"), "ㅁ"),
    (re.compile(r"(?:n|[aeiou]ne)$"), "ㄴ"),
    (re.compile(r"[aeiou]ng$"), "ㅇ"),
    (re.compile(r"(?:epoch|(?:^|[^aeiouy])[aeiou](?:[pkct]|ck))$"), "ㄱ"),
)
"""How English words end that keep a final consonant in Korean: label, name, line, string, set."""


class KoreanTemplate(str):
    """A template of Korean text; `format` chooses the particles after what it fills in."""

    __slots__ = ()

    def format(self, *args: object, **kwargs: object) -> str:
        """The filled-in text."""
        return choose_particles(str.format(self, *args, **kwargs))


def choose_particles(text: str) -> str:
    """The text with one form of each particle; both forms stay where no word stands before."""
    return _BOTH.sub(lambda match: _choose(match[0], text[: match.start()]), text)


def _choose(both: str, before: str) -> str:
    final = final_consonant(before)
    if final is None:
        return both
    after_consonant, after_vowel = PARTICLES[both]
    is_vowel = not final or (both == "(으)로" and final == "ㄹ")
    return after_vowel if is_vowel else after_consonant


def final_consonant(text: str) -> str | None:
    """Final consonant of a text as it is read, a stand-in where only its presence counts.

    Empty: it ends in a vowel; None: it ends in nothing that is read. Closing marks and a bracket at
    the end are not read. English words are read by their spelling, words without a vowel and those
    in capitals letter by letter.
    """
    word = text.rstrip(_CLOSING)
    while (bracket := _BRACKETS.search(word)) and bracket.start():
        word = word[: bracket.start()].rstrip(_CLOSING)
    last = word[-1:]
    if "가" <= last <= "힣":
        index = (ord(last) - ord("가")) % 28
        return "ㄹ" if index == 8 else "ㄱ" if index else ""
    if last.isdecimal() and last.isascii():
        return _DIGITS.get(last, "")
    if last == "%":
        return ""
    match = _LATIN.search(word)
    return _final_of_latin(match[0]) if match else None


def _final_of_latin(word: str) -> str:
    """As `final_consonant`, of Latin letters."""
    if word.isupper() or not _VOWELS & {*word.lower()}:
        return _LETTERS.get(word[-1].lower(), "")
    lower = word.lower()
    return next((final for ending, final in _ENDINGS if ending.search(lower)), "")
