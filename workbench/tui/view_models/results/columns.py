"""Columns of the Results screen: of every run, of its settings, of its metrics. Pure."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from results.listing.summary import MetricSummary, RecordSummary
from results.text.sanitize import clean_line
from workbench.planning import fold_runs
from workbench.suites import quantities as q
from workbench.tui.view_models.cells import CellLike, GridCell, GridColumn

if TYPE_CHECKING:
    from results.listing.run_filter import ListedRun

Order = float | str
"""Sort key of a cell; NaN: unmeasured, which sorts last in both directions."""

DEFAULTS: Final = (
    "when", "label", "subset", "model", "seed", "end", "score", "interval", "metric", "wall",
    "epoch", "rss", "vram", "step", "loss", "notes", "suite", "rate", "steps", "r@1", "engine",
)  # fmt: skip
"""Columns that are shown where there is room and any run has a value."""
INTERVAL_CELLS: Final = 16
MAX_SETTING_CELLS: Final = 16
QUIET_ENDS: Final = {"completed": "", "pruned": "dim", "skipped": "dim", "stopped": "dim"}
_DATED: Final = re.compile(r"\d{8}-\d{6}-(?=.)")
"""Creation time at the start of a suite's name; the column `started` shows it, too."""


@dataclass(frozen=True, slots=True)
class MetricScale:
    """The metric that is shown, and the range in which its intervals are drawn."""

    metric: str = ""
    """`name@split`; empty: each run's headline."""
    low: float = 0.0
    high: float = 1.0

    def find_metric(self, summary: RecordSummary) -> MetricSummary | None:
        """The metric of a run; None: it has none."""
        return summary.find_metric(self.metric)


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """A column, with the cell and the sort key of a run."""

    grid: GridColumn
    make_cell: Callable[[ListedRun, MetricScale], CellLike]
    read_order: Callable[[ListedRun, MetricScale], Order]


def list_columns(keys: Iterable[str]) -> list[ResultColumn]:
    """Columns of these keys: of `DEFAULTS`, `task`, `run`, settings, metrics (`name@split`).

    In the order of the keys, which decides what is dropped first where there is no room.
    """
    return [_FIXED.get(key) or _make_value_column(key) for key in keys]


def fit_scale(runs: Sequence[ListedRun], metric: str) -> MetricScale:
    """The range of all intervals of the metric; of headlines only where all have the same."""
    metrics = [m for run in runs if (m := run.summary.find_metric(metric)) is not None]
    keys = {m.key for m in metrics}
    if len(keys) != 1:
        return MetricScale(metric)
    low = min(m.value if m.low is None else m.low for m in metrics)
    high = max(m.value if m.high is None else m.high for m in metrics)
    if not math.isfinite(low) or not math.isfinite(high):
        return MetricScale(metric)
    pad = (high - low) * 0.05 or 0.05
    return MetricScale(keys.pop(), low - pad, high + pad)


def draw_interval(metric: MetricSummary, scale: MetricScale, cells: int = INTERVAL_CELLS) -> str:
    """`  ──█──   `: the interval as a line, with its value; blank if the scale is of another."""
    if scale.metric != metric.key or not math.isfinite(metric.value):
        return ""

    def find_cell(value: float) -> int:
        share = (value - scale.low) / (scale.high - scale.low)
        return max(0, min(cells - 1, round(share * (cells - 1))))

    text = [" "] * cells
    if metric.low is not None and metric.high is not None:
        start, end = find_cell(metric.low), find_cell(metric.high)
        text[start : end + 1] = "─" * (end - start + 1)
    text[find_cell(metric.value)] = "█"
    return "".join(text)


def short_suite_name(name: str) -> str:
    """The suite's name without the creation time at its start."""
    return _DATED.sub("", name, count=1) if _DATED.match(name) else name


def format_time(started: float | None) -> str:
    """`11-28 20:08`, of another year `2025-11-28`."""
    if not started:
        return q.UNKNOWN
    local = time.localtime(started)
    this_year = local.tm_year == time.localtime().tm_year
    return time.strftime("%m-%d %H:%M" if this_year else "%Y-%m-%d", local)


def _text(read: Callable[[ListedRun], str], tone: str = "") -> dict[str, Any]:
    def make_cell(run: ListedRun, _: MetricScale) -> CellLike:
        text = clean_line(read(run), 80)
        return GridCell(text, tone) if tone else text

    return {"make_cell": make_cell, "read_order": lambda run, _: read(run)}


def _number(name: str, write: q.Formatter) -> dict[str, Any]:
    def make_cell(run: ListedRun, _: MetricScale) -> CellLike:
        value = run.summary.numbers.get(name)
        if value is None:
            return GridCell("n/a", "dim")
        return run.summary.prefixes.get(name, "") + write(value)

    return {
        "make_cell": make_cell,
        "read_order": lambda run, _: run.summary.numbers.get(name, math.nan),
    }


def label_text(summary: RecordSummary) -> str:
    """Label and fold of a run."""
    parts = (clean_line(summary.label, 40), fold_runs.fold_label(summary))
    return " ".join(part for part in parts if part)


def _end_cell(run: ListedRun, _: MetricScale) -> CellLike:
    cause = _end(run)
    return GridCell(cause, QUIET_ENDS.get(run.summary.cause, "error"))


def _end(run: ListedRun) -> str:
    summary = run.summary
    if summary.never_started:
        return "never"
    return "forecast" if summary.cause == "completed" and not summary.measured else summary.cause


