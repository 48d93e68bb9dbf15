"""Figures of a report: training loss and memory, one small panel per run.

matplotlib takes a second to load and is an extra. Nothing is written to disk, and the same view
gives the same bytes: no dates, a fixed salt for ids, and matplotlib's own font, drawn as paths.
That font has no Korean: axes are named in Korean where the machine has a Korean font, else in
English, and the caption below the figure explains them in Korean.
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

from results.records import message_translations
from results.records.schema import RunRecord
from results.records.suite_view import SubsetChart, SuiteView
from results.tables import run_cells
from results.text import formats
from results.text.translations import translate

ACCENT: Final = "#2f6fde"
INK: Final = "#2b2f36"
QUIET: Final = "#6b7280"
FAINT: Final = "#c3c8d0"

MAX_PANELS: Final = 24
"""Number of runs that are drawn at most."""

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

MAX_TITLE: Final = 44
"""Characters that fit above a panel."""

Points = Sequence[tuple[float, float]]
Line = tuple[str, Points, str]
"""Label, points, colour."""
Panel = tuple[list[Line], str]
"""Lines, and the flags of their run."""


def draw_figures(view: SuiteView, lang: str = "en") -> dict[str, dict[str, bytes]]:
    """Figures `loss`, `memory` and `data`, each as `svg` and `png`; empty ones are left out."""
    font = find_korean_font() if lang == "ko" else ""
    style = {**_STYLE, "font.family": [*_STYLE["font.family"], *([font] if font else [])]}
    figure_lang = "ko" if font else "en"
    panels = (("loss", loss_panels(view)), ("memory", _memory_panels(view)))
    with mpl.rc_context(style):
        figures = {
            name: figure
            for name, panels_of_figure in panels
            if (figure := _draw_figure(name, panels_of_figure, figure_lang))
        }
        figure = _draw_charts(view.charts, figure_lang)
        return figures | ({"data": figure} if figure else {})


def _draw_charts(charts: Sequence[SubsetChart], lang: str) -> dict[str, bytes]:
    """Charts of subsets: one panel of bars per chart, with the share of each bar.

    A row of panels is a subset where all have as many.
    """
    charts_shown = [chart for chart in charts if any(n for _, n in chart.bars)][:MAX_PANELS]
    if not charts_shown:
        return {}
    charts_per_subset = set(Counter(chart.subset for chart in charts_shown).values())
    is_even = charts_per_subset in ({2}, {3})
    across = charts_per_subset.pop() if is_even else min(3, len(charts_shown))
    down = math.ceil(len(charts_shown) / across)
    tallest = max(len(chart.bars) for chart in charts_shown)
    figure = Figure(figsize=(3.7 * across, (1.1 + 0.17 * tallest) * down), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for axis, chart in zip(axes, charts_shown, strict=False):
        _draw_bars(axis, chart, lang)
    for axis in axes[len(charts_shown) :]:
        axis.set_visible(False)
    if len(charts) > MAX_PANELS:
        figure.supxlabel(f"first {MAX_PANELS} of {len(charts)} charts", color=QUIET, fontsize=8)
    return {"svg": _encode_figure(figure, "svg"), "png": _encode_figure(figure, "png")}


def _draw_bars(axis: Any, chart: SubsetChart, lang: str) -> None:
    def localize(text: str) -> str:
        if lang == "ko":
            return message_translations.localize(text, lang)[:MAX_TITLE]
        return _to_latin(text)

    labels, counts = zip(*chart.bars, strict=True)
    positions, total = range(len(labels)), sum(counts)
    axis.barh(positions, counts, color=ACCENT, height=0.7)
    axis.set_yticks(positions, [localize(label) for label in labels])
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_axisbelow(True)
    axis.set_xlim(0, max(counts) * 1.25)
    axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axis.set_title(f"{_to_latin(chart.subset)}\n{localize(chart.title)}", color=INK)
    for position, count in zip(positions, counts, strict=True):
        axis.annotate(
            f"{100 * count / total:.1f} %", (count, position), xytext=(3, 0), va="center",
            textcoords="offset points", color=QUIET, fontsize=7,
        )  # fmt: skip


def find_korean_font() -> str:
    """The first font of this machine that has Korean; empty: none."""
    names = {font.name for font in fontManager.ttflist}
    return next((name for name in KOREAN_FONTS if name in names), "")


def loss_panels(view: SuiteView) -> dict[str, Panel]:
    """Loss curves by panel title, `SUBSET · MODEL`, with the flags of their runs."""
    return _make_panels(view, lambda curves: [("", curves.get("loss", []), ACCENT)])


def _memory_panels(view: SuiteView) -> dict[str, Panel]:
    def lines(curves: Mapping[str, Points]) -> list[Line]:
        gpu_curves = {n: p for n, p in sorted(curves.items()) if n.startswith("vram_process[")}
        gpus: list[Line] = [
            (
                "VRAM" if len(gpu_curves) == 1 else name.replace("vram_process", "VRAM "),
                points,
                ACCENT,
            )
            for name, points in gpu_curves.items()
        ]
        return [("RSS", curves.get("rss_tree", []), QUIET if gpus else ACCENT), *gpus]

    return _make_panels(view, lines)


def _make_panels(view: SuiteView, lines: Any) -> dict[str, Panel]:
    """Title -> lines and flags, of the runs that have a curve."""
    titles = _panel_titles(view.records)
    flags = {r.identity.run_id: ", ".join(run_cells.flags(r)) for r in view.records}
    panels: dict[str, Panel] = {}
    for run, recorded in view.curves.items():
        filled = [line for line in lines(recorded.curves) if len(line[1]) > 1]
        if filled:
            panels[titles.get(run, _to_latin(run))] = (filled, flags.get(run, ""))
    return panels


def _panel_titles(records: Sequence[RunRecord]) -> dict[str, str]:
    """`subset · model` by run id; the run id where that is ambiguous or cannot be drawn."""
    titles = {r.identity.run_id: f"{r.identity.subset} · {r.identity.model}" for r in records}
    texts = list(titles.values())
    return {
        run: text if texts.count(text) == 1 and _to_latin(text) == text else _to_latin(run)
        for run, text in titles.items()
    }


def _to_latin(text: str) -> str:
    """Text limited to DejaVu Sans' letters (Latin, Greek, Cyrillic), short enough for a panel."""
    latin = "".join(c if c.isprintable() and ord(c) < 0x500 else "?" for c in text)
    return latin if len(latin) <= MAX_TITLE else f"{latin[: MAX_TITLE - 1]}…"


