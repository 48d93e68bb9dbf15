"""The one boundary where foreign text becomes printable.

Whatever comes from engines, data, models, file names or logs passes through `clean` before it
reaches a terminal, Markdown or CSV. Escape sequences would otherwise drive the terminal
(clipboard writes, title changes, status queries: CWE-150); no widget strips them.
"""

from __future__ import annotations

import re
from typing import Final

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


def clean(text: str) -> str:
    """The text with every control character made visible; tabs and newlines stay."""
    return _FORBIDDEN.sub(_visible, text)


def clean_line(text: str, limit: int = 500) -> str:
    """`clean` on one line of at most `limit` characters."""
    line = _BREAKS.sub(" ", clean(text[: limit * 4])).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
