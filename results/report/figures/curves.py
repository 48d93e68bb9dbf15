"""Curves: training loss over steps, validation metrics over epochs, memory over phases.

Runs that differ by their seed are one line, their mean, in a band from the lowest to the highest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from results.records.schema import EpochRecord
from results.records.suite_view import RunCurves, SuiteView
from results.report.figures import drawing
from results.report.figures.drawing import FigureText
from results.report.figures.run_groups import FigureGroup, group_runs, name_groups
from results.text import formats, metric_names

MAX_LINES: Final = 6
"""Lines of a panel; more of one subset are further panels."""
GRID_POINTS: Final = 200
NOISY_POINTS: Final = 60
"""From so many points on a curve is drawn smoothed, its own points faint behind it."""
WINDOW_SHARE: Final = 0.05
"""Points of the moving mean, as a share of all."""
MIN_PHASE_SHARE: Final = 0.02
"""Shorter phases are not drawn, as a share of the run."""
LETTER_SHARE: Final = 0.022
"""Width of a letter, as a share of a panel's."""
MIN_UPRIGHT_SHARE: Final = 0.035
"""Phases from so wide on have their name upright where it does not fit across."""

LOG_RATIO: Final = 10.0
"""Losses of a panel that are so many times apart have a logarithmic axis."""

Points = Sequence[tuple[float, float]]


class CurveLine(NamedTuple):
    """One group of runs in a panel."""

    label: str
    members: list[Points]
    """A curve of each run."""
    best: tuple[float, float] | None = None
    """Point of the epoch whose weights count as the best."""


class CurvePanel(NamedTuple):
    """Lines of one subset."""

    title: str
    lines: list[CurveLine]
    y_label: str = ""


def draw_loss(view: SuiteView, text: FigureText) -> dict[str, bytes]:
    """Training loss over optimizer steps, a panel a subset."""
    panels = build_loss_panels(view, text)
    return _draw_panels(panels, text, ("optimizer step", text.word("loss")), loss=True)


def build_loss_panels(view: SuiteView, text: FigureText) -> list[CurvePanel]:
    """Panels of the training loss."""

    def loss(run: str) -> Points:
        return view.curves[run].curves.get("loss", [])

    runs = [run for run in view.curves if len(loss(run)) > 1]
    return _build_panels(group_runs(view, runs), loss, text)


def draw_validation(view: SuiteView, text: FigureText) -> dict[str, bytes]:
    """The monitored quality over epochs, a panel a subset and metric."""
    epochs = {r.identity.run_id: r.training_epochs for r in view.records}
    names = [n for rows in epochs.values() for row in rows for n in row.validation]
    panels: list[CurvePanel] = []
    for name in _select_validation_names(names):

        def values(run: str, name: str = name) -> Points:
            return _validation_points(epochs[run], name)

        runs = [run for run in epochs if len(values(run)) > 1]
        best = {run: _best_point(epochs[run], name) for run in runs}
        panels += _build_panels(group_runs(view, runs), values, text, name, best)
    return _draw_panels(panels, text, ("epoch", ""))


def _select_validation_names(names: Sequence[str]) -> list[str]:
    """The headline metric, and the loss where it was validated, too."""
    distinct = list(dict.fromkeys(names))
    headline = metric_names.choose_headline("", [n for n in distinct if n != "loss"])
    return [name for name in dict.fromkeys((headline, "loss")) if name in distinct]


def _validation_points(epochs: Sequence[EpochRecord], name: str) -> Points:
    """Epochs of later stages follow those before."""
    rows = enumerate(epochs, 1)
    return [(float(at), row.validation[name]) for at, row in rows if name in row.validation]


def _best_point(epochs: Sequence[EpochRecord], name: str) -> tuple[float, float] | None:
    points = [
        (float(at), row.validation[name])
        for at, row in enumerate(epochs, 1)
        if row.since_best == 0 and name in row.validation
    ]
    return points[-1] if points else None


def _build_panels(
    groups: Sequence[FigureGroup],
    points: Callable[[str], Points],
    text: FigureText,
    y_label: str = "",
    best: Mapping[str, tuple[float, float] | None] | None = None,
) -> list[CurvePanel]:
    """A panel a subset, of at most `MAX_LINES` groups."""
    by_subset: dict[tuple[str, str], list[FigureGroup]] = {}
    for group in groups:
        key = (group.identity.engine, group.identity.subset)
        by_subset.setdefault(key, []).append(group)
    panels = []
    for (_, subset), of_subset in by_subset.items():
        names = name_groups(of_subset, text)
        lines = [
            CurveLine(
                _name_line(name, group, text),
                [points(run) for run in group.runs],
                (best or {}).get(group.runs[0]) if len(group.runs) == 1 else None,
            )
            for name, group in zip(names, of_subset, strict=True)
        ]
        panels += [
            CurvePanel(text.clip(subset), lines[at : at + MAX_LINES], y_label)
            for at in range(0, len(lines), MAX_LINES)
        ]
    return panels