def _score_cell(run: ListedRun, scale: MetricScale) -> CellLike:
    metric = scale.find_metric(run.summary)
    return GridCell(q.score(metric.value), "strong") if metric else GridCell(q.UNKNOWN, "dim")


def _score_order(run: ListedRun, scale: MetricScale) -> Order:
    metric = scale.find_metric(run.summary)
    return metric.value if metric else math.nan


def _interval_cell(run: ListedRun, scale: MetricScale) -> CellLike:
    metric = scale.find_metric(run.summary)
    return GridCell(draw_interval(metric, scale), "accent") if metric else ""


def _metric_name(run: ListedRun, scale: MetricScale) -> str:
    metric = scale.find_metric(run.summary)
    return clean_line(f"{metric.name} {metric.split}", 60) if metric else ""


def _notes_text(run: ListedRun) -> str:
    """Its state, tags and last finding in one line."""
    if run.notes is None:
        return ""
    findings = run.notes.findings[-1:]
    tags = " ".join(f"#{tag}" for tag in sorted(run.notes.tags))
    return " · ".join(part for part in (run.notes.state, tags, *findings) if part)


def _steps_cell(run: ListedRun, _: MetricScale) -> CellLike:
    return f"{run.summary.steps:,}" if run.summary.steps else GridCell(q.UNKNOWN, "dim")


def _make_value_column(key: str) -> ResultColumn:
    """The column of a setting or a metric."""

    def read(run: ListedRun) -> Any:
        if key in run.summary.params:
            return run.summary.params[key]
        metric = run.summary.find_metric(key)
        return metric.value if metric else None

    def make_cell(run: ListedRun, _: MetricScale) -> CellLike:
        value = read(run)
        if value is None:
            return GridCell(q.UNKNOWN, "dim")
        if isinstance(value, list | tuple):
            return clean_line(" ".join(map(str, value)), 40)
        is_metric = isinstance(value, float) and key not in run.summary.params
        return q.score(value) if is_metric else clean_line(str(value), 40)

    def read_order(run: ListedRun, _: MetricScale) -> Order:
        value = read(run)
        if isinstance(value, int | float):
            return float(value)
        return math.nan if value is None else str(value)

    width = max(6, min(MAX_SETTING_CELLS, len(key)))
    return ResultColumn(GridColumn(key, key, width, right=True, grow=2), make_cell, read_order)


def _column(grid: GridColumn, functions: Mapping[str, Any]) -> ResultColumn:
    return ResultColumn(grid, **functions)


_FIXED: Final = {
    column.grid.key: column
    for column in (
        ResultColumn(
            GridColumn("when", "started", 11),
            lambda run, _: GridCell(format_time(run.summary.started), "dim"),
            lambda run, _: run.summary.started or math.nan,
        ),
        _column(
            GridColumn("suite", "suite", 16, grow=12, middle_cut=True),
            _text(lambda run: short_suite_name(run.summary.suite), "dim"),
        ),
        _column(GridColumn("run", "run", 24, grow=20), _text(lambda run: run.summary.run_id)),
        _column(
            GridColumn("label", "label", 10, grow=14), _text(lambda run: label_text(run.summary))
        ),
        _column(GridColumn("engine", "engine", 10), _text(lambda run: run.summary.engine, "dim")),
        _column(GridColumn("task", "task", 8), _text(lambda run: run.summary.task, "dim")),
        _column(
            GridColumn("subset", "subset", 14, grow=12, middle_cut=True),
            _text(lambda run: run.summary.subset),
        ),
        _column(
            GridColumn("model", "model", 13, grow=12, middle_cut=True),
            _text(lambda run: run.summary.model),
        ),
        ResultColumn(
            GridColumn("seed", "seed", 4, right=True),
            lambda run, _: GridCell(str(run.summary.seed), "dim"),
            lambda run, _: float(run.summary.seed),
        ),
        ResultColumn(GridColumn("end", "end", 9, grow=6), _end_cell, lambda run, _: _end(run)),
        ResultColumn(GridColumn("score", "score", 7, right=True), _score_cell, _score_order),
        ResultColumn(GridColumn("interval", "95 %", INTERVAL_CELLS), _interval_cell, _score_order),
        ResultColumn(
            GridColumn("metric", "score is", 22, grow=12, middle_cut=True),
            lambda run, scale: GridCell(_metric_name(run, scale), "dim"),
            _metric_name,
        ),
        _column(GridColumn("wall", "wall-clock", 10, right=True), _number("wall", q.wall)),
        _column(
            GridColumn("epoch", "training of 1 epoch", 19, right=True), _number("epoch", q.wall)
        ),
        _column(GridColumn("step", "step", 8, right=True), _number("step", q.duration)),
        _column(GridColumn("rate", "samples/s", 9, right=True), _number("rate", q.rate)),
        _column(GridColumn("rss", "max RSS", 8, right=True), _number("rss", q.size)),
        _column(GridColumn("vram", "VRAM", 8, right=True), _number("vram", q.size)),
        _column(GridColumn("loss", "loss", 8, right=True), _number("loss", q.number)),
        _column(GridColumn("r@1", "r@1", 6, right=True), _number("r@1", q.score)),
        ResultColumn(
            GridColumn("steps", "steps", 7, right=True),
            _steps_cell,
            lambda run, _: float(run.summary.steps),
        ),
        _column(GridColumn("notes", "notes", 10, grow=40), _text(_notes_text)),
    )
}
