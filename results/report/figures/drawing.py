"""Style, fonts and encoding of figures.

Nothing is written to disk, and the same view gives the same bytes: no dates, a fixed salt for ids,
and fonts drawn as paths. DejaVu Sans comes first; Hangul is drawn where the machine has a font
for it, else axes are named in English.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from results.text.translations import translate

ACCENT: Final = "#2f6fde"
INK: Final = "#2b2f36"
QUIET: Final = "#6b7280"
FAINT: Final = "#c3c8d0"
PALETTE: Final = (ACCENT, "#d55e00", "#009e73", "#aa4499", "#b8860b", "#4aa8d8")
"""Colours that colour-blind readers can tell apart (Okabe and Ito's, darker)."""
DASHES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
"""A second sign of a line beside its colour, for prints in grey."""

DPI: Final = 200
MAX_PANELS: Final = 24
"""Number of panels that are drawn at most."""
MAX_TITLE: Final = 44
"""Characters that fit above a panel."""

STYLE: Final[Mapping[Any, Any]] = {
    "svg.hashsalt": "workbench",
    "svg.fonttype": "path",
    "font.size": 8.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": QUIET,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e7e9ee",
    "grid.linewidth": 0.6,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "lines.linewidth": 1.3,
    "lines.solid_joinstyle": "round",
}

KOREAN_FONTS: Final = (
    "Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo",
    "UnDotum",
)  # fmt: skip
HANGUL_FONT_PACKAGE: Final = "fonts-nanum"
"""Of Debian and Ubuntu, Colab among them."""


class FigureText(NamedTuple):
    """Words of a figure: its language, and whether Hangul can be drawn."""

    lang: str = "en"
    hangul: bool = False

    def word(self, key: str) -> str:
        """Of `[figure]`."""
        return translate(f"figure.{key}", self.lang)

    def clip(self, text: str, length: int = MAX_TITLE) -> str:
        """Text limited to letters that the fonts have, and to a length."""
        drawable = "".join(c if self.can_draw(c) else "?" for c in text)
        return drawable if len(drawable) <= length else f"{drawable[: length - 1]}…"

    def can_draw_all(self, text: str) -> bool:
        """Whether the fonts have every letter of a text."""
        return all(map(self.can_draw, text))

    def can_draw(self, letter: str) -> bool:
        """Latin, Greek, Cyrillic, the marks of sentences; Hangul where there is a font."""
        return letter.isprintable() and (
            letter < "\u0500" or letter in "–—…·×±→" or (self.hangul and is_hangul(letter))
        )


def is_hangul(letter: str) -> bool:
    """Whether it is a syllable or a letter of Korean."""
    return "\uac00" <= letter <= "\ud7a3" or "\u3131" <= letter <= "\u318e"


def find_korean_font() -> str:
    """The first font of this machine that has Korean; empty: none."""
    names = {font.name for font in fontManager.ttflist}
    return next((name for name in KOREAN_FONTS if name in names), "")


def make_style(font: str) -> dict[Any, Any]:
    """Settings of matplotlib. `font`: of `find_korean_font`."""
    return {**STYLE, "font.family": ["DejaVu Sans", *([font] if font else [])]}


def make_panels(
    count: int,
    size: tuple[float, float] = (3.5, 2.5),
    *,
    across: int = 3,
    ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Any]]:
    """A figure of `count` axes, at most `across` beside each other.

    `size`: inches of one. `ratios`: widths of the columns; None: all alike.
    """
    columns = 2 if count == 4 and not ratios else min(across, count)
    rows = math.ceil(count / columns)
    width, height = (6.4, size[1] * 1.3) if count == 1 else (size[0] * columns, size[1] * rows)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False, width_ratios=ratios).flatten())
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def note_rest(figure: Figure, shown: int, total: int, text: FigureText) -> None:
    """Say below a figure how many panels were left out."""
    if total > shown:
        figure.supxlabel(text.word("first").format(shown, total), color=QUIET, fontsize=8)


def encode_figure(figure: Figure) -> dict[str, bytes]:
    """The figure as `svg` and `png`."""
    encoded = {}
    for kind, metadata in (
        ("svg", {"Date": None, "Creator": None}),
        ("png", {"Software": None}),
    ):
        out = io.BytesIO()
        figure.savefig(out, format=kind, dpi=DPI, metadata=metadata, facecolor="white")
        encoded[kind] = out.getvalue()
    return encoded


def finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points without NaN and infinity."""
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
