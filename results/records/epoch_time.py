"""What "training of 1 epoch" is in every table, list and screen: one number, one definition.

Seconds of the timed steps of the last whole epoch; the timing warm-up and the device's waiting for
data are left out. The whole process is called wall-clock. Apart from `forecasts`, which decides
what is a measurement. Pure functions of records.
"""

from __future__ import annotations

from typing import Final

from results.records import cost_forecasts
from results.records.schema import Reading, RunRecord
from results.text import formats

AT_MOST: Final = "at most: waiting for data could not be subtracted"
"""Begins the method of a time that still holds the waiting for data."""


def stall(record: RunRecord) -> Reading:
    """Seconds of one epoch in which the device waited for data; of a costing run, forecast."""
    timing, epoch = record.timing, cost_forecasts.epoch(record)
    share = _share(record)
    if cost_forecasts.costing(record):
        if epoch.value is None or share is None:
            return Reading(reason=epoch.reason or timing.data_stall_share.reason or "not measured")
        return Reading(value=epoch.value * share, method=epoch.method)
    if timing.epoch_stall_seconds.value is not None or epoch.value is None:
        return timing.epoch_stall_seconds
    # On a CPU the two are one; the share is of all timed steps, here those of this epoch.
    same = timing.timed_steps is not None and timing.timed_steps == timing.epoch_steps
    if same and share is not None:
        return Reading(value=epoch.value * share, method="share of the timed steps")
    return timing.epoch_stall_seconds


def _share(record: RunRecord) -> float | None:
    """Share of the timed steps in which the device waited for data."""
    timing = record.timing
    if timing.data_stall_share.value is not None or record.environment.device != "cpu":
        return timing.data_stall_share.value
    return timing.data_wait_share.value


def training(record: RunRecord) -> Reading:
    """Seconds of one epoch's training, waiting for data left out where it is known."""
    epoch, lost = cost_forecasts.epoch(record), stall(record)
    if epoch.value is None or record.identity.task == "evaluate":
        return epoch  # an evaluation's is encoding and searching once
    if lost.value is None:
        guess = epoch.method.startswith("forecast")
        return epoch if guess else epoch.model_copy(update={"method": AT_MOST})
    rest = max(0.0, 1 - lost.value / epoch.value) if epoch.value else 1.0
    keys = ("value", "low", "high")
    values = {k: None if (v := getattr(epoch, k)) is None else v * rest for k in keys}
    return epoch.model_copy(update=values)


def words(record: RunRecord) -> str:
    """`7:31.20`, `≤ 7:43.50`, `~8:01 ± 0:09`; empty where it is not known."""
    found = training(record)
    if found.value is None:
        return ""
    return ("≤ " if found.method == AT_MOST else "") + cost_forecasts.seconds(found)


def cell_text(record: RunRecord) -> str:
    """The same with its steps and what was left out: `7:31.20 (5,280; + 0:12.30)`."""
    steps, lost = formats.count(cost_forecasts.epoch_steps(record)), stall(record)
    left_out = f"; + {formats.duration(lost.value)}" if lost.value is not None else ""
    return f"{words(record)} ({steps}{left_out})"
