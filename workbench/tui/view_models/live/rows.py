"""Rows, series and sentences of the Live screen, from `RunState`. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from results.text import formats
from results.text.sanitize import clean_line
from workbench.output_language import translate
from workbench.planning import fold_runs
from workbench.suites import oom_retry, run_summary, suite_reader
from workbench.suites import quantities as q
from workbench.tui.view_models.cells import CellLike, GridCell, GridColumn, GridRow, Points
from workbench.tui.view_models.live.charts import SPARK_CELLS, spark_points

if TYPE_CHECKING:
    from engines.protocol import RunSpec
    from workbench.suites.state import RunState, RunView, SuiteState
    from workbench.tui.view_models.suite_feed import SuiteEntry

QUEUE: Final = (
    GridColumn("mark", "", 1, rank=0),
    GridColumn("subset", "subset", 15, grow=14, rank=0, middle_cut=True),
    GridColumn("model", "model", 13, grow=14, rank=0, middle_cut=True),
    GridColumn("seed", "seed", 5, right=True, rank=2),
    GridColumn("state", "state", 15, grow=8, rank=0),
    GridColumn("step", "step", 7, right=True, rank=5),
    GridColumn("loss", "loss", 8, right=True, rank=1),
    GridColumn("trend", "trend", 8, rank=3),
    GridColumn("r1", "r@1", 6, right=True, rank=4),
    GridColumn("time", "step time", 9, right=True, rank=3),
    GridColumn("pace", "trend", 8, rank=10),
    GridColumn("rate", "samples/s", 9, right=True, rank=6),
    GridColumn("rss", "RSS", 8, right=True, rank=7),
    GridColumn("vram", "VRAM", 8, right=True, rank=8),
    GridColumn("load", "trend", 8, rank=11),
    GridColumn("left", "time", 7, right=True, rank=2),
)
METRICS: Final = (
    GridColumn("name", "metric", 17, grow=10, rank=0),
    GridColumn("value", "value", 7, right=True, rank=0),
    GridColumn("interval", "95 %", 15, right=True, rank=2),
    GridColumn("n", "n", 6, right=True, rank=3),
    GridColumn("split", "on", 10, grow=16, rank=1),
)
SUITES: Final = (
    GridColumn("mark", "", 1, rank=0),
    GridColumn("name", "suite", 30, grow=30, rank=0),
    GridColumn("state", "state", 9, rank=1),
    GridColumn("runs", "runs", 7, right=True, rank=2),
    GridColumn("about", "", 16, grow=60, rank=3),
)
CURVES: Final = (GridColumn("name", "", 40, grow=20), GridColumn("last", "", 12, grow=24))
GLYPHS: Final = {
    "queued": GridCell("◌", "dim"),
    "starting": GridCell("●", "accent"),
    "running": GridCell("●", "accent"),
    "completed": GridCell("✓", "good"),
    "skipped": GridCell("–", "dim"),
    "pruned": GridCell("✂", "dim"),
    "stopped": GridCell("■", "warn"),
}
SUITE_WORDS: Final = {
    "starting": "starting",
    "queued": "waiting for its device",
    "running": "running",
    "paused": "paused: no new run starts",
    "stopping": "stopping",
    "ended": "ended",
    "lost": "warden lost",
}


def queue_rows(
    state: SuiteState, letters: Mapping[str, str] | None = None
) -> tuple[list[GridRow], list[str]]:
    """One row and one key (run id) for each run. `letters`: of the marked runs, by their ids."""
    specs = [view.spec for view in state.runs]
    labels = run_summary.distinguishing_labels(specs, seeds=False)
    rows = [
        _run_row(
            view,
            label,
            run_summary.describe_order(state, view),
            (letters or {}).get(view.spec.run_id, ""),
        )
        for view, label in zip(state.runs, labels, strict=True)
    ]
    return rows, [spec.run_id for spec in specs]


def _run_row(view: RunView, label: str, order: str, letter: str) -> GridRow:
    run, spec = view.state, view.spec
    key = "queued" if order == "queued again" else run.cause or run.status
    numbers = run_summary.format_numbers(run)
    elapsed = q.clock(run.t) if run.status != "queued" else ""
    tone = "strong" if run.status in ("starting", "running") else ""
    return (
        GridCell(letter, "accent") if letter else GLYPHS.get(key, GridCell("✗", "error")),
        GridCell(clean_line(" ".join(filter(None, (label, _subject(spec)))), 80), tone),
        GridCell(clean_line(spec.model, 80), tone),
        GridCell(str(spec.seed), "dim"),
        GridCell(order, "warn") if order else format_job_status(view),
        numbers.step,
        numbers.loss,
        GridCell(draw_spark(spark_points(run, "loss")), "accent"),
        numbers.r1,
        numbers.step_time,
        GridCell(draw_spark(spark_points(run, "step_seconds")), "dim"),
        numbers.samples_per_second,
        numbers.rss,
        numbers.vram,
        GridCell(draw_spark(*_memory_points(run)), "dim"),
        f"-{numbers.time_left}" if numbers.time_left else elapsed,
    )


EIGHTHS: Final = "▁▂▃▄▅▆▇█"


def draw_spark(points: Points, low: float | None = None, high: float | None = None) -> str:
    """A curve as `SPARK_CELLS` bars, from its smallest to its largest value or these limits."""
    chunk = len(points) / SPARK_CELLS
    means = []
    for cell in range(SPARK_CELLS if points else 0):
        begin = int(cell * chunk)
        ys = [y for _, y in points[begin : max(begin + 1, int((cell + 1) * chunk))]]
        means.append(sum(ys) / len(ys))
    finite = [y for y in means if math.isfinite(y)]
    if not finite:
        return ""
    bottom = min(finite) if low is None else low
    scale = (max(finite) if high is None else high) - bottom

    def choose_bar(y: float) -> str:
        if not math.isfinite(y):
            return " "
        return EIGHTHS[max(0, min(7, int((y - bottom) / scale * 8)))] if scale > 0 else EIGHTHS[0]

    return "".join(map(choose_bar, means))


def _memory_points(run: RunState) -> tuple[Points, float, float | None]:
    """Points of the VRAM of the run's first GPU up to its size, else of the RSS up to its peak."""
    for name in sorted(run.curves):
        if name.startswith("vram_device["):
            totals = [gpu.total for gpu in run.sample.gpus if gpu.total] if run.sample else []
            return spark_points(run, name), 0.0, float(totals[0]) if totals else None
    return spark_points(run, "rss_tree"), 0.0, None