def _name_line(name: str, group: FigureGroup, text: FigureText) -> str:
    """`clip-nano, 3 seeds [killed]`."""
    counted = (
        f", {text.word(group.count_key).format(len(group.runs))}" if len(group.runs) > 1 else ""
    )
    flags = f" [{', '.join(group.flags)}]" if group.flags else ""
    return text.clip(name, 30) + counted + text.clip(flags, 60)


def _draw_panels(
    panels: Sequence[CurvePanel],
    text: FigureText,
    axis_labels: tuple[str, str],
    *,
    loss: bool = False,
) -> dict[str, bytes]:
    panels_shown = panels[: drawing.MAX_PANELS]
    if not panels_shown:
        return {}
    figure, axes = drawing.make_panels(len(panels_shown))
    for axis, panel in zip(axes, panels_shown, strict=True):
        axis.set_title(panel.title, color=drawing.INK)
        for number, line in enumerate(panel.lines):
            _draw_line(axis, line, number)
        axis.set_xlabel(axis_labels[0])
        axis.set_ylabel(text.clip(axis_labels[1] or panel.y_label.partition(" (")[0]))
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.margins(x=0.02)
        if (loss or panel.y_label == "loss") and is_wide(panel.lines):
            axis.set_yscale("log")
        axis.legend(loc="best", handlelength=1.8, borderaxespad=0.2)
    drawing.note_rest(figure, len(panels_shown), len(panels), text)
    return drawing.encode_figure(figure)


def is_wide(lines: Sequence[CurveLine]) -> bool:
    """Whether smoothed curves span `LOG_RATIO` and more, and all their values are above 0."""
    raw = [y for line in lines for points in line.members for _, y in drawing.finite(points)]
    smoothed = [
        y for line in lines for points in line.members for _, y in drawing.finite(smooth(points))
    ]
    return bool(raw) and min(raw) > 0 and max(smoothed) >= LOG_RATIO * min(smoothed)


def _draw_line(axis: Any, line: CurveLine, number: int) -> None:
    colour = drawing.PALETTE[number % len(drawing.PALETTE)]
    style = {"color": colour, "linestyle": drawing.DASHES[number % len(drawing.DASHES)]}
    if len(line.members) == 1:
        xs, ys = zip(*line.members[0], strict=True)
        last = f"{line.label}: {formats.number(ys[-1], 3)}"
        if len(xs) >= NOISY_POINTS and (smoothed := smooth(line.members[0])):
            axis.plot(xs, ys, color=colour, alpha=0.25, linewidth=0.6)
            xs, ys = zip(*smoothed, strict=True)
        mark = {"marker": "o", "markersize": 2.5} if len(xs) <= 12 else {}
        axis.plot(xs, ys, label=last, **style, **mark)
        if line.best is not None:
            axis.plot(*line.best, marker="*", markersize=9, color=colour, linestyle="none")
        return
    grid, mean, low, high = join_members([smooth(points) for points in line.members])
    axis.fill_between(grid, low, high, color=colour, alpha=0.18, linewidth=0)
    last = f"{line.label}: {formats.number(float(mean[-1]), 3)}" if len(mean) else line.label
    axis.plot(grid, mean, label=last, **style)


def smooth(points: Points) -> Points:
    """Moving mean over `WINDOW_SHARE` of the points, NaN left out; short curves as they are.

    No points where all are NaN.
    """
    if len(points) < NOISY_POINTS:
        return points
    kept = drawing.finite(points)
    ys = np.array([y for _, y in kept])
    half = max(1, int(len(ys) * WINDOW_SHARE / 2))
    means = [float(ys[max(0, at - half) : at + half + 1].mean()) for at in range(len(ys))]
    return [(x, mean) for (x, _), mean in zip(kept, means, strict=True)]


