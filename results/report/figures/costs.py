"""Costs: how step times are distributed, and time and memory against quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from results.comparison.document_view import DocumentView, Ranking
from results.records import cost_forecasts
from results.records.schema import RunRecord
from results.records.suite_view import SuiteView
from results.report.figures import drawing
from results.report.figures.drawing import FigureText
from results.report.figures.run_groups import FigureGroup, group_runs, name_groups
from results.text import formats

MIN_WINDOWS: Final = 5
"""Fewer logged windows are no distribution."""
MAX_ROWS: Final = 30
WIDE_RANGE: Final = 8.0
"""Largest over smallest median from which times have a logarithmic axis."""


class StepTimes(NamedTuple):
    """Step times of a group, in milliseconds."""

    name: str
    windows: Any
    """Mean step of each logged window after the warm-up, of all runs of the group."""
    median: float | None
    """Of single steps, of the group's first run."""
    p95: float | None


def draw_step_times(view: SuiteView, text: FigureText) -> dict[str, bytes]:
    """A box a group of runs: quartiles of the windows, whiskers at 5 and 95 %; median and 95 %
    point of single steps beside it."""
    rows = list_step_times(view, text)
    rows_shown = rows[:MAX_ROWS]
    if not rows_shown:
        return {}
    figure, (axis,) = drawing.make_panels(1, (6.4, 0.55 + 0.2 * len(rows_shown)))
    axis.bxp(
        [_summarize(row.windows) for row in rows_shown], positions=range(len(rows_shown)),
        orientation="horizontal", widths=0.55, showfliers=False, patch_artist=True,
        boxprops={"facecolor": "#d5e2fa", "edgecolor": drawing.ACCENT, "linewidth": 0.9},
        medianprops={"color": drawing.ACCENT, "linewidth": 1.8},
        whiskerprops={"color": drawing.QUIET, "linewidth": 0.9},
        capprops={"color": drawing.QUIET, "linewidth": 0.9},
    )  # fmt: skip
    for at, row in enumerate(rows_shown):
        for value, marker, size in ((row.median, "|", 9), (row.p95, ">", 3.5)):
            if value is not None:
                axis.plot(value, at, marker=marker, color=drawing.INK, markersize=size)
    axis.set_yticks(range(len(rows_shown)), [_describe_steps(row, text) for row in rows_shown])
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    medians = [float(np.median(row.windows)) for row in rows_shown]
    if min(medians) > 0 and max(medians) / min(medians) > WIDE_RANGE:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(lambda *_: "")
    axis.set_xlabel(text.word("milliseconds"))
    drawing.note_rest(figure, len(rows_shown), len(rows), text)
    return drawing.encode_figure(figure)


def list_step_times(view: SuiteView, text: FigureText) -> list[StepTimes]:
    """Groups with enough windows after the warm-up."""
    warmups = {r.identity.run_id: r.timing.warmup_steps for r in view.records}
    windows = {
        run: [
            1e3 * y
            for x, y in drawing.finite(recorded.curves.get("step_seconds", []))
            if x > warmups.get(run, 0)
        ]
        for run, recorded in view.curves.items()
    }
    groups = group_runs(view, [run for run, times in windows.items() if len(times) >= MIN_WINDOWS])
    rows = []
    for name, group in zip(_name_with_subset(groups, text), groups, strict=True):
        readings = [
            reading.value
            for record in group.records[:1]
            for reading in (record.timing.step_median, record.timing.step_p95)
        ]
        median, p95 = (None if s is None else 1e3 * s for s in readings or (None, None))
        times = np.array([ms for run in group.runs for ms in windows[run]])
        rows.append(StepTimes(text.clip(name, 36), times, median, p95))
    return rows


def _name_with_subset(groups: Sequence[FigureGroup], text: FigureText) -> list[str]:
    """Names, with their subset before them where there are several."""
    if len({group.identity.subset for group in groups}) < 2:
        return name_groups(groups, text)
    names = [f"{g.identity.subset} · {g.identity.label or g.identity.model_title}" for g in groups]
    drawable = all(map(text.can_draw_all, names))
    return names if drawable and len(set(names)) == len(names) else name_groups(groups, text)


def _summarize(windows: Any) -> dict[str, float]:
    low, first, median, third, high = np.percentile(windows, [5, 25, 50, 75, 95])
    return {"whislo": low, "q1": first, "med": median, "q3": third, "whishi": high}


def _describe_steps(row: StepTimes, text: FigureText) -> str:
    if row.median is None or row.p95 is None:
        return row.name
    times = (formats.step_time(ms / 1e3) for ms in (row.median, row.p95))
    return f"{row.name}\n{text.word('median and p95').format(*times)}"


class CostPoint(NamedTuple):
    """A ranked group: seconds, bytes, quality."""

    number: int
    name: str
    seconds: float
    memory: float
    value: float
    low: float | None
    high: float | None
    efficient: bool = False
    """No other is at least as good, as fast and as small, and better in one of them."""


