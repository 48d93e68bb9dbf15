"""Detail view of a record as grouped lines; unmeasured values show their reason. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from results.text.metric_names import headline_metric, is_shown
from results.text.sanitize import clean_line
from workbench.suites import quantities as q

if TYPE_CHECKING:
    from results.records.schema import MetricRecord, Reading, RunRecord, StageRecord

TIMES: Final[tuple[tuple[str, str, q.Formatter], ...]] = (
    ("wall-clock, whole process", "end_to_end_seconds", q.wall),
    ("time to first step", "time_to_first_step", q.duration),
    ("step, median", "step_median", q.duration),
    ("step, 95th percentile", "step_p95", q.duration),
    ("host waiting for data", "data_wait_share", q.share),
    ("device waiting for data", "data_stall_share", q.share),
    ("optimizer", "optimizer_share", q.share),
    ("samples/s", "samples_per_second", q.rate),
    ("samples/s by median", "samples_per_second_median", q.rate),
    ("tokens/s", "tokens_per_second", q.rate),
    ("model FLOPs of a sample", "model_flops_per_sample", q.flops),
    ("MFU", "mfu", q.share),
    ("HFU", "hfu", q.share),
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

ENERGY: Final[tuple[tuple[str, str, q.Formatter], ...]] = (
    ("energy of the run", "run", q.joules),
    ("energy of a sample", "per_sample", q.joules),
    ("mean power in training", "power", q.watts),
)


@dataclass(frozen=True, slots=True)
class DetailLine:
    """A name, its value, and a remark such as an interval."""

    name: str
    value: str
    remark: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class DetailGroup:
    """Lines under a title."""

    title: str
    lines: tuple[DetailLine, ...]


def build_groups(record: RunRecord) -> tuple[DetailGroup, ...]:
    """Groups of a record, most important first, without empty ones."""
    groups = (
        DetailGroup("Run", _identity(record)),
        DetailGroup("End", _end(record)),
        DetailGroup("Scores", _headlines(record)),
        DetailGroup("Time", _times(record)),
        DetailGroup("Memory", _peaks(record)),
        DetailGroup("Energy", _energy(record)),
        DetailGroup("Training", _training(record)),
        DetailGroup("Forecast", _forecast(record)),
        *_metric_groups(record),
        DetailGroup("Phases", _mapping(record.timing.phases, q.duration)),
        DetailGroup("Memory, forecast", _fit(record)),
        DetailGroup("Settings", _mapping(record.identity.params)),
        DetailGroup("Facts", _mapping(record.facts)),
        DetailGroup("Machine", _machine(record)),
        DetailGroup("Versions", _mapping(record.environment.versions)),
        DetailGroup("Counters", _mapping(record.counters)),
        DetailGroup("Notices", tuple(DetailLine("", clean_line(n)) for n in record.notices)),
    )
    return tuple(group for group in groups if group.lines)


def format_groups(groups: Iterable[DetailGroup]) -> Iterator[str]:
    """The groups as lines of text: a title, then its lines with values in one column."""
    groups = list(groups)
    cells = max((len(line.name) for group in groups for line in group.lines), default=0)
    for group in groups:
        yield f"{group.title}:"
        for line in group.lines:
            name = f"{line.name:<{cells}}  " if line.name else ""
            remark = f"  ({line.remark})" if line.remark else ""
            yield f"    {name}{line.value}{remark}"


def _identity(record: RunRecord) -> tuple[DetailLine, ...]:
    identity = record.identity
    names = (
        ("suite", identity.suite), ("run", identity.run_id), ("label", identity.label),
        ("engine", f"{identity.engine}, {identity.task}"), ("subset", identity.subset),
        ("model", identity.model), ("model revision", identity.model_revision),
        ("subset fingerprint", identity.subset_fingerprint), ("plan", identity.plan_hash),
        ("folder", record.folder),
    )  # fmt: skip
    lines = [DetailLine(name, clean_line(value)) for name, value in names if value]
    lines.append(DetailLine("seed, repeat", f"{identity.seed}, {identity.repeat + 1}"))
    lines.append(DetailLine("attempt", str(identity.attempt)))
    return tuple(lines)


def _end(record: RunRecord) -> tuple[DetailLine, ...]:
    end = record.exit
    bad = end.cause not in ("completed", "pruned", "skipped", "stopped")
    code = q.UNKNOWN if end.code is None else str(end.code)
    lines = [DetailLine("cause", end.cause, failed=bad), DetailLine("exit code", code)]
    if end.signal is not None:
        lines.append(DetailLine("signal", str(end.signal)))
    if end.detail:
        lines.append(DetailLine("why", clean_line(end.detail), failed=bad))
    if bad and (end.phase or end.step):
        lines.append(DetailLine("where", f"{end.phase} at step {end.step:,}"))
    return tuple(lines)


def _headlines(record: RunRecord) -> tuple[DetailLine, ...]:
    """The metric that stands for each split; all of them follow by split."""
    splits = dict.fromkeys(metric.split for metric in record.metrics)
    by_split = ([m for m in record.metrics if m.split == split] for split in splits)
    heads = (headline_metric(metrics) for metrics in by_split)
    return tuple(
        DetailLine(clean_line(m.split), q.score(m.value), ", ".join(_remarks(m, m.name)))
        for m in heads
        if m is not None
    )


def _metric_groups(record: RunRecord) -> tuple[DetailGroup, ...]:
    """All metrics by split, those of short tables first; below each method what it is of."""
    groups: dict[tuple[str, str, int], list[MetricRecord]] = {}
    for metric in sorted(record.metrics, key=lambda m: not is_shown(m.name)):
        groups.setdefault((metric.split, metric.method, metric.n), []).append(metric)
    order = {split: at for at, split in enumerate(dict.fromkeys(m.split for m in record.metrics))}
    return tuple(
        DetailGroup(
            clean_line(f"Metrics of {split}, n {n:,}" + (f"; {method}" if method else ""), 200),
            tuple(
                DetailLine(clean_line(m.name), q.score(m.value), ", ".join(_remarks(m)))
                for m in metrics
            ),
        )
        for (split, method, n), metrics in sorted(groups.items(), key=lambda g: order[g[0][0]])
    )


def _remarks(metric: MetricRecord, *first: str) -> Iterator[str]:
    yield from map(clean_line, first)
    if metric.low is not None and metric.high is not None:
        yield f"{q.score(metric.low)} to {q.score(metric.high)}"


def _training(record: RunRecord) -> tuple[DetailLine, ...]:
    lines = [
        DetailLine("steps", f"{record.steps:,}", f"of {record.planned_steps:,} planned"),
        DetailLine("samples loaded", f"{record.samples:,}"),
    ]
    if record.parameters is not None:
        trained = record.trainable_parameters
        remark = f"{trained:,} of them trained" if trained is not None else ""
        lines.append(DetailLine("parameters", f"{record.parameters:,}", remark))
    named = {TRAINING.get(name, name): value for name, value in record.train.items()}
    return (*lines, *_mapping(named, q.number), *map(_stage, record.stages))


def _stage(stage: StageRecord) -> DetailLine:
    name = f" ({clean_line(stage.name)})" if stage.name else ""
    line = _reading(f"stage {stage.stage}{name}", stage.wall_seconds, q.wall)
    length = f"{stage.epochs:.3g} of {stage.planned_epochs:.3g} epochs, {stage.steps:,} steps"
    return replace(line, remark=length)


def _times(record: RunRecord) -> tuple[DetailLine, ...]:
    from results.records import epoch_time

    timing = record.timing
    lines = [
        _reading("training of 1 epoch", epoch_time.training_reading(record), q.wall),
        _reading("left out: waiting for data", epoch_time.stall_reading(record), q.wall),
        *(_reading(name, getattr(timing, key), write) for name, key, write in TIMES),
    ]
    timed = timing.epoch_steps if timing.timed_steps is None else timing.timed_steps
    counted = f"{timed:,} timed, {timing.warmup_steps:,} of warm-up left out"
    return (*lines, DetailLine("steps", counted))


def _forecast(record: RunRecord) -> tuple[DetailLine, ...]:
    forecast = record.forecast
    if forecast is None:
        return ()
    rests = f"{forecast.steps:,} timed steps of {forecast.asked_steps:,} asked for"
    lines = [
        _reading(f"{forecast.epoch_steps:,} steps of an epoch", forecast.epoch_seconds, q.wall),
        DetailLine("", "with waiting for data"),
        _reading(f"whole run, {forecast.run_steps:,} steps", forecast.run_seconds, q.wall),
        DetailLine("", "without evaluation and saving"),
        _reading("start-up", forecast.start_seconds, q.duration),
        DetailLine("rests on", rests, f"{forecast.samples:,} samples read"),
    ]
    if forecast.max_uncertainty is not None:
        lines.append(DetailLine("asked to be within", f"±{q.share(forecast.max_uncertainty)}"))
    return (*lines, *_mapping(forecast.disk, q.size))


def _peaks(record: RunRecord) -> tuple[DetailLine, ...]:
    return tuple(_reading(name, getattr(record.memory, key), q.size) for name, key in PEAKS)


def _energy(record: RunRecord) -> tuple[DetailLine, ...]:
    """Energy of the run's GPUs; no lines where there is no figure."""
    readings = [(name, getattr(record.energy, key), write) for name, key, write in ENERGY]
    if all(reading.value is None for _, reading, _ in readings):
        return ()
    return tuple(_reading(name, reading, write) for name, reading, write in readings)


