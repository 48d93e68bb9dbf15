"""Curves of the Live screen and of comparisons, from `RunState`. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from results.text.sanitize import clean_line
from workbench.suites import quantities as q
from workbench.tui.view_models.cells import OtherCurve, Points, Series, format_step

if TYPE_CHECKING:
    from workbench.suites.state import RunState, RunView

CHARTS: Final = (
    ("loss", "loss"), ("step", "step time"), ("memory", "memory"), ("cpu", "CPU"),
    ("r1", "r@1 in the batch"), ("gpu", "GPU use"),
)  # fmt: skip
"""(id, first title) of the charts of the screen."""
MAIN: Final = "loss"
"""Chart whose x range the cursor runs through."""
SMOOTHINGS: Final = (0.0, 0.6, 0.9)
CURSOR_STEPS: Final = {"left": -0.02, "right": 0.02, "back": -0.002, "ahead": 0.002}
"""Move of the cursor -> share of the x range."""
OVER_TIME: Final = ("rss_", "pss_", "cpu", "vram_", "gpu_", "power")
"""Curves over seconds; all others are over steps."""
X_AXES: Final = {"step": "", "time": "clock", "samples": "seen_samples"}
"""Axis of curves over steps -> the curve that gives it (`state.CLOCK`, `state.SEEN_SAMPLES`)."""
SPARK_CELLS: Final = 8


class CurveKind(NamedTuple):
    """How a curve is shown."""

    label: str
    format: q.Formatter = q.number
    y_unit: float = 10.0
    clip: str = "none"


KINDS: Final[Mapping[str, CurveKind]] = {
    "loss": CurveKind("loss"),
    "step_seconds": CurveKind("step time", q.duration, clip="both"),
    "r@1": CurveKind("r@1 in the batch", q.score),
    "rss_tree": CurveKind("RSS of the run", q.size, 1024.0, "low"),
    "cpu": CurveKind("CPU of one core", q.percent, clip="low"),
    "gpu_utilisation": CurveKind("GPU use", q.percent, clip="low"),
    "vram_process": CurveKind("VRAM", q.size, 1024.0, "low"),
    "vram_device": CurveKind("all VRAM", q.size, 1024.0, "low"),
    "rss_main": CurveKind("RSS of the main process", q.size, 1024.0, "low"),
    "pss_tree": CurveKind("PSS of the run", q.size, 1024.0, "low"),
}


class MarkedRun(NamedTuple):
    """A run that is drawn beside others."""

    letter: str
    """A to D; empty: the run under the cursor, which is not marked."""
    state: RunState


@dataclass(frozen=True, slots=True)
class ChartOptions:
    """What a person chose for the charts."""

    log: bool = False
    smoothing: float = 0.0
    cursor: float | None = None
    """Share of the main chart's x range, 0 to 1."""
    x: str = "step"
    """Of `X_AXES`."""
    curves: Mapping[str, str] = field(default_factory=dict)
    """Chart -> the curve chosen for it."""
    reference: RunState | None = None
    """Another run, whose curves are drawn behind."""
    reference_title: str = ""

    def change(self, action: str) -> ChartOptions:
        """The options after `log`, `smooth`, `x`, a move of the cursor, or `plain`."""
        match action:
            case "log":
                return replace(self, log=not self.log)
            case "smooth":
                at = SMOOTHINGS.index(self.smoothing)
                return replace(self, smoothing=SMOOTHINGS[(at + 1) % len(SMOOTHINGS)])
            case "x":
                names = list(X_AXES)
                return replace(self, x=names[(names.index(self.x) + 1) % len(names)])
            case _ if action in CURSOR_STEPS:
                now = 1.0 if self.cursor is None else self.cursor
                return replace(self, cursor=max(0.0, min(1.0, now + CURSOR_STEPS[action])))
            case _:
                return replace(self, cursor=None)

    def as_table(self) -> dict[str, object]:
        """What is kept for the next time, as plain values."""
        curves = dict(self.curves)
        return {"log": self.log, "smoothing": self.smoothing, "x": self.x, "curves": curves}


