"""Curves, gauges and phases of the Live screen, from `RunState`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from results.text.sanitize import clean_line
from workbench.output_language import translate
from workbench.suites import quantities as q
from workbench.tui.view_models.cells import Points, Series, format_step

if TYPE_CHECKING:
    from workbench.suites.state import RunState, RunView

CHARTS: Final = (
    ("loss", "loss"), ("step", "step time"), ("memory", "memory"), ("cpu", "CPU"),
    ("r1", "r@1 in the batch"), ("gpu", "GPU use"),
)  # fmt: skip
"""(id, first title) of the charts of the screen."""
SMOOTHINGS: Final = (0.0, 0.6, 0.9)
CURSOR_STEP: Final = 0.02
OVER_TIME: Final = ("rss_", "pss_", "cpu", "vram_", "gpu_", "power")
"""Curves over seconds; all others are over steps."""


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


@dataclass(frozen=True, slots=True)
class ChartOptions:
    """What a person chose for the charts."""

    log: bool = False
    smoothing: float = 0.0
    cursor: float | None = None
    """Share of the x range, 0 to 1."""
    main: str = "loss"
    """Curve of the first chart."""
    reference: Mapping[str, Points] = field(default_factory=dict)
    """Curves of another run, drawn behind."""
    reference_title: str = ""

    def change(self, action: str) -> ChartOptions:
        """The options after `log`, `smooth`, `left`, `right` or `plain`."""
        match action:
            case "log":
                return replace(self, log=not self.log)
            case "smooth":
                at = SMOOTHINGS.index(self.smoothing)
                return replace(self, smoothing=SMOOTHINGS[(at + 1) % len(SMOOTHINGS)])
            case "left" | "right":
                by = -CURSOR_STEP if action == "left" else CURSOR_STEP
                now = 1.0 if self.cursor is None else self.cursor
                return replace(self, cursor=max(0.0, min(1.0, now + by)))
            case _:
                return replace(self, cursor=None)


def chart_series(run: RunState | None, options: ChartOptions) -> dict[str, Series]:
    """Chart id -> series."""
    memory = _memory_curve(run)
    reason = "" if run is None or not run.sample else run.sample.gpu_reason
    use = _first_gpu(run, "gpu_utilisation")
    main = _series(run, options.main, options)
    return {
        "loss": replace(main, log=options.log),
        "step": _series(run, "step_seconds", options),
        "memory": _series(run, memory, options),
        "cpu": _series(run, "cpu", options),
        "r1": _series(run, "r@1", options),
        "gpu": _series(run, use or "gpu_utilisation", options, clean_line(reason) or "no GPU"),
    }


def curve_rows(run: RunState | None) -> list[tuple[str, str, str]]:
    """(curve, title, last value) of all curves of a run."""
    curves = run.curves if run else {}
    return [
        (name, _title(name), curve_kind(name).format(curve.last[1]) if curve.last else "")
        for name, curve in sorted(curves.items(), key=lambda item: _is_over_time(item[0]))
    ]


def curve_points(run: RunState) -> dict[str, Points]:
    """Points of all curves of a run, the newest included."""
    return {name: _points(run, name) for name in run.curves}


def curve_kind(name: str) -> CurveKind:
    """How a curve is shown; `vram_process[0]` is of the kind `vram_process`."""
    plain = name.partition("[")[0]
    return KINDS.get(plain, CurveKind(clean_line(plain, 40)))


def _title(name: str) -> str:
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


def _first_gpu(run: RunState | None, name: str) -> str:
    """Name of the curve for the run's first GPU; empty if there is none."""
    curves = sorted(run.curves) if run else []
    return next((curve for curve in curves if curve.startswith(f"{name}[")), "")


def _memory_curve(run: RunState | None) -> str:
    """Curve of the memory chart: the run's VRAM, else the device's, else RSS."""
    gpu = _first_gpu(run, "vram_process") or _first_gpu(run, "vram_device")
    return gpu or "rss_tree"