def _subject(spec: RunSpec) -> str:
    """Fold and subset of a run, or the settings of a trial."""
    if spec.trial:
        return formats.settings(spec.trial.settings)
    return " ".join(part for part in (fold_runs.fold_label(spec), spec.subset) if part)


def format_status(run: RunState) -> CellLike:
    """Phase with its share, or the status, or the exit cause."""
    if run.status == "ended":
        tone = "error" if _is_bad(run) else "good" if run.cause == "completed" else "dim"
        return GridCell(run.cause, tone)
    if run.status != "running":
        return GridCell(run.status, "dim" if run.status == "queued" else "")
    share = f" {run.fraction:.0%}" if run.fraction is not None else ""
    return f"{run.phase or 'running'}{share}"


def format_job_status(view: RunView) -> CellLike:
    """As `format_status`; for a job that waits, the scheduler's word: `PENDING (Priority)`."""
    if view.location and view.state.status == "queued":
        return GridCell(clean_line(view.location.rpartition(" · ")[2], 80), "dim")
    return format_status(view.state)


def suite_rows(suites: Sequence[SuiteEntry]) -> list[GridRow]:
    """One row for each suite of the log root; those at work are marked."""
    return [
        (
            GridCell("●", "accent") if suite.busy else GridCell(" "),
            GridCell(suite.name, "strong" if suite.busy else ""),
            GridCell(suite.state, "error" if suite.state in ("lost", "unreadable") else "dim"),
            formats.count_noun(suite.runs, "run"),
            GridCell(suite.about, "dim"),
        )
        for suite in suites
    ]


