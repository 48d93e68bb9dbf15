"""Figures of a report: training loss and memory, one small panel a run.

Apart because matplotlib takes a second to load and is an extra. Nothing here touches the disk, and
the same view gives the same bytes: no dates, a fixed salt for ids, and the font that matplotlib
brings, drawn as paths. That font has no Korean, so labels are English in every language.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results import formats
from results.schema import RunRecord, SuiteView

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

Points = Sequence[tuple[float, float]]
Line = tuple[str, Points, str]
"""Label, points, colour."""


def draw(view: SuiteView) -> dict[str, dict[str, bytes]]:
    """`loss` and `memory`, each as `svg` and `png`; a figure without any curve is left out."""
    with mpl.rc_context(dict(_STYLE)):
        return {
            name: drawn
            for name, panels in (("loss", _losses(view)), ("memory", _memories(view)))
            if (drawn := _figure(name, panels))
        }


def _losses(view: SuiteView) -> dict[str, list[Line]]:
    return _panels(view, lambda curves: [("", curves.get("loss", []), ACCENT)])


def _memories(view: SuiteView) -> dict[str, list[Line]]:
    def lines(curves: Mapping[str, Points]) -> list[Line]:
        host: Line = ("RSS of the whole tree", curves.get("rss_tree", []), QUIET)
        gpus: list[Line] = [
            (name.replace("_", " ").replace("vram", "VRAM"), points, ACCENT)
            for name, points in sorted(curves.items())
            if name.startswith("vram_process[")
        ]
        return [host, *gpus] if gpus else [(host[0], host[1], ACCENT)]

    return _panels(view, lines)


def _panels(view: SuiteView, lines: Any) -> dict[str, list[Line]]:
    """Title -> lines, of the runs that have a curve."""
    titles = _titles(view.records)
    found: dict[str, list[Line]] = {}
    for run, recorded in view.curves.items():
        drawn = [line for line in lines(recorded.curves) if len(line[1]) > 1]
        if drawn:
            found[titles.get(run, run)] = drawn
    return found


def _titles(records: Sequence[RunRecord]) -> dict[str, str]:
    """`subset · model` by run id; the run id where that is not unique or cannot be drawn."""
    named = {r.identity.run_id: f"{r.identity.subset} · {r.identity.model}" for r in records}
    texts = list(named.values())
    return {
        run: text if texts.count(text) == 1 and _drawable(text) else run
        for run, text in named.items()
    }


def _drawable(text: str) -> bool:
    """Latin, Greek, Cyrillic: what DejaVu Sans has for sure; and short enough for a panel."""
    return len(text) <= 44 and all(c.isprintable() and ord(c) < 0x500 for c in text)


def _figure(name: str, panels: Mapping[str, list[Line]]) -> dict[str, bytes]:
    shown = list(panels.items())[:PANELS]
    if not shown:
        return {}
    across = min(3, len(shown)) if len(shown) != 4 else 2
    down = math.ceil(len(shown) / across)
    width, height = (6.4, 3.2) if len(shown) == 1 else (3.5 * across, 2.4 * down)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for axis, (title, lines) in zip(axes, shown, strict=False):
        axis.set_title(title, color=INK)
        (_loss_panel if name == "loss" else _memory_panel)(axis, lines)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    if len(panels) > PANELS:
        figure.supxlabel(f"first {PANELS} of {len(panels)} runs", color=QUIET, fontsize=8)
    return {"svg": _bytes(figure, "svg"), "png": _bytes(figure, "png")}


def _loss_panel(axis: Any, lines: Sequence[Line]) -> None:
    _, points, colour = lines[0]
    axis.plot(*zip(*points, strict=True), color=colour)
    axis.set_xlabel("optimizer step")
    axis.set_ylabel("training loss")
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _last(axis, points, formats.number(points[-1][1], 3), colour)


def _memory_panel(axis: Any, lines: Sequence[Line]) -> None:
    for label, points, colour in lines:
        xs, ys = zip(*points, strict=True)
        axis.plot(xs, [y / formats.GIB for y in ys], color=colour, label=label)
        scaled = [(x, y / formats.GIB) for x, y in points]
        _last(axis, scaled, formats.size(points[-1][1]), colour)
    highest = max(y for _, points, _ in lines for _, y in points) / formats.GIB
    axis.set_ylim(0, max(highest * 1.15, 0.01))
    axis.set_xlabel("seconds since start")
    axis.set_ylabel("GiB" if len(lines) > 1 else f"{lines[0][0]}, GiB")
    if len(lines) > 1:
        axis.legend(loc="lower right", frameon=False, fontsize=7, labelcolor=INK)


def _last(axis: Any, points: Points, text: str, colour: str) -> None:
    """The last value as a dot with its number, just above the end of the line."""
    x, y = points[-1]
    if not (math.isfinite(x) and math.isfinite(y)):
        axis.annotate(text, (0.98, 0.9), xycoords="axes fraction", ha="right", color=colour)
        return
    axis.plot([x], [y], marker="o", markersize=3, color=colour)
    axis.annotate(
        text,
        (x, y),
        xytext=(0, 5),
        textcoords="offset points",
        ha="right",
        color=colour,
        fontsize=8,
    )


def _bytes(figure: Figure, kind: str) -> bytes:
    out = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(out, format=kind, dpi=160, metadata=metadata, facecolor="white")
    return out.getvalue()