def parse_options(value: object) -> ChartOptions:
    """The options that `as_table` wrote; what does not fit is left at its default."""
    table = value if isinstance(value, dict) else {}
    curves, charts = table.get("curves"), dict(CHARTS)
    chosen = curves.items() if isinstance(curves, dict) else ()
    smoothing, x = table.get("smoothing"), table.get("x")
    return ChartOptions(
        log=table.get("log") is True,
        smoothing=smoothing if smoothing in SMOOTHINGS else 0.0,
        x=x if isinstance(x, str) and x in X_AXES else "step",
        curves={k: v for k, v in chosen if k in charts and isinstance(v, str)},
    )


def chart_series(
    run: RunState | None, options: ChartOptions, others: Sequence[MarkedRun] = (), letter: str = ""
) -> dict[str, Series]:
    """Chart id -> series of the run and of `others`, with the cursor of all at one moment.

    `letter`: of the run itself, if it is marked.
    """
    reason = "" if run is None or not run.sample else run.sample.gpu_reason
    reasons = {"gpu": clean_line(reason) or "no GPU"}
    names = {chart: options.curves.get(chart) or _default_curve(run, chart) for chart, _ in CHARTS}
    series = {
        chart: _series(run, name, options, others, reasons.get(chart, ""))
        for chart, name in names.items()
    }
    series[MAIN] = replace(series[MAIN], log=options.log)
    if letter:
        series = {chart: replace(shown, letter=letter) for chart, shown in series.items()}
    if run is None or options.cursor is None:
        return series
    moment = find_moment(run, series[MAIN], options, over_time=_is_over_time(names[MAIN]))
    return {
        chart: replace(shown, cursor=_place_cursor(run, names[chart], options.x, moment))
        for chart, shown in series.items()
    }


def find_moment(run: RunState, main: Series, options: ChartOptions, *, over_time: bool) -> float:
    """Seconds of the attempt at the cursor."""
    first, last = main.window
    x = first + (options.cursor or 0.0) * (last - first)
    if over_time or options.x == "time":
        return x
    steps = interpolate(_swap(_axis_points(run, options.x)), x) if options.x != "step" else x
    return interpolate(_axis_points(run, "time"), steps)


def cursor_moment(run: RunState, options: ChartOptions, others: Sequence[MarkedRun] = ()) -> float:
    """`find_moment` of the main chart of these runs."""
    name = options.curves.get(MAIN) or _default_curve(run, MAIN)
    main = _series(run, name, options, others)
    return find_moment(run, main, options, over_time=_is_over_time(name))


def _place_cursor(run: RunState, name: str, x: str, moment: float) -> float:
    """Where the moment lies on the x axis of a curve."""
    if x == "time" or _is_over_time(name):
        return moment
    steps = interpolate(_swap(_axis_points(run, "time")), moment)
    return steps if x == "step" else interpolate(_axis_points(run, x), steps)


def _axis_points(run: RunState, x: str) -> Points:
    """(step, value on the axis) of a run; empty before its first step."""
    name = X_AXES[x]
    return _points(run, name) if name in run.curves else ()


def _swap(points: Points) -> Points:
    return [(y, x) for x, y in points]


def interpolate(points: Points, x: float) -> float:
    """y at x by linear interpolation, beyond the ends that of the end; x itself without points."""
    if not points:
        return x
    at = bisect_left(points, x, key=lambda point: point[0])
    if at == 0 or at == len(points):
        return points[min(at, len(points) - 1)][1]
    (x0, y0), (x1, y1) = points[at - 1], points[at]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0) if x1 > x0 else y1


def place_points(run: RunState, name: str, x: str) -> Points:
    """The points of a curve over the axis `x`; curves over seconds stay so."""
    points = _points(run, name)
    axis = () if x == "step" or _is_over_time(name) else _axis_points(run, x)
    return [(interpolate(axis, step), y) for step, y in points] if axis else points


def curve_rows(run: RunState | None) -> list[tuple[str, str, str]]:
    """(curve, title, last value) of all curves of a run."""
    curves = {n: c for n, c in run.curves.items() if n not in X_AXES.values()} if run else {}
    return [
        (name, curve_title(name), curve_kind(name).format(curve.last[1]) if curve.last else "")
        for name, curve in sorted(curves.items(), key=lambda item: _is_over_time(item[0]))
    ]


def curve_kind(name: str) -> CurveKind:
    """How a curve is shown; `vram_process[0]` is of the kind `vram_process`."""
    plain = name.partition("[")[0]
    return KINDS.get(plain, CurveKind(clean_line(plain, 40)))