def format_trouble(state: SuiteState, bad_lines: int) -> str:
    """What is wrong with a suite and its remedy; empty: nothing. `bad_lines`: of its journals."""
    if state.warden == "lost" and state.detail.startswith(suite_reader.NO_NEWS):
        return (
            f"{clean_line(state.detail).capitalize()}: it is gone, or its disk or clock is late. "
            "r goes on here with the runs that are left; do so only if it is gone."
        )
    if state.warden == "lost":
        return (
            "The warden of this suite is gone: what was at work has ended with it. "
            "r goes on with the runs that are left; completed ones keep their records."
        )
    return f"{bad_lines} journal lines could not be read." if bad_lines else ""


def short_name(suite: str) -> str:
    """`weekly-m2kr-1a2b` of `20261121-091412-weekly-m2kr-1a2b`: the name without its time."""
    parts = suite.split("-", 2)
    stamped = len(parts) == 3 and all(p.isdigit() for p in parts[:2])
    return clean_line(parts[2] if stamped else suite, 60)


def suite_line(state: SuiteState, now: float) -> tuple[str, str]:
    """Status of the suite, and its running time as clock."""
    parts = [_suite_status(state), run_summary.format_outcomes(state)]
    shown = state.warden == "running" and state.warden_pid is not None  # it names the run
    if state.detail and not shown:
        parts.append(clean_line(state.detail))
    elif state.lanes:
        parts.append(f"{len(state.working)} of {len(state.lanes)} lanes at work")
        parts += map(clean_line, run_summary.waiting_lines(state))
    right = ""
    if state.started_wall is not None:
        ends = [r.state.ended_wall for r in state.runs if r.state.ended_wall is not None]
        until = max(ends, default=state.started_wall) if state.ended else now
        right = q.clock(until - state.started_wall)
    return " · ".join(parts), right


def _suite_status(state: SuiteState) -> str:
    """The suite's status, with an order that takes effect later."""
    from workbench.suites.state import is_unfinished

    status = SUITE_WORDS.get(state.warden, state.warden)
    removed = state.orders.removed
    if state.warden == "ended" and any(
        is_unfinished(view.state) and view.spec.run_id not in removed for view in state.runs
    ):
        return f"{status}, r goes on"
    if state.ended or state.warden == "stopping":
        return status
    if state.orders.stopped:
        return "stopping"
    if state.orders.paused and state.warden != "paused":
        return f"{status}, pauses after the run at work (p takes it back)"
    if state.warden == "paused" and state.orders.paused is False:
        return "resuming"
    return status


def describe_pending(state: SuiteState, view: RunView) -> str:
    """When the order about a run takes effect, and how to take it back; empty: there is none."""
    order = run_summary.describe_order(state, view)
    if order in run_summary.WORKING_ORDERS.values():
        return f"{order}: after this step and its checkpoint"
    if order in run_summary.WAITING_ORDERS.values():
        return f"{order} when its turn comes; u takes it back"
    if not order and state.ended and view.state.status == "queued":
        return "The suite has ended before it; r goes on with it."
    return "starts again when its turn comes" if order else ""


def format_title(view: RunView) -> str:
    """The run in one line."""
    spec = view.spec
    parts = [clean_line(spec.subset, 80), clean_line(spec.model, 80), spec.engine]
    parts += [part] if (part := fold_runs.fold_label(spec)) else []
    parts.append(f"seed {spec.seed}")
    parts += [f"repeat {spec.repeat + 1}"] if spec.repeat else []
    parts += [f"attempt {view.state.attempt}"] if view.state.attempt > 1 else []
    parts += [clean_line(spec.label, 40)] if spec.label else []
    located = view.location and view.state.status != "queued"  # then it is said below
    parts += [clean_line(view.location, 80)] if located else []
    return " · ".join(parts)


def format_progress(run: RunState) -> tuple[str, float | None, str, bool]:
    """(word before the bar, fraction or None, text after it, whether the run failed)."""
    if run.status == "queued":
        return "queued", None, "not started yet", False
    if run.status == "ended":
        return _ended(run)
    word = run.phase or run.status
    if run.phase in ("train", "warmup") and run.plan and run.plan.steps:
        after = f"{run.step:,} / {run.last_step:,} steps"
        if time_left := run_summary.format_numbers(run).time_left:
            after += f"   {time_left} left"
        return word, run.fraction, after, False
    if run.progress and run.progress.total:
        done = f"{run.progress.done:,} / {run.progress.total:,} {clean_line(run.progress.unit)}"
        return word, run.fraction, done, False
    detail = clean_line(run.phases[-1].detail) if run.phases else ""
    return word, None, detail or f"since {q.clock(_phase_seconds(run))}", False