def _draw_figure(name: str, panels: Mapping[str, Panel], lang: str) -> dict[str, bytes]:
    panels_shown = list(panels.items())[:MAX_PANELS]
    if not panels_shown:
        return {}
    across = min(3, len(panels_shown)) if len(panels_shown) != 4 else 2
    down = math.ceil(len(panels_shown) / across)
    width, height = (6.4, 3.2) if len(panels_shown) == 1 else (3.5 * across, 2.4 * down)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for axis, (title, (lines, flags)) in zip(axes, panels_shown, strict=False):
        axis.set_title(title, color=INK)
        axis.annotate(flags, (0.02, 0.04), xycoords="axes fraction", color=INK, fontsize=7)
        (_draw_loss if name == "loss" else _draw_memory)(axis, lines, lang)
    for axis in axes[len(panels_shown) :]:
        axis.set_visible(False)
    if len(panels) > MAX_PANELS:
        shown_of = translate("figure.first", lang).format(MAX_PANELS, len(panels))
        figure.supxlabel(shown_of, color=QUIET, fontsize=8)
    return {"svg": _encode_figure(figure, "svg"), "png": _encode_figure(figure, "png")}


def _draw_loss(axis: Any, lines: Sequence[Line], lang: str) -> None:
    _, points, colour = lines[0]
    axis.plot(*zip(*points, strict=True), color=colour)
    axis.set_xlabel("optimizer step")
    axis.set_ylabel(translate("figure.loss", lang))
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    last = translate("figure.last", lang).format(formats.number(points[-1][1], 3))
    axis.annotate(last, (0.98, 0.9), xycoords="axes fraction", ha="right", color=colour)


def _draw_memory(axis: Any, lines: Sequence[Line], lang: str) -> None:
    for label, points, colour in lines:
        xs, ys = zip(*((x, y / formats.GIB) for x, y in points), strict=True)
        axis.plot(xs, ys, color=colour)
        peak = formats.size(max(y for _, y in points))
        text = translate("figure.peak", lang).format(label, peak)
        axis.annotate(
            text, (xs[-1], ys[-1]), xytext=(0, 5), textcoords="offset points", ha="right",
            color=colour,
        )  # fmt: skip
    highest = max(y for _, points, _ in lines for _, y in points) / formats.GIB
    axis.set_ylim(0, max(highest * 1.2, 0.01))
    axis.set_xlabel(translate("figure.seconds", lang))
    axis.set_ylabel(translate("figure.memory", lang))


def _encode_figure(figure: Figure, kind: str) -> bytes:
    out = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(out, format=kind, dpi=160, metadata=metadata, facecolor="white")
    return out.getvalue()