def _series(run: RunState | None, name: str, options: ChartOptions, reason: str = "") -> Series:
    curve = run.curves.get(name) if run else None
    if run is None or curve is None or curve.last is None:
        waiting = run is None or run.status != "ended"
        text = reason or ("no data yet" if waiting else "not measured")
        return Series(_title(name), reason=text)
    kind, over_time = curve_kind(name), _is_over_time(name)
    return Series(
        _title(name),
        _points(run, name),
        curve.last[1],
        kind.format,
        q.clock if over_time else format_step,
        60.0 if over_time else 10.0,
        kind.y_unit,
        "low" if kind.clip == "low" else "both" if kind.clip == "both" else "none",
        smoothing=0.0 if over_time else options.smoothing,
        reference=options.reference.get(name, ()),
        cursor=options.cursor,
    )


def gauge_line(run: RunState) -> str:
    """CPU, RSS, VRAM, GPU use and waiting for data as bars with their limits."""
    sample = run.sample
    if sample is None:
        return ""
    cores, ram = run.environment.get("cores"), run.environment.get("ram_bytes")
    parts = []
    if sample.cpu_percent is not None:
        share = sample.cpu_percent / (100 * cores) if cores else None
        of = f" of {cores} cores" if cores else ""
        parts.append(f"cpu {_bar(share)}{sample.cpu_percent:.0f} %{of}")
    if sample.rss_tree is not None:
        share = sample.rss_tree / ram if ram else None
        of = f" of {q.size(ram)}" if ram else ""
        parts.append(f"RSS {_bar(share)}{q.size(sample.rss_tree)}{of}")
    for gpu in sample.gpus:
        if gpu.used is not None and gpu.total:
            sizes = f"{q.size(gpu.used)} of {q.size(gpu.total)}"
            parts.append(f"VRAM {gpu.index} {_bar(gpu.used / gpu.total)}{sizes}")
        if gpu.utilisation is not None:
            parts.append(f"use {_bar(gpu.utilisation / 100)}{gpu.utilisation:.0f} %")
        if gpu.power is not None:
            parts.append(f"{gpu.power:.0f} W")
    return "   ".join(parts)


def _bar(share: float | None, cells: int = 10) -> str:
    if share is None:
        return ""
    full = round(max(0.0, min(1.0, share)) * cells)
    return f"▕{'█' * full}{'░' * (cells - full)}▏ "


def phase_line(run: RunState) -> str:
    """`import 4 s ▏ load 7 s ▏ train 1:04 …`: the phases of the attempt in their order."""
    parts: list[tuple[str, float]] = []
    for span in run.phases:
        seconds = max(0.0, (run.t if span.end is None else span.end) - span.start)
        if parts and parts[-1][0] == span.name:
            seconds += parts.pop()[1]
        parts.append((span.name, seconds))
    texts = [f"{name} {_short_time(seconds)}" for name, seconds in parts]
    if run.status == "running" and texts:
        texts[-1] += " …"
    return " ▏ ".join(texts)


def event_lines(run: RunState) -> tuple[str, ...]:
    """Phases, epochs and notices with their times, for a run whose libraries print nothing."""
    events = [(span.start, f"{span.name} {clean_line(span.detail, 200)}") for span in run.phases]
    for epoch in run.epochs:
        metrics = {"loss": epoch.loss, **epoch.validation}
        values = [f"{name} {q.number(v)}" for name, v in metrics.items() if v is not None]
        events.append((epoch.t, " · ".join([f"epoch {epoch.epoch}", *values])))
    events += [(notice.t, f"! {clean_line(translate(notice.text), 300)}") for notice in run.notices]
    return tuple(f"{q.clock(t):>8} {text.rstrip()}" for t, text in sorted(events))


def _short_time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else q.clock(seconds)


def reference_title(view: RunView) -> str:
    """Name of a run behind the curves: `emoji_train × clip-nano, 20261128-demo`."""
    spec = view.spec
    return clean_line(f"{spec.subset} × {spec.base_model or spec.model}, {spec.suite}", 120)