def _ended(run: RunState) -> tuple[str, float | None, str, bool]:
    after = f"after {q.clock(run.t)}"
    if run.cause != "completed":
        after += f" in {run.phase}" if run.phase else ""
        after += f" at step {run.step:,}" if run.step else ""
    return run.cause, None, after, _is_bad(run)


def format_failure(run: RunState) -> str:
    """Error of a failed run; empty for all others."""
    if not _is_bad(run):
        return ""
    detail = (run.failed.error if run.failed else "") or (run.end.detail if run.end else "")
    return clean_line(translate(detail))


def describe_run(state: SuiteState, view: RunView) -> tuple[str, str]:
    """(title, text) about a run: how it stands, why it failed, what is ordered, all notices."""
    run = view.state
    word, _, after, _ = format_progress(run)
    detail = format_failure(run) or clean_line(translate(run.end.detail if run.end else ""))
    parts = [f"{word} {after}", detail, describe_pending(state, view), format_facts(run)]
    parts += [f"{count} × {code}" for code, count in run.notice_counts.items() if count > 1]
    parts += [clean_line(translate(notice.text), 2_000) for notice in run.notices]
    parts.append(f"Run {view.spec.run_id}")
    return format_title(view), "\n\n".join(part for part in parts if part)


def _is_bad(run: RunState) -> bool:
    from workbench.suites.state import CLEAN_CAUSES

    return run.status == "ended" and run.cause not in CLEAN_CAUSES


def _phase_seconds(run: RunState) -> float:
    return run.t - run.phases[-1].start if run.phases else 0.0


def format_facts(run: RunState) -> str:
    """Step time, samples/s, data wait, learning rate, batch, parameters and device of a run."""
    numbers = run_summary.format_numbers(run)
    parts = [f"{numbers.step_time} a step"] if numbers.step_time else []
    if numbers.samples_per_second:
        parts.append(f"{numbers.samples_per_second} samples/s")
    if run.last and run.last.data_wait is not None and run.last.seconds:
        parts.append(f"{q.share(run.last.data_wait / run.last.seconds)} waiting for data")
    if run.last:
        parts.append(f"lr {q.number(run.last.lr)}")
    if run.plan:
        parts.append(f"batch {oom_retry.describe_batch(run)}")
    if run.plan and run.plan.parameters:
        parts.append(f"{run.plan.parameters / 1e6:,.1f} M parameters")
    if run.hello and run.hello.device:
        parts.append(clean_line(run.hello.device, 40))
    return " · ".join(parts)


def metric_rows(run: RunState | None) -> list[GridRow]:
    """Rows of the metrics, newest evaluation last."""
    rows: list[GridRow] = []
    for metric in run.metrics if run else ():
        interval = ""
        if metric.low is not None and metric.high is not None:
            interval = f"{q.score(metric.low)}–{q.score(metric.high)}"
        rows.append(
            (
                clean_line(metric.name, 60),
                GridCell(q.score(metric.value), "strong"),
                GridCell(interval, "dim"),
                GridCell(q.count(metric.n), "dim"),
                GridCell(clean_line(metric.split, 60), "dim"),
            )
        )
    return rows


def describe_no_metrics(run: RunState | None) -> str:
    """Why there are no metrics."""
    return "No metrics." if run is not None and run.status == "ended" else "No metrics yet."


def newest_notice(run: RunState | None) -> str:
    """The newest notice in one line, with the number of other kinds."""
    if run is None or not run.notices:
        return ""
    newest = run.notices[-1]
    others = len(run.notice_counts) - 1
    more = (
        f"  (and {others} more {'kind' if others == 1 else 'kinds'} of notice)"
        if others > 0
        else ""
    )
    return f"{clean_line(translate(newest.text), 300)}{more}"
