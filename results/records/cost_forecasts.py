"""Cost forecasts of probe runs, and how later full runs compare with them.

Decides which time of a record is a forecast and which a measurement; all tables use these
functions. Pure functions of records.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from results.records.schema import ForecastRecord, Reading, RunRecord
from results.text import formats

BEYOND_TRAINING: Final = ("eval", "encode", "search", "generate", "save")
"""Phases that a forecast of the run leaves out."""

MIN_ERRORS: Final = 3
MAX_ERRORS: Final = 20
"""Only the most recent errors are used."""

MIN_VARIATION: Final = 0.01
MAX_VARIATION: Final = 0.95


def is_cost_probe(record: RunRecord) -> bool:
    """Whether the record is of a cost probe, with or without a forecast."""
    return record.forecast is not None or record.identity.probe_steps > 0


def is_measured(record: RunRecord) -> bool:
    """Whether all times of the record are measurements: a full run, or a probe of all its steps."""
    forecast = record.forecast
    return not is_cost_probe(record) or (
        forecast is not None and not _is_forecast(forecast.epoch_seconds, forecast.run_seconds)
    )


def _is_forecast(*readings: Reading) -> bool:
    return any(r.value is None or r.method.startswith("forecast") for r in readings)


def epoch_reading(record: RunRecord) -> Reading:
    """Seconds of one epoch: measured, or forecast (its `method` starts with `forecast`)."""
    if not is_cost_probe(record):
        return record.timing.epoch_wall_seconds
    return record.forecast.epoch_seconds if record.forecast else _missing_reading(record)


def epoch_steps(record: RunRecord) -> int:
    """Steps that `epoch_reading` is about."""
    return record.forecast.epoch_steps if record.forecast else record.timing.epoch_steps


def wall_reading(record: RunRecord) -> Reading:
    """Seconds of the whole process; of a cost probe the forecast of the full run without
    evaluation.

    A cost probe that did all steps of its run is a measured process.
    """
    if not is_cost_probe(record):
        return record.timing.end_to_end_seconds
    if record.forecast is None:
        return _missing_reading(record)
    run = record.forecast.run_seconds
    return run if _is_forecast(run) else record.timing.end_to_end_seconds


def _missing_reading(record: RunRecord) -> Reading:
    return Reading(reason=f"the cost probe made no forecast: {record.exit.cause}")


def format_seconds(reading: Reading) -> str:
    """`~8:01 ± 0:09` of a forecast, `8:01.39` of a measurement; the reading has a value."""
    value = reading.value or 0.0
    if not reading.method.startswith("forecast"):
        return formats.duration(value)
    half_width = interval_half_width(reading)
    if half_width is None:
        return f"~{formats.duration(value)}"
    formatter = formats.clock if value >= 60 and half_width >= 1 else formats.duration
    return f"~{formatter(value)} ± {formatter(half_width)}"


def interval_half_width(reading: Reading) -> float | None:
    """Half of the interval; None without one."""
    if reading.low is None or reading.high is None:
        return None
    return (reading.high - reading.low) / 2


def relative_half_width(reading: Reading) -> float | None:
    """The half-width as a share of the value."""
    half_width = interval_half_width(reading)
    return None if half_width is None or not reading.value else half_width / reading.value


@dataclass(frozen=True, slots=True)
class ForecastComparison:
    """One time of a full run with its forecast, in seconds."""

    scope: str
    """`epoch` or `run`."""
    run: RunRecord
    source: RunRecord
    """The cost probe."""
    forecast: Reading
    measured: float

    @property
    def error(self) -> float:
        """(measured - forecast) / forecast."""
        return self.measured / (self.forecast.value or 1.0) - 1

    @property
    def covered(self) -> bool | None:
        """Whether the interval holds the measurement; None without an interval."""
        low, high = self.forecast.low, self.forecast.high
        return None if low is None or high is None else low <= self.measured <= high

    def sentence(self) -> str:
        """`forecast ~8:01 ± 0:09, measured 8:03.20 (+0.4 %), inside the interval`."""
        position = {True: ", inside the interval", False: ", outside the interval", None: ""}
        return (
            f"forecast {format_seconds(self.forecast)}, measured {formats.duration(self.measured)} "
            f"({self.error * 100:+.1f} %){position[self.covered]}"
        )


def compare_with_forecast(run: RunRecord, others: Iterable[RunRecord]) -> list[ForecastComparison]:
    """Epoch and run time of a full run against the last forecast made for it before it started."""
    source = find_forecast_run(run, others)
    if source is None or source.forecast is None:
        return []
    pairs = (("epoch", _epoch_pair(run, source.forecast)), ("run", _run_pair(run, source.forecast)))
    return [
        ForecastComparison(scope, run, source, *pair) for scope, pair in pairs if pair is not None
    ]


def find_forecast_run(run: RunRecord, others: Iterable[RunRecord]) -> RunRecord | None:
    """The last cost probe of equal work on the same machine that ended before this run began."""
    if is_cost_probe(run) or run.identity.task != "train" or run.exit.cause != "completed":
        return None
    work_key = _work_key(run)
    candidates = [
        r for r in others if r.forecast and _ended_before(r, run) and _work_key(r) == work_key
    ]
    return max(candidates, key=lambda r: r.started_wall or 0.0, default=None)


def _ended_before(first: RunRecord, second: RunRecord) -> bool:
    ended, started = first.ended_wall, second.started_wall
    return ended is None or started is None or ended <= started


def _work_key(record: RunRecord) -> tuple[str, ...]:
    """Fields that must be equal for two runs to cost the same: work, settings, machine."""
    identity, environment = record.identity, record.environment
    return (
        identity.engine, identity.subset, identity.subset_fingerprint, identity.model,
        identity.model_revision,
        json.dumps(identity.params, sort_keys=True, default=str),
        environment.hostname, environment.device, environment.cpu, str(environment.cores),
        str(environment.threads),
        "|".join(sorted(f"{gpu.name} {gpu.memory_bytes}" for gpu in environment.gpus)),
        environment.versions.get("torch", ""),
    )  # fmt: skip


def _epoch_pair(run: RunRecord, forecast: ForecastRecord) -> tuple[Reading, float] | None:
    """Brought to the steps that the run has timed: a resumed one warms up twice."""
    predicted, measured = forecast.epoch_seconds, run.timing.epoch_wall_seconds
    if predicted.value is None or measured.value is None or not forecast.epoch_steps:
        return None
    return scale_reading(predicted, run.timing.epoch_steps / forecast.epoch_steps), measured.value


def _run_pair(run: RunRecord, forecast: ForecastRecord) -> tuple[Reading, float] | None:
    predicted, wall_seconds = forecast.run_seconds, run.timing.end_to_end_seconds.value
    if predicted.value is None or wall_seconds is None or forecast.run_steps != run.steps:
        return None
    return predicted, wall_seconds - sum(
        run.timing.phases.get(name, 0.0) for name in BEYOND_TRAINING
    )


def scale_reading(reading: Reading, factor: float) -> Reading:
    """The reading with value and interval times `factor`."""
    if factor == 1:
        return reading
    keys = ("value", "low", "high")
    values = {k: None if (v := getattr(reading, k)) is None else v * factor for k in keys}
    return reading.model_copy(update=values)


def compare_suite(
    records: Sequence[RunRecord], others: Iterable[RunRecord]
) -> list[ForecastComparison]:
    """All comparisons of a suite's runs with the cost probes among `others`."""
    sources = [r for r in others if r.forecast]
    return [comparison for run in records for comparison in compare_with_forecast(run, sources)]