def join_members(members: Sequence[Points]) -> tuple[Any, Any, Any, Any]:
    """Grid, mean, lowest and highest of curves where all of them have values.

    Curves at the same places keep these; others are interpolated between their points.
    """
    curves = [drawing.finite(points) for points in members]
    curves = [points for points in curves if points]
    if not curves:
        return (np.array([]),) * 4
    places = [tuple(x for x, _ in points) for points in curves]
    start, end = max(xs[0] for xs in places), min(xs[-1] for xs in places)
    if start > end:
        return (np.array([]),) * 4
    same = len(set(places)) == 1
    grid = np.array(places[0]) if same else np.linspace(start, end, GRID_POINTS)
    rows = [
        np.interp(grid, xs, [y for _, y in points])
        for xs, points in zip(places, curves, strict=True)
    ]
    values = np.array(rows)
    return grid, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def draw_memory(view: SuiteView, text: FigureText) -> dict[str, bytes]:
    """Memory of the processes and the GPU over the phases of a run, a panel a group's first run."""
    curves = {run: _memory_lines(recorded) for run, recorded in view.curves.items()}
    groups = group_runs(view, [run for run, lines in curves.items() if lines])
    groups_shown = groups[: drawing.MAX_PANELS]
    if not groups_shown:
        return {}
    figure, axes = drawing.make_panels(len(groups_shown), (3.5, 2.6))
    for axis, group in zip(axes, groups_shown, strict=True):
        identity, run = group.identity, group.runs[0]
        parts = (identity.label, identity.subset, identity.model_title if identity.model else "")
        title = text.clip(" · ".join(p for p in parts if p and text.can_draw_all(p)) or run)
        axis.set_title(title, color=drawing.INK)
        _draw_memory_panel(axis, curves[run], view.curves[run].phases, text)
        flags = text.clip(", ".join(group.flags), 60)
        axis.annotate(flags, (0.02, 0.04), xycoords="axes fraction", color=drawing.INK, fontsize=7)
    drawing.note_rest(figure, len(groups_shown), len(groups), text)
    return drawing.encode_figure(figure)


def _memory_lines(recorded: RunCurves) -> list[tuple[str, Points]]:
    """RSS of the tree, and VRAM of each GPU."""
    lines = [("RSS", recorded.curves.get("rss_tree", []))]
    of_gpus = sorted(n for n in recorded.curves if n.startswith("vram_process["))
    for name in of_gpus:
        label = "VRAM" if len(of_gpus) == 1 else name.replace("vram_process", "VRAM ")
        lines.append((label, recorded.curves[name]))
    return [(label, kept) for label, points in lines if len(kept := drawing.finite(points)) > 1]


def _draw_memory_panel(
    axis: Any,
    lines: Sequence[tuple[str, Points]],
    phases: Sequence[tuple[str, float, float]],
    text: FigureText,
) -> None:
    for number, (label, points) in enumerate(lines):
        xs, ys = zip(*((x, y / formats.GIB) for x, y in points), strict=True)
        peak = text.word("peak").format(label, formats.size(max(y for _, y in points)))
        colour, dash = drawing.PALETTE[number % 6], drawing.DASHES[number % 6]
        axis.plot(xs, ys, color=colour, linestyle=dash, label=peak)
    highest = max(y for _, points in lines for _, y in points) / formats.GIB
    end = max(x for _, points in lines for x, _ in points)
    top = max(highest * 1.45, 0.01)
    axis.set_ylim(0, top)
    axis.set_xlim(0, end)
    _draw_phases(axis, phases, end, top)
    axis.legend(loc="lower right", handlelength=1.8, borderaxespad=0.2)
    axis.set_xlabel(text.word("seconds"))
    axis.set_ylabel(text.word("memory"))


def _draw_phases(
    axis: Any, phases: Sequence[tuple[str, float, float]], end: float, top: float
) -> None:
    """Shade every second phase, and name those that are wide enough."""
    wide = [span for span in join_phases(phases) if span[2] - span[1] >= MIN_PHASE_SHARE * end]
    spans = join_phases(wide)
    axis.grid(visible=False, axis="x")
    for number, (name, start, last) in enumerate(spans):
        stop = min(last, end)
        axis.axvspan(start, stop, color="#eef1f6" if number % 2 else "#ffffff", zorder=0)
        share = (stop - start) / end
        upright = share < LETTER_SHARE * len(name)
        if share >= MIN_UPRIGHT_SHARE:
            axis.annotate(
                name, ((start + stop) / 2, top * 0.97), ha="center", va="top",
                rotation=90 if upright else 0, color=drawing.QUIET, fontsize=6.5,
            )  # fmt: skip


def join_phases(phases: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Neighbouring spans of one name as one."""
    joined: list[tuple[str, float, float]] = []
    for name, start, stop in phases:
        if joined and joined[-1][0] == name:
            joined[-1] = (name, joined[-1][1], stop)
        else:
            joined.append((name, start, stop))
    return joined