def draw_costs(document: DocumentView, text: FigureText) -> dict[str, bytes]:
    """Quality against time and against memory, a row a ranking; the best of each trade filled."""
    rows = [
        (ranking, points, higher)
        for ranking in document.rankings
        for points, higher in [build_cost_points(document.suite, ranking, text)]
        if len(points) > 1
    ][: drawing.MAX_PANELS // 3]
    if not rows:
        return {}
    count = max(len(points) for _, points, _ in rows)
    size = (3.0, max(2.6, 0.6 + 0.17 * count))
    figure, axes = drawing.make_panels(3 * len(rows), size, ratios=(1, 1, 0.62))
    for at, (ranking, points, higher) in enumerate(rows):
        time, memory, legend = axes[3 * at : 3 * at + 3]
        title = text.clip(ranking.split)
        for axis, field, label in (
            (time, "seconds", text.word("wall minutes")),
            (memory, "memory", text.word("peak memory")),
        ):
            _draw_trade(axis, points, field, higher=higher)
            axis.set_xlabel(label)
            axis.set_ylabel(text.clip(ranking.metric.partition(" (")[0]))
            axis.set_title(title, color=drawing.INK)
        _draw_key(legend, points, text)
    return drawing.encode_figure(figure)


def build_cost_points(
    view: SuiteView, ranking: Ranking, text: FigureText
) -> tuple[list[CostPoint], bool]:
    """Points of the runs with a measured time and memory, and whether more is better."""
    records = {r.identity.run_id: r for r in view.records}
    points = []
    directions = [
        m.higher_is_better
        for record in view.records
        for m in record.metrics
        if (m.split, m.name) == (ranking.split, ranking.metric)
    ]
    higher = next(iter(directions), True)
    groups = [group_runs(view, entry.runs)[0] for entry in ranking.places]
    names = name_groups(groups, text)
    for number, (entry, name) in enumerate(zip(ranking.places, names, strict=True), 1):
        members = [records[run] for run in entry.runs if run in records]
        seconds = _mean([_wall_seconds(r) for r in members])
        memory = _mean([_peak_memory(r) for r in members])
        if seconds is not None and memory is not None:
            points.append(
                CostPoint(number, name, seconds, memory, entry.value, entry.low, entry.high)
            )
    return mark_efficient(points, higher=higher), higher


def _wall_seconds(record: RunRecord) -> float | None:
    measured = cost_forecasts.is_measured(record)
    return record.timing.end_to_end_seconds.value if measured else None


def _peak_memory(record: RunRecord) -> float | None:
    """Of the GPU, on a CPU of the main process."""
    memory = record.memory
    return memory.vram_process_peak.value or memory.rss_main_peak.value


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured and len(measured) == len(values) else None


def mark_efficient(points: Sequence[CostPoint], *, higher: bool) -> list[CostPoint]:
    """The points with `efficient` set: Pareto-optimal in time, memory and quality."""

    def costs(point: CostPoint) -> tuple[float, float, float]:
        return point.seconds, point.memory, -point.value if higher else point.value

    def is_dominated(point: CostPoint) -> bool:
        mine = costs(point)
        return any(
            theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True))
            for theirs in map(costs, points)
        )

    return [point._replace(efficient=not is_dominated(point)) for point in points]


def _draw_trade(axis: Any, points: Sequence[CostPoint], field: str, *, higher: bool) -> None:
    """Points with their intervals, and the frontier of these two quantities."""
    scale = 60.0 if field == "seconds" else formats.GIB
    for point in points:
        x = getattr(point, field) / scale
        colour = drawing.ACCENT if point.efficient else drawing.QUIET
        if point.low is not None and point.high is not None:
            axis.plot([x, x], [point.low, point.high], color=colour, linewidth=0.9, alpha=0.6)
        face = colour if point.efficient else "white"
        axis.plot(x, point.value, marker="o", markersize=5, color=colour, markerfacecolor=face)
        axis.annotate(
            str(point.number), (x, point.value), xytext=(5, 3), textcoords="offset points",
            fontsize=7, color=drawing.INK,
        )  # fmt: skip
    frontier: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (getattr(p, field), -p.value if higher else p.value)):
        better = not frontier or (
            point.value > frontier[-1][1] if higher else point.value < frontier[-1][1]
        )
        if better:
            frontier.append((getattr(point, field) / scale, point.value))
    axis.step(*zip(*frontier, strict=True), where="post", color=drawing.ACCENT, linewidth=0.8,
              linestyle=":", zorder=1)  # fmt: skip
    axis.margins(0.14)


def _draw_key(axis: Any, points: Sequence[CostPoint], text: FigureText) -> None:
    """What the numbers stand for."""
    axis.axis("off")
    lines = [f"{'●' if p.efficient else '○'} {p.number}  {text.clip(p.name, 34)}" for p in points]
    lines += ["", text.word("efficient")]
    axis.text(
        0.0, 1.0, "\n".join(lines), transform=axis.transAxes, va="top", fontsize=7,
        color=drawing.INK, linespacing=1.45,
    )  # fmt: skip
