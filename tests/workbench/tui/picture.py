"""Screenshots that look the same wherever they are shown.

Fonts differ in which braille they have, and pages may not load web fonts. So dots of charts are
drawn as circles, the font is whatever is monospace there, and every run of text has its width.
"""

from __future__ import annotations

import re
from html import escape, unescape

_TEXT = re.compile(
    r'<text class="(?P<style>[^"]+)" x="(?P<x>[\d.]+)" y="(?P<y>[\d.]+)" '
    r'textLength="(?P<length>[\d.]+)"(?P<clip>[^>]*)>(?P<text>[^<]*)</text>'
)
_FONT_FACE = re.compile(r"@font-face\s*\{[^}]*\}\s*")
DOTS = ((0x01, 0, 0), (0x02, 0, 1), (0x04, 0, 2), (0x40, 0, 3),
        (0x08, 1, 0), (0x10, 1, 1), (0x20, 1, 2), (0x80, 1, 3))  # fmt: skip
LINE = 24.4
"""Height of a line in the SVG that Rich writes, and below the width of a cell."""
CELL = 12.2
BASELINE = 20.0
"""From the top of a line to its baseline, roughly."""


def portable(svg: str) -> str:
    """An exported screenshot without web fonts and without braille."""
    svg = _FONT_FACE.sub("", svg)
    svg = svg.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")
    return _TEXT.sub(_drawn, svg)


def _drawn(match: re.Match[str]) -> str:
    text = unescape(match["text"])
    if not any(0x2800 < ord(c) < 0x2900 for c in text):
        return match[0].replace("textLength=", 'lengthAdjust="spacingAndGlyphs" textLength=')
    x, y = float(match["x"]), float(match["y"]) - BASELINE
    dots = []
    for number, character in enumerate(text):
        code = ord(character) - 0x2800 if 0x2800 <= ord(character) < 0x2900 else 0
        for bit, column, row in DOTS:
            if code & bit:
                cx = x + number * CELL + CELL * (0.28 + 0.48 * column)
                cy = y + LINE * (row + 0.65) / 4
                dots.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="1.9"/>')
        if not code and not character.isspace():
            dots.append(_write_character(match, character, x + number * CELL))
    return f'<g class="{match["style"]}">{"".join(dots)}</g>'


def _write_character(match: re.Match[str], character: str, x: float) -> str:
    return f'<text x="{x:.1f}" y="{match["y"]}"{match["clip"]}>{escape(character)}</text>'
