"""All that a record knows, as grouped lines. An unmeasured number shows its reason. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from results.text.sanitize import clean_line
from workbench.tui.view_models import quantities as q

if TYPE_CHECKING:
    from results.records.schema import Reading, RunRecord

TIMES: Final[tuple[tuple[str, str, q.Write], ...]] = (
    ("wall-clock, whole process", "end_to_end_seconds", q.wall),
    ("time to first step", "time_to_first_step", q.duration),
    ("step, median", "step_median", q.duration),
    ("step, 95th percentile", "step_p95", q.duration),
    ("host waiting for data", "data_wait_share", q.share),
    ("device waiting for data", "data_stall_share", q.share),
    ("samples/s", "samples_per_second", q.rate),
    ("samples/s by median", "samples_per_second_median", q.rate),
)
TRAINING: Final = {
    "loss": "loss, last window",
    "epoch": "epoch at the end of that window",
    "epoch_loss": "loss, mean of the last epoch",
}
PEAKS: Final = (
    ("max RSS, main process", "rss_main_peak"),
    ("RSS, all processes", "rss_tree_peak"),
    ("PSS, all processes", "pss_tree_peak"),
    ("VRAM allocated by torch", "vram_allocated_peak"),
    ("VRAM reserved by torch", "vram_reserved_peak"),
    ("VRAM of the run", "vram_process_peak"),
    ("VRAM in use on the device", "vram_device_peak"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A name, its value, and a quiet remark (an interval, a reason)."""

    name: str
    value: str
    remark: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Lines under a title."""

    title: str
    lines: tuple[Line, ...]


def groups(record: RunRecord) -> tuple[Group, ...]:
    """The record, most wanted first; groups without a line are left out."""
    made = (
        Group("Run", _identity(record)),
        Group("End", _end(record)),
        Group("Metrics", _metrics(record)),
        Group("Training", _training(record)),
        Group("Forecast", _forecast(record)),
        Group("Time", _times(record)),
        Group("Phases", _mapping(record.timing.phases, q.duration)),
        Group("Memory", _peaks(record)),
        Group("Memory, forecast", _fit(record)),
        Group("Settings", _mapping(record.identity.params)),
        Group("Facts", _mapping(record.facts)),
        Group("Machine", _machine(record)),
        Group("Versions", _mapping(record.environment.versions)),
        Group("Counters", _mapping(record.counters)),
        Group("Notices", tuple(Line("", clean_line(n)) for n in record.notices)),
    )
    return tuple(group for group in made if group.lines)


def _identity(record: RunRecord) -> tuple[Line, ...]:
    identity = record.identity
    names = (
        ("suite", identity.suite), ("run", identity.run_id), ("label", identity.label),
        ("engine", f"{identity.engine}, {identity.task}"), ("subset", identity.subset),
        ("model", identity.model), ("model revision", identity.model_revision),
        ("subset fingerprint", identity.subset_fingerprint), ("plan", identity.plan_hash),
        ("folder", record.folder),
    )  # fmt: skip
    lines = [Line(name, clean_line(value)) for name, value in names if value]
    lines.append(Line("seed, repeat", f"{identity.seed}, {identity.repeat + 1}"))
    lines.append(Line("attempt", str(identity.attempt)))
    return tuple(lines)


def _end(record: RunRecord) -> tuple[Line, ...]:
    end = record.exit
    bad = end.cause not in ("completed", "pruned", "skipped", "stopped")
    code = q.UNKNOWN if end.code is None else str(end.code)
    lines = [Line("cause", end.cause, failed=bad), Line("exit code", code)]
    if end.signal is not None:
        lines.append(Line("signal", str(end.signal)))
    if end.detail:
        lines.append(Line("why", clean_line(end.detail), failed=bad))
    if bad and (end.phase or end.step):
        lines.append(Line("where", f"{end.phase} at step {end.step:,}"))
    return tuple(lines)


def _metrics(record: RunRecord) -> tuple[Line, ...]:
    lines = []
    for metric in record.metrics:
        interval = ""
        if metric.low is not None and metric.high is not None:
            interval = f"{q.score(metric.low)} to {q.score(metric.high)}, "
        remark = f"{interval}n {metric.n:,}, {clean_line(metric.split)}"
        method = f", {clean_line(metric.method)}" if metric.method else ""
        lines.append(Line(clean_line(metric.name), q.score(metric.value), remark + method))
    return tuple(lines)


def _training(record: RunRecord) -> tuple[Line, ...]:
    lines = [
        Line("steps", f"{record.steps:,}", f"of {record.planned_steps:,} planned"),
        Line("samples loaded", f"{record.samples:,}"),
    ]
    if record.parameters is not None:
        trained = record.trainable_parameters
        remark = f"{trained:,} of them trained" if trained is not None else ""
        lines.append(Line("parameters", f"{record.parameters:,}", remark))
    named = {TRAINING.get(name, name): value for name, value in record.train.items()}
    return (*lines, *_mapping(named, q.number))


def _times(record: RunRecord) -> tuple[Line, ...]:
    from results.records import epoch_time

    timing = record.timing
    lines = [
        _reading("training of 1 epoch", epoch_time.training_reading(record), q.wall),
        _reading("left out: waiting for data", epoch_time.stall_reading(record), q.wall),
        *(_reading(name, getattr(timing, key), write) for name, key, write in TIMES),
    ]
    timed = timing.epoch_steps if timing.timed_steps is None else timing.timed_steps
    counted = f"{timed:,} timed, {timing.warmup_steps:,} of warm-up left out"
    return (*lines, Line("steps", counted))


def _forecast(record: RunRecord) -> tuple[Line, ...]:
    forecast = record.forecast
    if forecast is None:
        return ()
    rests = f"{forecast.steps:,} timed steps of {forecast.asked_steps:,} asked for"
    lines = [
        _reading(f"{forecast.epoch_steps:,} steps of an epoch", forecast.epoch_seconds, q.wall),
        Line("", "with waiting for data"),
        _reading(f"whole run, {forecast.run_steps:,} steps", forecast.run_seconds, q.wall),
        Line("", "without evaluation and saving"),
        _reading("start-up", forecast.start_seconds, q.duration),
        Line("rests on", rests, f"{forecast.samples:,} samples read"),
    ]
    if forecast.until is not None:
        lines.append(Line("asked to be within", f"±{q.share(forecast.until)}"))
    return (*lines, *_mapping(forecast.disk, q.size))


def _peaks(record: RunRecord) -> tuple[Line, ...]:
    return tuple(_reading(name, getattr(record.memory, key), q.size) for name, key in PEAKS)


def _fit(record: RunRecord) -> tuple[Line, ...]:
    if (fit := record.fit) is None:
        return ()
    of = "tensors" if fit.gpu else "main process"
    error = "" if fit.error is None else f"forecast {fit.error * 100:+.1f} % against it"
    measured = _reading("measured", fit.measured, q.size)
    return (
        Line("for", clean_line(fit.gpu) if fit.gpu else "CPU, host memory"),
        Line(f"forecast, {of}", q.size(fit.expected), f"in phase {clean_line(fit.phase)}"),
        Line(measured.name, measured.value, ", ".join(filter(None, (measured.remark, error)))),
        Line("must have, in all", q.size(fit.needed)),
    )


def _reading(name: str, reading: Reading, write: q.Write) -> Line:
    if reading.value is None:
        return Line(name, f"n/a ({clean_line(reading.reason)})")
    remark = ""
    if reading.low is not None and reading.high is not None:
        remark = f"{write(reading.low)} to {write(reading.high)}"
    if reading.method:
        remark = f"{remark}, {clean_line(reading.method)}" if remark else clean_line(reading.method)
    return Line(name, write(reading.value), remark)


def _machine(record: RunRecord) -> tuple[Line, ...]:
    machine = record.environment
    pairs = [
        ("host", machine.hostname), ("platform", machine.platform), ("python", machine.python),
        ("CPU", machine.cpu), ("cores", machine.cores or ""),
        ("RAM", q.size(machine.ram_bytes) if machine.ram_bytes else ""),
        ("computed on", machine.device), ("threads", machine.threads or ""),
    ]  # fmt: skip
    run_uuids = {gpu.uuid for gpu in machine.run_gpus}
    for gpu in machine.gpus:
        memory = f", {q.size(gpu.memory_bytes)}" if gpu.memory_bytes else ""
        used = ", used by the run" if gpu.uuid and gpu.uuid in run_uuids else ""
        pairs.append((f"GPU {gpu.index}", f"{gpu.name}{memory}{used}"))
    if not machine.gpus:
        pairs.append(("GPUs", f"n/a ({machine.gpu_reason or 'none seen'})"))
    if machine.driver:
        pairs.append(("driver", machine.driver))
    if machine.nvml_stub:
        pairs.append(("NVML", "a stand-in answered: no GPU number here is a measurement"))
    if machine.git_commit:
        dirty = " with changes" if machine.git_dirty else ""
        pairs.append(("git", f"{machine.git_commit[:12]}{dirty}"))
    return tuple(Line(name, clean_line(str(value))) for name, value in pairs if value)


def _mapping(
    table: Mapping[str, Any], write: Callable[[Any], str] | None = None
) -> tuple[Line, ...]:
    return tuple(
        Line(clean_line(str(key)), write(value) if write else clean_line(_plain(value)))
        for key, value in table.items()
    )


def _plain(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return str(value)
