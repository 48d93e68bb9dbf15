"""Figures of a report, as SVG and as PNG at 200 dpi.

matplotlib takes a second to load and is an extra: only the process that writes a report imports
this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import matplotlib as mpl

from results.comparison.document_view import DocumentView
from results.report.figures import charts, costs, curves, drawing, intervals
from results.report.figures.drawing import FigureText

FigureBytes = dict[str, bytes]
"""A figure by its form, `svg` and `png`; empty: there is nothing to draw."""

FIGURES: Final[Mapping[str, Callable[[DocumentView, FigureText], FigureBytes]]] = {
    "intervals": intervals.draw_intervals,
    "costs": costs.draw_costs,
    "loss": lambda document, text: curves.draw_loss(document.suite, text),
    "validation": lambda document, text: curves.draw_validation(document.suite, text),
    "steps": lambda document, text: costs.draw_step_times(document.suite, text),
    "memory": lambda document, text: curves.draw_memory(document.suite, text),
    "data": lambda document, text: charts.draw_charts(document.suite, text),
}
"""Every figure by its name, in the order of a report: results before measurements."""


class DrawnFigures(NamedTuple):
    """Figures of a report by name; those without content are left out."""

    figures: dict[str, FigureBytes]
    lacks_font: bool = False
    """Korean was wanted, and this machine has no font for it: the words are English."""


def draw_figures(document: DocumentView, lang: str = "en") -> DrawnFigures:
    """All figures of a document, each as `svg` and `png`."""
    font = drawing.find_korean_font()
    text = FigureText("ko" if font and lang == "ko" else "en", bool(font))
    with mpl.rc_context(drawing.make_style(font)):
        drawn = {name: draw(document, text) for name, draw in FIGURES.items()}
    figures = {name: forms for name, forms in drawn.items() if forms}
    return DrawnFigures(figures, not font and (lang == "ko" or _names_hangul(document)))


def _names_hangul(document: DocumentView) -> bool:
    """Whether a name that figures show has Korean."""
    identities = [*(r.identity for r in document.suite.records), *document.suite.planned]
    names = (name for i in identities for name in (i.subset, i.label, i.model))
    return any(drawing.is_hangul(letter) for name in names for letter in name)
