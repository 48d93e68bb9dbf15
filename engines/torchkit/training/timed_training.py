"""Training of a run with its timing, memory peaks and cost forecast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engines import protocol
from engines.torchkit.runtime import device
from engines.torchkit.runtime.context import Context
from engines.torchkit.training import loop
from engines.torchkit.training.cost_forecast import CostProbe
from engines.torchkit.training.step_timing import StepTimer, TimingSummary, stopwatch


def train(
    run: Context[Any],
    job: loop.TrainingJob[Any],
    cost_probe: CostProbe | None,
    disk: Callable[[], dict[str, int]],
) -> bool:
    """Train to the end; returns whether this process goes on: rank 0, unless a cost probe.

    `disk`: bytes that a whole run keeps, by part; called by a cost probe.
    """
    timing = _train(run, job)
    run.process_group.destroy()
    device.report_memory(run.emit, "train", run.device)
    if cost_probe is not None and run.process_group.is_rank_zero:
        run.emit.send(cost_probe.forecast(timing, disk()))
    return run.process_group.is_rank_zero and cost_probe is None


def _train(run: Context[Any], job: loop.TrainingJob[Any]) -> protocol.Timing:
    order, warmup = job.loader.order, run.params.timing_warmup_steps
    per_epoch = order.steps_per_epoch
    timer = StepTimer(stopwatch(run.device), warmup, per_epoch, short_last=order.short_last)
    summary = TimingSummary(per_epoch, warmup)
    # Training starts from the seed, whatever filling the caches has drawn.
    # Ranks draw different dropout masks: theirs are different records.
    device.seed_generators(run.spec.seed + (run.process_group.rank << 40))
    loop.train(job, timer, summary, run.emit)
    timing = summary.timing()
    run.emit.send(timing)
    _report_untimed(run, timing)
    return timing


def _report_untimed(run: Context[Any], timing: protocol.Timing) -> None:
    """Send a notice where the run was too short to be timed."""
    if timing.timed_steps or timing.time_to_first_step is None:
        return
    text = (
        f"no step was timed: all were among the {timing.warmup_steps} of the timing warm-up; step "
        "and epoch times are n/a, while wall-clock, memory and losses are measured. Train more "
        "steps, or set timing_warmup_steps=0, which times the slow first step too"
    )
    run.emit.notice("not-timed", text)
