"""Decoding of text files: stated encoding, byte-order mark, strict UTF-8, or a tested guess.

Every byte pair is a letter in some encoding, so decoding without an error proves nothing: an
apostrophe of Windows-1252 and the letter after it are a rare Korean syllable in CP949. A guess is
used only if its text is plausible and that of no other guess is; otherwise EncodingError is raised,
and the recipe's `encoding` decides.
"""

from __future__ import annotations

import codecs
import re
from itertools import pairwise
from typing import Final, Literal

Encoding = Literal[
    "", "utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp949", "euc-kr", "cp1252", "latin-1",
    "shift_jis", "cp932", "euc-jp", "gb18030", "big5", "cp1250", "cp1251", "mac-roman",
]  # fmt: skip
"""What a recipe may state; "": found out."""

BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
TITLES: Final = {
    "cp949": "CP949", "cp1252": "Windows-1252", "cp932": "Shift-JIS", "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
}  # fmt: skip
"""Encoding -> its usual name."""
SAMPLE: Final = 1 << 20
"""Characters of a text that are judged."""

COMMON_SYLLABLES: Final = frozenset(
    "이다는에의을를가고하은지기로사도한나어아자시리대서인정스그있해과일수게면만들라전부보"
    "여주구상요오제생무장원안동성조것었소적위마거우모계물세내미신저치니으와비분공국유경트연선"
)
"""The commonest in Korean prose; of text in another encoding hardly one in twenty is among them."""
PUNCTUATION: Final = frozenset("’‘“”„‚–—…•™€£§©®°·«»¿¡½¼¾²³´\u00a0×")
"""Signs outside ASCII that Western spreadsheets write."""
ALONE: Final = frozenset("™€£§©®°·½¼¾²³´×")
"""Signs among PUNCTUATION that occur alone."""


class EncodingError(ValueError):
    """The text cannot be read; one clause with the reason."""


def decode(data: bytes, stated: str = "") -> tuple[str, str]:
    """(text without its mark, title of a guessed encoding or "").

    Raises:
        EncodingError: the stated encoding does not fit, or none or several do.
    """
    for byte_order_mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(byte_order_mark):
            return _decode_strictly(data, encoding).removeprefix("\ufeff"), ""
    if stated:
        return _decode_strictly(data, stated), ""
    if guess := _detect_utf16(data):
        return _decode_strictly(data, guess), TITLES[guess]
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError as error:
        return _guess_encoding(data, error.start)


def _decode_strictly(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise EncodingError(
            f"is not in {encoding} (byte {error.start}: {error.reason}); save it as UTF-8"
        ) from None


def _detect_utf16(data: bytes) -> str:
    """UTF-16 without a mark: every second byte of Western text is zero, and no text has zeros."""
    head = data[: SAMPLE & ~1]
    if len(data) % 2 or not head:
        return ""
    for encoding, high in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        low = head[::2] if encoding == "utf-16-le" else head[1::2]
        if high.count(0) > 0.3 * len(high) and low.count(0) < 0.02 * len(low) + 1:
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            if "\0" not in text:
                return encoding
    return ""


def _guess_encoding(data: bytes, start: int) -> tuple[str, str]:
    text_of_encoding = {}
    for encoding, is_plausible in PLAUSIBILITY_TESTS.items():
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if is_plausible(text[:SAMPLE]):
            text_of_encoding[encoding] = text
    if len(text_of_encoding) == 1:
        encoding, text = text_of_encoding.popitem()
        return text, TITLES[encoding]
    if text_of_encoding:
        names = " or ".join(TITLES[encoding] for encoding in text_of_encoding)
        raise EncodingError(f"may be in {names}; state `encoding` in the recipe's [source]")
    raise EncodingError(
        f"is neither UTF-8 nor CP949 nor Windows-1252, as far as its text is plausible (byte "
        f"{start}); save it as UTF-8, or state `encoding` in the recipe's [source]"
    )


# -- is a text plausible? ----------------------------------------------------------------------

FOREIGN: Final = re.compile(r"[^\x00-\x7f]+")
SYLLABLE: Final = re.compile("[가-힣]")


def is_korean(text: str) -> bool:
    """Text of CP949: syllables of EUC-KR's 2,350, few Chinese characters, common syllables.

    The other 8,822 syllables of CP949 occupy the bytes that Western letters and Shift-JIS have.
    """
    foreign = "".join(FOREIGN.findall(text))
    syllables = SYLLABLE.findall(foreign)
    letters = [sign for sign in foreign if sign.isalpha()]
    if not syllables or len(syllables) < 0.5 * len(letters):
        return False
    rare = sum(not _is_plain_syllable(sign) for sign in syllables)
    if rare > max(0.05 * len(syllables), int(len(syllables) >= 8)):
        return False
    common = sum(sign in COMMON_SYLLABLES for sign in syllables)
    return len(syllables) < 12 or common >= 0.2 * len(syllables)


def _is_plain_syllable(sign: str) -> bool:
    try:
        return len(sign.encode("euc-kr")) == 2
    except UnicodeEncodeError:
        return False


def is_western(text: str) -> bool:
    """Text of Windows-1252: signs of punctuation, and accented letters as words have them."""
    implausible = total = 0
    for run in FOREIGN.finditer(text):
        total += 1
        before, after = text[: run.start()][-1:], text[run.end() :][:1]
        implausible += not _is_western_run(run.group(), before, after)
    return implausible <= 0.02 * total


def _is_western_run(run: str, before: str, after: str) -> bool:
    if len(run) > 3 or (len(run) > 1 and any(sign in ALONE for sign in run)):
        return False
    if len(run) > 1 and (run[0] in "¿¡" and run[1].islower()):
        return False
    if any((sign.isupper() or sign == "»") and other.isalpha() for sign, other in pairwise(run)):
        return False
    signs = [before, *run, after]
    return all(_is_western_sign(*signs[index : index + 3]) for index in range(len(run)))


def _is_western_sign(before: str, sign: str, after: str) -> bool:
    """Accented capitals do not follow small letters; within words there is no sign but ’ · – —."""
    inside = before.isalpha() and after.isalpha()
    if sign in PUNCTUATION:
        return not inside or sign in "’´·–—…" or not (before.isascii() and after.isascii())
    if not sign.isalpha() or sign in "ªºµÐðÞþ":
        return sign in "ªº" and before.isdigit()
    if sign.isupper():
        return not (before.isalpha() and before.islower())
    return True


def is_japanese(text: str) -> bool:
    """Text of Shift-JIS: kana of full width among its letters, hardly any of half width."""
    foreign = "".join(FOREIGN.findall(text))
    kana = sum("\u3041" <= sign <= "\u30fe" for sign in foreign)
    half = sum("\uff61" <= sign <= "\uff9f" for sign in foreign)
    letters = sum(sign.isalpha() for sign in foreign)
    return bool(letters) and kana >= 0.25 * letters and half <= 0.05 * letters


PLAUSIBILITY_TESTS: Final = {"cp949": is_korean, "cp1252": is_western, "cp932": is_japanese}
