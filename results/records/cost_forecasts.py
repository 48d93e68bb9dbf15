"""Costing runs in tables: what they forecast, and how later full runs compare with it.

Apart from the tables of measured runs, so that there is one place that decides what is a forecast:
every table asks here which number of a record to show. Pure functions of records.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from results.records.schema import Forecast, Reading, RunRecord
from results.text import formats

BEYOND_TRAINING: Final = ("eval", "encode", "search", "generate", "save")
"""Phases that a forecast of the run leaves out."""

LEAST_MISSES: Final = 3
RECENT_MISSES: Final = 20
"""What a machine did long ago says little of what it does now."""

LEAST_WANDER: Final = 0.01
MOST_WANDER: Final = 0.95


def costing(record: RunRecord) -> bool:
    """The record is of a costing run, whether or not it came to a forecast."""
    return record.forecast is not None or record.identity.probe_steps > 0


def measured(record: RunRecord) -> bool:
    """All of the record's times are measurements: a full run, or one that was probed to its end."""
    forecast = record.forecast
    return not costing(record) or (
        forecast is not None and not _guessed(forecast.epoch_seconds, forecast.run_seconds)
    )


def _guessed(*readings: Reading) -> bool:
    return any(r.value is None or r.method.startswith("forecast") for r in readings)


def epoch(record: RunRecord) -> Reading:
    """Seconds of one epoch: measured, or the forecast (its `method` says so)."""
    if not costing(record):
        return record.timing.epoch_wall_seconds
    return record.forecast.epoch_seconds if record.forecast else _none(record)


def epoch_steps(record: RunRecord) -> int:
    """Steps that `epoch` is about."""
    return record.forecast.epoch_steps if record.forecast else record.timing.epoch_steps


def wall(record: RunRecord) -> Reading:
    """Seconds of the whole process; of a costing run what the full one will take, less evaluation.

    A costing run that did all steps of its run is a measured process.
    """
    if not costing(record):
        return record.timing.end_to_end_seconds
    if record.forecast is None:
        return _none(record)
    run = record.forecast.run_seconds
    return run if _guessed(run) else record.timing.end_to_end_seconds


def _none(record: RunRecord) -> Reading:
    return Reading(reason=f"the costing run made no forecast: {record.exit.cause}")


def seconds(found: Reading) -> str:
    """`~8:01 ± 0:09` of a forecast, `8:01.39` of a measurement; the reading has a value."""
    value = found.value or 0.0
    if not found.method.startswith("forecast"):
        return formats.duration(value)
    half = half_width(found)
    if half is None:
        return f"~{formats.duration(value)}"
    form = formats.clock if value >= 60 and half >= 1 else formats.duration
    return f"~{form(value)} ± {form(half)}"


def half_width(found: Reading) -> float | None:
    """Half of the interval; None without one."""
    if found.low is None or found.high is None:
        return None
    return (found.high - found.low) / 2


def share(found: Reading) -> float | None:
    """The half-width as a share of the value."""
    half = half_width(found)
    return None if half is None or not found.value else half / found.value


@dataclass(frozen=True, slots=True)
class Comparison:
    """One number of a full run beside its forecast. Seconds."""

    what: str
    """`epoch` or `run`."""
    run: RunRecord
    source: RunRecord
    """The costing run."""
    forecast: Reading
    measured: float

    @property
    def error(self) -> float:
        """How much more was measured than forecast, as a share of the forecast."""
        return self.measured / (self.forecast.value or 1.0) - 1

    @property
    def covered(self) -> bool | None:
        """Whether the interval holds the measurement; None without an interval."""
        low, high = self.forecast.low, self.forecast.high
        return None if low is None or high is None else low <= self.measured <= high

    def sentence(self) -> str:
        """`forecast ~8:01 ± 0:09, measured 8:03.20 (+0.4 %), inside the interval`."""
        place = {True: ", inside the interval", False: ", outside the interval", None: ""}
        return (
            f"forecast {seconds(self.forecast)}, measured {formats.duration(self.measured)} "
            f"({self.error * 100:+.1f} %){place[self.covered]}"
        )


def comparisons(run: RunRecord, others: Iterable[RunRecord]) -> list[Comparison]:
    """Epoch and run of a full run beside the last forecast made for it before it started."""
    source = match(run, others)
    if source is None or source.forecast is None:
        return []
    pairs = (("epoch", _epoch_pair(run, source.forecast)), ("run", _run_pair(run, source.forecast)))
    return [Comparison(what, run, source, *pair) for what, pair in pairs if pair is not None]


