"""Training time of one epoch, as all tables, lists and screens show it.

Seconds of the timed steps of the last whole epoch, without the timing warm-up and without the time
in which the device waited for data. The time of the whole process is called wall-clock. Pure
functions of records.
"""

from __future__ import annotations

from typing import Final

from results.records import cost_forecasts
from results.records.schema import Reading, RunRecord
from results.text import formats

AT_MOST: Final = "at most: waiting for data could not be subtracted"
"""Begins the method of a time that still holds the waiting for data."""


def stall_reading(record: RunRecord) -> Reading:
    """Seconds of one epoch in which the device waited for data; of a cost probe, forecast."""
    timing, epoch = record.timing, cost_forecasts.epoch_reading(record)
    share = _stall_share(record)
    if cost_forecasts.is_cost_probe(record):
        if epoch.value is None or share is None:
            return Reading(reason=epoch.reason or timing.data_stall_share.reason or "not measured")
        return Reading(value=epoch.value * share, method=epoch.method)
    if timing.epoch_stall_seconds.value is not None or epoch.value is None:
        return timing.epoch_stall_seconds
    # On a CPU the two are one; the share is of all timed steps, here those of this epoch.
    is_same_epoch = timing.timed_steps is not None and timing.timed_steps == timing.epoch_steps
    if is_same_epoch and share is not None:
        return Reading(value=epoch.value * share, method="share of the timed steps")
    return timing.epoch_stall_seconds


def _stall_share(record: RunRecord) -> float | None:
    """Share of the timed steps in which the device waited for data."""
    timing = record.timing
    if timing.data_stall_share.value is not None or record.environment.device != "cpu":
        return timing.data_stall_share.value
    return timing.data_wait_share.value


def training_reading(record: RunRecord) -> Reading:
    """Seconds of one epoch's training, without waiting for data where that is measured."""
    epoch, stall_seconds = cost_forecasts.epoch_reading(record), stall_reading(record)
    if epoch.value is None or record.identity.task == "evaluate":
        return epoch  # an evaluation's is encoding and searching once
    if stall_seconds.value is None:
        is_forecast = epoch.method.startswith("forecast")
        return epoch if is_forecast else epoch.model_copy(update={"method": AT_MOST})
    rest = max(0.0, 1 - stall_seconds.value / epoch.value) if epoch.value else 1.0
    return cost_forecasts.scale_reading(epoch, rest)


def format_training(record: RunRecord) -> str:
    """`7:31.20`, `≤ 7:43.50`, `~8:01 ± 0:09`; empty where unknown."""
    reading = training_reading(record)
    if reading.value is None:
        return ""
    return ("≤ " if reading.method == AT_MOST else "") + cost_forecasts.format_seconds(reading)


def cell_text(record: RunRecord) -> str:
    """Training time with its steps and the waiting for data: `7:31.20 (5,280; + 0:12.30)`."""
    steps, stall_seconds = formats.count(cost_forecasts.epoch_steps(record)), stall_reading(record)
    left_out = (
        f"; + {formats.duration(stall_seconds.value)}" if stall_seconds.value is not None else ""
    )
    return f"{format_training(record)} ({steps}{left_out})"
