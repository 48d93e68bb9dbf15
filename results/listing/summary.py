"""Summary of a record: what lists, filters and sorting need, 1 KB of the 20 KB of a record."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from results.text.metric_names import headline_metric, is_shown

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


class Numbers(Mapping[str, float]):
    """Measured numbers by name, in a third of the memory of a dict."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: tuple[str, ...], values: Iterable[float]) -> None:
        self._names = names
        self._values = array("d", values)

    def __getitem__(self, name: str) -> float:
        if name in self._names:
            return self._values[self._names.index(name)]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


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
    numbers: Mapping[str, float]
    """The numbers of `NUMBERS` that were measured."""
    prefixes: Mapping[str, str]
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


class SummaryPool:
    """Makes summaries share what is equal in them: texts, settings, names of numbers.

    10,000 records have some hundred different ones.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._prefixes: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
        self._params: dict[str, dict[str, Any]] = {}
        self._shared: set[int] = set()
        """Identities of the settings in `_params`."""

    def share(self, summary: RecordSummary) -> RecordSummary:
        """An equal summary."""
        texts = self._texts
        fields = [texts.setdefault(v, v) if type(v) is str else v for v in summary[:-5]]
        names, prefixes = tuple(summary.numbers), tuple(summary.prefixes.items())
        return RecordSummary._make([
            *fields,
            Numbers(self._names.setdefault(names, names), summary.numbers.values()),
            self._prefixes.setdefault(prefixes, summary.prefixes),
            summary.headline,
            self._share_params(summary.params),
            tuple([self._share_names(metric) for metric in summary.metrics]),
        ])  # fmt: skip

    def _share_params(self, params: dict[str, Any]) -> dict[str, Any]:
        if id(params) in self._shared:
            return params
        shared = self._params.setdefault(json.dumps(params), params)
        self._shared.add(id(shared))
        return shared

    def _share_names(self, metric: MetricSummary) -> MetricSummary:
        texts = self._texts
        return MetricSummary(
            texts.setdefault(metric.name, metric.name),
            texts.setdefault(metric.split, metric.split), *metric[2:],
        )  # fmt: skip


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