def curve_title(name: str) -> str:
    """`VRAM, GPU 0`."""
    index = name.partition("[")[2].rstrip("]")
    return curve_kind(name).label + (f", GPU {index}" if index else "")


def _is_over_time(name: str) -> bool:
    return name.startswith(OVER_TIME)


def _points(run: RunState, name: str) -> Points:
    curve = run.curves[name]
    points = curve.points
    if curve.last is not None and points[-1:] != (curve.last,):
        points = (*points, curve.last)
    return points


def _default_curve(run: RunState | None, chart: str) -> str:
    match chart:
        case "memory":  # the run's VRAM, else the device's, else RSS
            gpu = _first_gpu(run, "vram_process") or _first_gpu(run, "vram_device")
            return gpu or "rss_tree"
        case "gpu":
            return _first_gpu(run, "gpu_utilisation") or "gpu_utilisation"
        case _:
            return {"step": "step_seconds", "r1": "r@1"}.get(chart, chart)


def _first_gpu(run: RunState | None, name: str) -> str:
    """Name of the curve for the run's first GPU; empty if there is none."""
    curves = sorted(run.curves) if run else []
    return next((curve for curve in curves if curve.startswith(f"{name}[")), "")


def _series(
    run: RunState | None,
    name: str,
    options: ChartOptions,
    others: Sequence[MarkedRun] = (),
    reason: str = "",
) -> Series:
    curve = run.curves.get(name) if run else None
    kind, over_time = curve_kind(name), _is_over_time(name)
    drawn = tuple(
        OtherCurve(other.letter, place_points(other.state, name, options.x), last[1])
        for other in others
        if name in other.state.curves and (last := other.state.curves[name].last) is not None
    )
    empty = run is None or curve is None or curve.last is None
    if empty and not drawn:
        waiting = run is None or run.status != "ended"
        return Series(
            curve_title(name), reason=reason or ("no data yet" if waiting else "not measured")
        )
    behind = options.reference
    in_time = over_time or options.x == "time"
    return Series(
        curve_title(name),
        () if empty or run is None else place_points(run, name, options.x),
        curve.last[1] if curve is not None and curve.last is not None else None,
        kind.format,
        q.clock if in_time else format_step,
        60.0 if in_time else 10.0,
        kind.y_unit,
        "low" if kind.clip == "low" else "both" if kind.clip == "both" else "none",
        smoothing=0.0 if over_time else options.smoothing,
        reference=place_points(behind, name, options.x)
        if behind is not None and name in behind.curves
        else (),
        x_name="" if over_time or options.x == "step" else f"over {options.x}",
        others=drawn,
    )


def compared_charts(
    runs: Sequence[MarkedRun], options: ChartOptions, names: Sequence[str]
) -> list[Series]:
    """One curve after the other, of all runs; the cursor runs through the first curve."""
    shown = []
    for name in names:
        first = next((run for run in runs if name in run.state.curves), runs[0])
        others = [run for run in runs if run is not first]
        series = _series(first.state, name, options, others)
        shown.append(replace(series, letter=first.letter, log=options.log and name == MAIN))
    if options.cursor is None or not shown:
        return shown
    run = max((each.state for each in runs), key=lambda state: state.step)
    moment = find_moment(run, shown[0], options, over_time=_is_over_time(names[0]))
    return [
        replace(series, cursor=_place_cursor(run, name, options.x, moment))
        for series, name in zip(shown, names, strict=True)
    ]


def shared_curves(runs: Sequence[RunState]) -> list[str]:
    """Curves that any of the runs has, those of the charts first."""
    names = {name for run in runs for name, _, _ in curve_rows(run)}
    order = ["loss", "r@1", "step_seconds", "lr", "grad_norm", "rss_tree", "cpu"]
    return sorted(names, key=lambda name: (order.index(name) if name in order else 99, name))


def spark_points(run: RunState, name: str) -> Points:
    """Points of a curve for a line of `SPARK_CELLS` cells; empty where there are fewer than two."""
    points = _points(run, name) if name in run.curves else ()
    return points if len(points) > 1 else ()


def reference_title(view: RunView) -> str:
    """Name of a run behind the curves: `emoji_train × clip-nano, 20261128-demo`."""
    spec = view.spec
    return clean_line(f"{spec.subset} × {spec.base_model or spec.model}, {spec.suite}", 120)