@dataclass(frozen=True, slots=True)
class SpeedVariation:
    """Variation of a machine's speed between a probe and its run, from its own history."""

    share: float
    """Half-width at 95 %, a share of the forecast."""
    count: int
    """Forecasts that were tested by a full run."""


def estimate_speed_variation(
    records: Iterable[RunRecord], hostname: str, *, gpu: bool
) -> SpeedVariation | None:
    """Speed variation from epochs that were forecast and then measured on this host; None: fewer
    than three.

    The errors log(measured / forecast) of n such epochs have the mean 0 that they should have, so
    the next one lies within Student's t (n degrees, 97.5 %) times their root mean square. What the
    probes' own steps left uncertain is in it too: it errs on the wide side.
    """
    records_of_host = [
        r
        for r in records
        if r.environment.hostname == hostname
        and (r.environment.device != "cpu") == gpu
        and not r.counters.get("contaminated")
        and not r.shared_host
    ]
    errors = _forecast_errors(records_of_host)[-MAX_ERRORS:]
    if len(errors) < MIN_ERRORS:
        return None
    rms = math.sqrt(sum(error**2 for error in errors) / len(errors))
    share = min(max(student_t_quantile(len(errors)) * rms, MIN_VARIATION), MAX_VARIATION)
    return SpeedVariation(share, len(errors))


def _forecast_errors(records: Sequence[RunRecord]) -> list[float]:
    """log(measured / forecast) of every epoch that has both, oldest first."""
    sources: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.forecast is not None:
            sources[_work_key(record)].append(record)
    return [
        math.log(comparison.measured / comparison.forecast.value)
        for record in records
        if not is_cost_probe(record) and (forecasts := sources.get(_work_key(record)))
        for comparison in compare_with_forecast(record, forecasts)
        if comparison.scope == "epoch" and comparison.forecast.value and comparison.measured > 0
    ]


def student_t_quantile(degrees: int) -> float:
    """97.5 % point of Student's t from three degrees on, to 1 % (Cornish and Fisher's series)."""
    z, n = 1.959964, float(degrees)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / n**power for power, term in enumerate(terms, 1))