def _fit(record: RunRecord) -> tuple[DetailLine, ...]:
    if (fit := record.fit) is None:
        return ()
    subject = "tensors" if fit.gpu else "main process"
    error = "" if fit.error is None else f"forecast {fit.error * 100:+.1f} % against it"
    measured = _reading("measured", fit.measured, q.size)
    return (
        DetailLine("for", clean_line(fit.gpu) if fit.gpu else "CPU, host memory"),
        DetailLine(
            f"forecast, {subject}", q.size(fit.expected), f"in phase {clean_line(fit.phase)}"
        ),
        DetailLine(
            measured.name, measured.value, ", ".join(filter(None, (measured.remark, error)))
        ),
        DetailLine("must have, in all", q.size(fit.needed)),
    )


def _reading(name: str, reading: Reading, write: q.Formatter) -> DetailLine:
    if reading.value is None:
        return DetailLine(name, f"n/a ({clean_line(reading.reason)})")
    remark = ""
    if reading.low is not None and reading.high is not None:
        remark = f"{write(reading.low)} to {write(reading.high)}"
    if reading.method:
        remark = f"{remark}, {clean_line(reading.method)}" if remark else clean_line(reading.method)
    return DetailLine(name, write(reading.value), remark)


def _machine(record: RunRecord) -> tuple[DetailLine, ...]:
    machine = record.environment
    pairs = [
        ("host", machine.hostname), ("job", machine.job and f"slurm {machine.job}"),
        ("platform", machine.platform), ("python", machine.python),
        ("CPU", machine.cpu), ("cores", machine.cores or ""),
        ("RAM", q.size(machine.ram_bytes) if machine.ram_bytes else ""),
        ("computed on", machine.device), ("threads", machine.threads or ""),
        ("host shared with", ", ".join(record.shared_host)),
    ]  # fmt: skip
    run_uuids = {gpu.uuid for gpu in machine.run_gpus}
    for gpu in machine.gpus:
        memory = f", {q.size(gpu.memory_bytes)}" if gpu.memory_bytes else ""
        used = f", used by the run, {gpu.uuid}" if gpu.uuid and gpu.uuid in run_uuids else ""
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
    return tuple(DetailLine(name, clean_line(str(value))) for name, value in pairs if value)


def _mapping(
    table: Mapping[str, Any], write: Callable[[Any], str] | None = None
) -> tuple[DetailLine, ...]:
    return tuple(
        DetailLine(clean_line(str(key)), write(value) if write else clean_line(_plain(value)))
        for key, value in table.items()
    )


def _plain(value: Any) -> str:
    if value is None or value in ("", [], ()):
        return "not set"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return str(value)
