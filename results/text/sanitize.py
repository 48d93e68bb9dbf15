"""Sanitizing of untrusted text before it reaches a terminal, Markdown or CSV.

Everything from engines, data, models, file names and logs passes through `clean`. Escape sequences
would otherwise control the terminal (clipboard writes, title changes, status queries: CWE-150); no
widget strips them.

`degrade_characters` is for terminals without UTF-8: what they cannot write becomes the nearest
plain character, never an exception.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import re
import unicodedata
from typing import IO, Any, Final

_FORBIDDEN: Final = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f"  # C0 but tab and newline; ESC, BEL, CR among them
    "\x80-\x9f"  # C1
    "\u2028\u2029"  # line and paragraph separators
    "\u200e\u200f\u202a-\u202e\u2066-\u2069\u061c"  # bidirectional controls
    "\ud800-\udfff"  # lone surrogates, which no terminal encoding can write
    "\ufeff\U000e0000-\U000e007f"  # byte-order mark and invisible tags
    "]"
)
_BREAKS: Final = re.compile(r"[\n\t]+")

_FORMULA: Final = re.compile(r"[\s;\"',]*[=+\-@＝＋－＠]|[\t\r]")
"""Also behind a separator of other locales, and the wide signs that East Asian ones accept."""

_SIGNED_NUMBER: Final = re.compile(r"[+-]\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?: ?%)?")
"""`-0.5`, `+1.67`, `-16.7 %`: a spreadsheet reads a number, no formula."""

PLAIN: Final = str.maketrans(
    {
        "·": "-", "–": "-", "—": "-", "…": "...", "→": "->", "←": "<-", "↑": "^", "↓": "v",
        "×": "x", "±": "+/-", "≤": "<=", "≥": ">=", "µ": "u", "Δ": "d", "●": "*", "○": "o",
        "✓": "+", "✗": "x", "▸": ">", "▾": "v", "“": '"', "”": '"', "‘": "'", "’": "'",
        **dict.fromkeys("─━═╌╍┄┅┈┉╴╶╸╺", "-"), **dict.fromkeys("│┃║╎╏┆┇┊┋▏▕▎", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼┏┓┗┛┣┫┳┻╋╭╮╯╰╔╗╚╝╠╣╦╩╬╞╡╪", "+"),
        **dict.fromkeys("▁▂▃▄▅▆▇█▀▐▌▒▓", "#"), "░": ".",
    }
)  # fmt: skip
"""ASCII replacements for the characters of our tables, charts and sentences."""

CELL_PLAIN: Final = {"…": "~", "→": ">", "←": "<", "±": "~", "≤": "<", "≥": ">"}
"""Replacements of one cell for those of `PLAIN` that are longer."""

DEGRADE: Final = "workbench-degrade"
"""Name of the error handler that `make_writable` gives to streams."""


def clean(text: str) -> str:
    """The text with every control character made visible; tabs and newlines stay."""
    return _FORBIDDEN.sub(_make_visible, text)


def clean_line(text: str, limit: int = 500) -> str:
    """`clean` on one line of at most `limit` characters."""
    line = _BREAKS.sub(" ", clean(text[: limit * 4])).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def starts_formula(text: str) -> bool:
    """Whether a spreadsheet could take the text of a CSV cell for a formula (CWE-1236)."""
    return bool(_FORMULA.match(text)) and not _SIGNED_NUMBER.fullmatch(text)


def escape_json(text: str) -> str:
    """A line of JSON with control characters as escapes; it parses to the same value."""
    return _FORBIDDEN.sub(_escape_character, text)


def dump_json(value: Any) -> str:
    """A line of JSON; NaN and infinity, which JSON has not, are null."""
    return escape_json(json.dumps(_replace_non_finite(value), ensure_ascii=False))


def _replace_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_non_finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_non_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def degrade_characters(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: the nearest plain characters, `?` where there is none."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end].translate(PLAIN)
    return "".join(c if c.isascii() else "?" for c in bad), error.end


def degrade_cell(character: str) -> str:
    """Plain characters of the same width, so that columns of a screen stay in line."""
    plain = CELL_PLAIN.get(character) or character.translate(PLAIN)[:1]
    if plain.isascii():
        return plain
    return "??" if unicodedata.east_asian_width(character) in "WF" else "?"


def make_writable(*streams: IO[str] | None) -> None:
    """Let nothing that is printed fail for the encoding of its terminal (`LANG=C`, latin-1)."""
    codecs.register_error(DEGRADE, degrade_characters)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=DEGRADE)


def _escape_character(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


def _make_visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
