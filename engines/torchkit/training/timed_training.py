"""Training as a run does it: the phases, and the time that they took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engines import protocol
from engines.torchkit.runtime import device
from engines.torchkit.runtime.context import Context
from engines.torchkit.training import loop
from engines.torchkit.training.cost_forecast import Costing
from engines.torchkit.training.step_timing import Ledger, Meter, stopwatch


def train(
    run: Context[Any],
    job: loop.Training[Any],
    costing: Costing | None,
    disk: Callable[[], dict[str, int]],
) -> bool:
    """Train to the end; whether this process goes on: the leader of ranks, unless it only costs.

    `disk`: bytes that a whole run keeps, by part; asked by a costing run.
    """
    timing = _train(run, job)
    run.team.leave()
    device.report_memory(run.emit, "train", run.device)
    if costing is not None and run.team.leads:
        run.emit.send(costing.forecast(timing, disk()))
    return run.team.leads and costing is None


def _train(run: Context[Any], job: loop.Training[Any]) -> protocol.Timing:
    order, warmup = job.loader.order, run.params.timing_warmup_steps
    per_epoch = order.steps_per_epoch
    meter = Meter(stopwatch(run.device), warmup, per_epoch, short_last=order.short_last)
    ledger = Ledger(per_epoch, warmup)
    # Whatever was drawn while caches were filled, training starts from the seed.
    # Ranks draw different dropout masks: theirs are different records.
    device.seed(run.spec.seed + (run.team.rank << 40))
    loop.train(job, meter, ledger, run.emit)
    timing = ledger.timing()
    run.emit.send(timing)
    _tell_untimed(run, timing)
    return timing


def _tell_untimed(run: Context[Any], timing: protocol.Timing) -> None:
    """A run that was too short to be timed is said to be; its other numbers count."""
    if timing.timed_steps or timing.time_to_first_step is None:
        return
    text = (
        f"no step was timed: all were among the {timing.warmup_steps} of the timing warm-up; step "
        "and epoch times are n/a, while wall-clock, memory and losses are measured. Train more "
        "steps, or set timing_warmup_steps=0, which times the slow first step too"
    )
    run.emit.notice("not-timed", text)
