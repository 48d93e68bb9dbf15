"""Summary of a record: what lists, filters and sorting need, 1 KB of the 20 KB of a record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from results.records.metric_names import headline_metric, is_shown

if TYPE_CHECKING:
    from results.records.schema import RunRecord

NUMBERS: Final[Mapping[str, str]] = {
    "wall": "s", "epoch": "s", "step": "s", "rate": "samples/s", "rss": "bytes", "vram": "bytes",
    "loss": "", "r@1": "", "epochs": "",
}  # fmt: skip
"""Measured numbers of a summary -> unit."""
FORECAST: Final = "~"
"""Prefix of a forecast."""
AT_MOST: Final = "≤ "
"""Prefix of a training time that includes waiting for data."""


class MetricSummary(NamedTuple):
    """One metric of a record."""

    name: str
    split: str
    higher_is_better: bool
    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def key(self) -> str:
        """`recall@1@emoji_val`, as in data frames."""
        return f"{self.name}@{self.split}"


class RecordSummary(NamedTuple):
    """One record. Seconds, bytes and Unix times."""

    offset: int
    """Byte in results.jsonl at which its line begins."""
    suite: str
    run_id: str
    attempt: int
    label: str
    engine: str
    task: str
    subset: str
    model: str
    seed: int
    repeat: int
    cause: str
    detail: str
    folder: str
    measured: bool
    """False: its times are a cost probe's forecasts."""
    started: float | None
    steps: int
    planned_steps: int
    samples: int
    numbers: dict[str, float]
    """The numbers of `NUMBERS` that were measured."""
    prefixes: dict[str, str]
    """`FORECAST` or `AT_MOST` by number."""
    headline: int
    """Index of the metric that stands for the run; -1: it has none."""
    params: dict[str, Any]
    metrics: tuple[MetricSummary, ...]
    """Those that short tables show."""

    @property
    def key(self) -> tuple[str, str]:
        """Suite and run id."""
        return self.suite, self.run_id

    @property
    def never_started(self) -> bool:
        """Whether no attempt of the run began."""
        return self.cause != "completed" and self.started is None and not self.steps

    def find_metric(self, key: str) -> MetricSummary | None:
        """A metric as `name@split`, or as `name` of the first split; empty: the headline."""
        if not key:
            return self.metrics[self.headline] if self.headline >= 0 else None
        return next((m for m in self.metrics if key == m.name or _is_key(key, m)), None)


def _is_key(key: str, metric: MetricSummary) -> bool:
    return key.startswith(metric.name) and key == metric.key


def summarize_record(record: RunRecord, offset: int = 0) -> RecordSummary:
    """The summary of a record whose line begins at byte `offset`."""
    from results.records import cost_forecasts, epoch_time

    identity, timing, memory = record.identity, record.timing, record.memory
    epoch = epoch_time.training_reading(record)
    wall = cost_forecasts.wall_reading(record)
    readings = {
        "wall": wall, "epoch": epoch, "step": timing.step_median,
        "rate": timing.samples_per_second, "rss": memory.rss_main_peak,
        "vram": memory.vram_process_peak,
    }  # fmt: skip
    numbers = {name: r.value for name, r in readings.items() if r.value is not None}
    numbers |= {name: record.train[name] for name in ("loss", "r@1") if name in record.train}
    if record.epochs is not None:
        numbers["epochs"] = record.epochs
    prefixes = {
        name: FORECAST
        for name, reading in (("wall", wall), ("epoch", epoch))
        if reading.value is not None and reading.method.startswith("forecast")
    }
    if epoch.value is not None and epoch.method == epoch_time.AT_MOST:
        prefixes["epoch"] = AT_MOST
    metrics = tuple(
        MetricSummary(m.name, m.split, m.higher_is_better, m.value, m.low, m.high, m.n)
        for m in record.metrics
        if is_shown(m.name)
    )
    headline = headline_metric(metrics)
    return RecordSummary(
        offset, identity.suite, identity.run_id, identity.attempt, identity.label,
        identity.engine, identity.task, identity.subset, identity.model, identity.seed,
        identity.repeat, record.exit.cause, record.exit.detail[:500], record.folder,
        cost_forecasts.is_measured(record), record.started_wall, record.steps,
        record.planned_steps, record.samples, numbers, prefixes,
        metrics.index(headline) if headline else -1, identity.params, metrics,
    )  # fmt: skip


def last_attempts(summaries: Iterable[RecordSummary]) -> list[RecordSummary]:
    """One summary a run, in the order of the last attempts' records.

    The highest attempt counts; of two lines for the same attempt the later one, which corrects.
    """
    last: dict[tuple[str, str], RecordSummary] = {}
    for summary in summaries:
        earlier = last.pop(summary.key, None)
        is_older = earlier is not None and earlier.attempt > summary.attempt
        last[summary.key] = earlier if earlier is not None and is_older else summary
    return list(last.values())
