"""What subsets hold, as bars."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from results.records import message_translations
from results.records.suite_view import SubsetChart, SuiteView
from results.report.figures import drawing
from results.report.figures.drawing import FigureText


def draw_charts(view: SuiteView, text: FigureText) -> dict[str, bytes]:
    """One panel of bars per chart, with the share of each bar.

    A row of panels is a subset where all have as many.
    """
    charts = [chart for chart in view.charts if any(n for _, n in chart.bars)]
    charts_shown = charts[: drawing.MAX_PANELS]
    if not charts_shown:
        return {}
    across = _choose_columns(charts_shown)
    tallest = max(len(chart.bars) for chart in charts_shown)
    size = (3.7, 1.1 + 0.17 * tallest)
    figure, axes = drawing.make_panels(len(charts_shown), size, across=across)
    for axis, chart in zip(axes, charts_shown, strict=True):
        _draw_bars(axis, chart, text)
    drawing.note_rest(figure, len(charts_shown), len(charts), text)
    return drawing.encode_figure(figure)


def _choose_columns(charts: Sequence[SubsetChart]) -> int:
    counts = set(Counter(chart.subset for chart in charts).values())
    return counts.pop() if counts in ({2}, {3}) else min(3, math.ceil(len(charts)))


def _draw_bars(axis: Any, chart: SubsetChart, text: FigureText) -> None:
    def localize(words: str) -> str:
        return text.clip(message_translations.localize(words, text.lang))

    labels, counts = zip(*chart.bars, strict=True)
    positions, total = range(len(labels)), sum(counts)
    axis.barh(positions, counts, color=drawing.ACCENT, height=0.7)
    axis.set_yticks(positions, [localize(label) for label in labels])
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_xlim(0, max(counts) * 1.25)
    axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axis.set_title(f"{text.clip(chart.subset)}\n{localize(chart.title)}", color=drawing.INK)
    for position, count in zip(positions, counts, strict=True):
        axis.annotate(
            f"{100 * count / total:.1f} %", (count, position), xytext=(3, 0), va="center",
            textcoords="offset points", color=drawing.QUIET, fontsize=7,
        )  # fmt: skip