def match(run: RunRecord, others: Iterable[RunRecord]) -> RunRecord | None:
    """The last costing run of equal work on the same machine that had ended when this one began."""
    if costing(run) or run.identity.task != "train" or run.exit.cause != "completed":
        return None
    wanted = _work(run)
    found = [r for r in others if r.forecast and _before(r, run) and _work(r) == wanted]
    return max(found, key=lambda r: r.started_wall or 0.0, default=None)


def _before(first: RunRecord, second: RunRecord) -> bool:
    ended, started = first.ended_wall, second.started_wall
    return ended is None or started is None or ended <= started


def _work(record: RunRecord) -> tuple[str, ...]:
    """What must be equal for two runs to cost the same: work, settings, machine."""
    who, machine = record.identity, record.environment
    return (
        who.engine, who.subset, who.subset_fingerprint, who.model, who.model_revision,
        json.dumps(who.params, sort_keys=True, default=str),
        machine.hostname, machine.device, machine.cpu, str(machine.cores), str(machine.threads),
        "|".join(sorted(f"{gpu.name} {gpu.memory_bytes}" for gpu in machine.gpus)),
        machine.versions.get("torch", ""),
    )  # fmt: skip


def _epoch_pair(run: RunRecord, forecast: Forecast) -> tuple[Reading, float] | None:
    """Brought to the steps that the run has timed: a resumed one warms up twice."""
    guess, found = forecast.epoch_seconds, run.timing.epoch_wall_seconds
    if guess.value is None or found.value is None or not forecast.epoch_steps:
        return None
    return _scaled(guess, run.timing.epoch_steps / forecast.epoch_steps), found.value


def _run_pair(run: RunRecord, forecast: Forecast) -> tuple[Reading, float] | None:
    guess, whole = forecast.run_seconds, run.timing.end_to_end_seconds.value
    if guess.value is None or whole is None or forecast.run_steps != run.steps:
        return None
    return guess, whole - sum(run.timing.phases.get(name, 0.0) for name in BEYOND_TRAINING)


def _scaled(found: Reading, factor: float) -> Reading:
    if factor == 1:
        return found
    keys = ("value", "low", "high")
    values = {k: None if (v := getattr(found, k)) is None else v * factor for k in keys}
    return found.model_copy(update=values)


def of_suite(records: Sequence[RunRecord], others: Iterable[RunRecord]) -> list[Comparison]:
    """All comparisons of a suite's runs with the costing runs among `others`."""
    sources = [r for r in others if r.forecast]
    return [found for run in records for found in comparisons(run, sources)]


@dataclass(frozen=True, slots=True)
class Wander:
    """How far a machine's speed moves between a probe and its run, as its own history tells."""

    share: float
    """Half-width at 95 %, a share of the forecast."""
    count: int
    """Forecasts that were tested by a full run."""


def wander(records: Iterable[RunRecord], hostname: str, *, gpu: bool) -> Wander | None:
    """From the epochs that were forecast and then measured on this host; None: fewer than three.

    The errors log(measured / forecast) of n such epochs have the mean 0 that they should have, so
    the next one lies within Student's t (n degrees, 97.5 %) times their root mean square. What the
    probes' own steps left uncertain is in it too: it errs on the wide side.
    """
    here = [
        r
        for r in records
        if r.environment.hostname == hostname
        and (r.environment.device != "cpu") == gpu
        and not r.counters.get("contaminated")
    ]
    errors = _misses(here)[-RECENT_MISSES:]
    if len(errors) < LEAST_MISSES:
        return None
    rms = math.sqrt(sum(error**2 for error in errors) / len(errors))
    share = min(max(student(len(errors)) * rms, LEAST_WANDER), MOST_WANDER)
    return Wander(share, len(errors))


def _misses(records: Sequence[RunRecord]) -> list[float]:
    """log(measured / forecast) of every epoch that has both, oldest first."""
    sources: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.forecast is not None:
            sources[_work(record)].append(record)
    return [
        math.log(found.measured / found.forecast.value)
        for record in records
        if not costing(record) and (known := sources.get(_work(record)))
        for found in comparisons(record, known)
        if found.what == "epoch" and found.forecast.value and found.measured > 0
    ]


def student(degrees: int) -> float:
    """97.5 % point of Student's t from three degrees on, to 1 % (Cornish and Fisher's series)."""
    z, n = 1.959964, float(degrees)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / n**power for power, term in enumerate(terms, 1))
