"""Figures of a report: training loss and memory, one small panel a run.

Apart because matplotlib takes a second to load and is an extra. Nothing here touches the disk, and
the same view gives the same bytes: no dates, a fixed salt for ids, and the font that matplotlib
brings, drawn as paths. That font has no Korean: axes are named in Korean where the machine has a
Korean font, else in English, and the caption below the figure says in Korean what they are.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator

from results.records.schema import RunRecord
from results.records.suite_view import Chart, SuiteView
from results.tables import message_translations, run_cells
from results.text import formats
from results.text.translations import say

ACCENT: Final = "#2f6fde"
INK: Final = "#2b2f36"
QUIET: Final = "#6b7280"
FAINT: Final = "#c3c8d0"

PANELS: Final = 24
"""More runs than this are not drawn: nobody reads the twenty-fifth panel."""

_STYLE: Final[Mapping[Any, Any]] = {
    "svg.hashsalt": "workbench",
    "svg.fonttype": "path",
    "font.family": ["DejaVu Sans"],
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
    "grid.color": "#e7e9ee",
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "lines.linewidth": 1.3,
    "lines.solid_joinstyle": "round",
}

KOREAN_FONTS: Final = (
    "NanumGothic", "Noto Sans CJK KR", "Noto Sans KR", "Malgun Gothic", "Apple SD Gothic Neo",
    "UnDotum",
)  # fmt: skip

TITLE: Final = 44
"""Characters that fit above a panel."""

Points = Sequence[tuple[float, float]]
Line = tuple[str, Points, str]
"""Label, points, colour."""
Panel = tuple[list[Line], str]
"""Lines, and the flags of their run."""


def draw(view: SuiteView, lang: str = "en") -> dict[str, dict[str, bytes]]:
    """`loss`, `memory` and `data`, each as `svg` and `png`; one without a panel is left out."""
    font = korean_font() if lang == "ko" else ""
    style = {**_STYLE, "font.family": [*_STYLE["font.family"], *([font] if font else [])]}
    spoken = "ko" if font else "en"
    panels = (("loss", _losses(view)), ("memory", _memories(view)))
    with mpl.rc_context(style):
        found = {name: drawn for name, some in panels if (drawn := _figure(name, some, spoken))}
        return found | ({"data": drawn} if (drawn := _charts(view.charts, spoken)) else {})


def _charts(charts: Sequence[Chart], lang: str) -> dict[str, bytes]:
    """What subsets hold: one panel of bars a chart, with the share of each bar.

    A row of panels is a subset where all have as many.
    """
    shown = [chart for chart in charts if any(n for _, n in chart.bars)][:PANELS]
    if not shown:
        return {}
    each = set(Counter(chart.subset for chart in shown).values())
    across = each.pop() if each in ({2}, {3}) else min(3, len(shown))
    down = math.ceil(len(shown) / across)
    tallest = max(len(chart.bars) for chart in shown)
    figure = Figure(figsize=(3.7 * across, (1.1 + 0.17 * tallest) * down), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for axis, chart in zip(axes, shown, strict=False):
        _bars_panel(axis, chart, lang)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    if len(charts) > PANELS:
        figure.supxlabel(f"first {PANELS} of {len(charts)} charts", color=QUIET, fontsize=8)
    return {"svg": _bytes(figure, "svg"), "png": _bytes(figure, "png")}


def _bars_panel(axis: Any, chart: Chart, lang: str) -> None:
    def words(text: str) -> str:
        return message_translations.localized(text, lang)[:TITLE] if lang == "ko" else _latin(text)

    labels, counts = zip(*chart.bars, strict=True)
    places, whole = range(len(labels)), sum(counts)
    axis.barh(places, counts, color=ACCENT, height=0.7)
    axis.set_yticks(places, [words(label) for label in labels])
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_axisbelow(True)
    axis.set_xlim(0, max(counts) * 1.25)
    axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axis.set_title(f"{_latin(chart.subset)}\n{words(chart.title)}", color=INK)
    for place, count in zip(places, counts, strict=True):
        axis.annotate(
            f"{100 * count / whole:.1f} %", (count, place), xytext=(3, 0), va="center",
            textcoords="offset points", color=QUIET, fontsize=7,
        )  # fmt: skip


def korean_font() -> str:
    """The first font of this machine that has Korean; empty: none."""
    known = {font.name for font in fontManager.ttflist}
    return next((name for name in KOREAN_FONTS if name in known), "")


def _losses(view: SuiteView) -> dict[str, Panel]:
    return _panels(view, lambda curves: [("", curves.get("loss", []), ACCENT)])


def _memories(view: SuiteView) -> dict[str, Panel]:
    def lines(curves: Mapping[str, Points]) -> list[Line]:
        found = {n: p for n, p in sorted(curves.items()) if n.startswith("vram_process[")}
        gpus: list[Line] = [
            ("VRAM" if len(found) == 1 else name.replace("vram_process", "VRAM "), points, ACCENT)
            for name, points in found.items()
        ]
        return [("RSS", curves.get("rss_tree", []), QUIET if gpus else ACCENT), *gpus]

    return _panels(view, lines)


def _panels(view: SuiteView, lines: Any) -> dict[str, Panel]:
    """Title -> lines and flags, of the runs that have a curve."""
    titles = _titles(view.records)
    flags = {r.identity.run_id: ", ".join(run_cells.flags(r)) for r in view.records}
    found: dict[str, Panel] = {}
    for run, recorded in view.curves.items():
        drawn = [line for line in lines(recorded.curves) if len(line[1]) > 1]
        if drawn:
            found[titles.get(run, _latin(run))] = (drawn, flags.get(run, ""))
    return found


def _titles(records: Sequence[RunRecord]) -> dict[str, str]:
    """`subset · model` by run id; the run id where that is not unique or cannot be drawn."""
    named = {r.identity.run_id: f"{r.identity.subset} · {r.identity.model}" for r in records}
    texts = list(named.values())
    return {
        run: text if texts.count(text) == 1 and _latin(text) == text else _latin(run)
        for run, text in named.items()
    }


def _latin(text: str) -> str:
    """What DejaVu Sans has for sure (Latin, Greek, Cyrillic), short enough for a panel."""
    drawn = "".join(c if c.isprintable() and ord(c) < 0x500 else "?" for c in text)
    return drawn if len(drawn) <= TITLE else f"{drawn[: TITLE - 1]}…"


def _figure(name: str, panels: Mapping[str, Panel], lang: str) -> dict[str, bytes]:
    shown = list(panels.items())[:PANELS]
    if not shown:
        return {}
    across = min(3, len(shown)) if len(shown) != 4 else 2
    down = math.ceil(len(shown) / across)
    width, height = (6.4, 3.2) if len(shown) == 1 else (3.5 * across, 2.4 * down)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for axis, (title, (lines, flags)) in zip(axes, shown, strict=False):
        axis.set_title(title, color=INK)
        axis.annotate(flags, (0.02, 0.04), xycoords="axes fraction", color=INK, fontsize=7)
        (_loss_panel if name == "loss" else _memory_panel)(axis, lines, lang)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    if len(panels) > PANELS:
        shown_of = say("figure.first", lang).format(PANELS, len(panels))
        figure.supxlabel(shown_of, color=QUIET, fontsize=8)
    return {"svg": _bytes(figure, "svg"), "png": _bytes(figure, "png")}


def _loss_panel(axis: Any, lines: Sequence[Line], lang: str) -> None:
    _, points, colour = lines[0]
    axis.plot(*zip(*points, strict=True), color=colour)
    axis.set_xlabel("optimizer step")
    axis.set_ylabel(say("figure.loss", lang))
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    last = say("figure.last", lang).format(formats.number(points[-1][1], 3))
    axis.annotate(last, (0.98, 0.9), xycoords="axes fraction", ha="right", color=colour)


def _memory_panel(axis: Any, lines: Sequence[Line], lang: str) -> None:
    for label, points, colour in lines:
        xs, ys = zip(*((x, y / formats.GIB) for x, y in points), strict=True)
        axis.plot(xs, ys, color=colour)
        peak = formats.size(max(y for _, y in points))
        text = say("figure.peak", lang).format(label, peak)
        axis.annotate(
            text, (xs[-1], ys[-1]), xytext=(0, 5), textcoords="offset points", ha="right",
            color=colour,
        )  # fmt: skip
    highest = max(y for _, points, _ in lines for _, y in points) / formats.GIB
    axis.set_ylim(0, max(highest * 1.2, 0.01))
    axis.set_xlabel(say("figure.seconds", lang))
    axis.set_ylabel(say("figure.memory", lang))


def _bytes(figure: Figure, kind: str) -> bytes:
    out = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(out, format=kind, dpi=160, metadata=metadata, facecolor="white")
    return out.getvalue()
