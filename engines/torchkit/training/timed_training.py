"""Training of a run with its timing, memory peaks and cost forecast."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engines import messages, trained_weights
from engines.torchkit.runtime import device
from engines.torchkit.runtime.context import Context
from engines.torchkit.runtime.model_flops import WorkMeter
from engines.torchkit.training import cost_forecast, job_checkpoints, loop
from engines.torchkit.training.early_stopping import EpochEndValidation
from engines.torchkit.training.stage_position import StagePosition, TrainingHistory
from engines.torchkit.training.step_timing import StepTimer, TimingSummary, stopwatch
from engines.torchkit.training.training_setup import TrainingSetup


@dataclass(frozen=True)
class TrainingStage:
    """One stage of a training."""

    setup: TrainingSetup
    create: Callable[[], loop.TrainingJob[Any]]
    """Freezes what the stage does not train, and returns its job."""
    validation: EpochEndValidation | None = None
    """Validation at the ends of epochs; None: the engine has none."""
    position: StagePosition = field(default_factory=StagePosition)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the stage sets of its own."""

    def create_job(self) -> loop.TrainingJob[Any]:
        """The job of the stage at its position, with its validation."""
        job, validation = self.create(), self.validation
        job.position = self.position
        if validation and validation.enabled and self.setup.run.spec.task == "train":
            job.after_epoch = validation.after_epoch
        return job

    def facts(self, job: loop.TrainingJob[Any], count: int) -> dict[str, str]:
        """Facts of the plan: place among `count` stages, and monitor of the validation."""
        monitored = self.validation.monitor.facts() if self.validation and job.after_epoch else {}
        stage = {"stage": f"{self.position.title} of {count}"} if self.position.number else {}
        return stage | monitored


def train_stages(
    run: Context[Any],
    stages: Sequence[TrainingStage],
    announce: Callable[[loop.TrainingJob[Any]], None],
    disk: Callable[[loop.TrainingJob[Any]], dict[str, int]],
) -> loop.TrainingJob[Any] | None:
    """Train the stages in order from the last checkpoint on; returns the job of the last one.

    None: this process does not go on (another rank, or a cost probe). A training without stages is
    one stage at the position of number 0. `announce`: called with each job before it trains;
    `disk`: bytes that a whole run keeps, by part, for a cost probe.
    """
    warmup, history = run.params.timing_warmup_steps, TrainingHistory()
    forecasts: list[messages.Forecast] = []
    first_step: float | None = None
    root = run.run_dir / trained_weights.CHECKPOINTS
    done = max(0, job_checkpoints.find_stage(root) - 1) if len(stages) > 1 else 0
    first = stages[min(done, len(stages) - 1)]
    for stage in stages[stages.index(first) :]:
        began = run.emit.now()
        job = stage.create_job()
        job.history, job.continues = history, stage is not first
        probe = cost_forecast.create_cost_probe(run.spec, job, warmup, run.emit)
        announce(job)
        timing, steps = _train(run, job, first_step)
        first_step = timing.time_to_first_step
        if probe is not None:
            forecasts.append(probe.forecast(timing, disk(job), began if forecasts else 0.0))
        else:
            # The next stage begins with the weights of rank 0 on all ranks.
            if stage.validation is not None and run.process_group.is_rank_zero:
                stage.validation.restore()
            _end_stage(run, job, stage, (timing, steps), began)
            if stage is not stages[-1]:
                job_checkpoints.save_stage_start(job, stage.position.number + 1)
        if stage is not stages[-1]:
            del job
            gc.collect()  # a job and its closures form cycles, which hold the optimizer's moments
    _report_untimed(run, timing)
    forecast = cost_forecast.join_forecasts(forecasts) if forecasts else None
    return job if _end_training(run, forecast) else None


def _end_stage(
    run: Context[Any],
    job: loop.TrainingJob[Any],
    stage: TrainingStage,
    trained: tuple[messages.Timing, loop.TrainedSteps],
    began: float,
) -> None:
    """Send the summary of a stage, but for a training without stages."""
    position, (timing, steps) = stage.position, trained
    if not position.number or job.history.has_stage(position.number):
        return
    per_epoch = job.loader.order.steps_per_epoch
    summary = messages.StageSummary(
        stage=position.number,
        name=position.name,
        settings=dict(stage.settings),
        trainable_parameters=sum(p.numel() for p in job.model.parameters() if p.requires_grad),
        planned_steps=job.steps,
        steps=steps.end,
        planned_epochs=job.steps / per_epoch,
        epochs=steps.end / per_epoch,
        wall_seconds=None if steps.start else run.emit.now() - began,
        timing=timing,
    )
    job.history.add(summary, run.emit)


def _end_training(run: Context[Any], forecast: messages.Forecast | None) -> bool:
    """Leave the process group and report memory; whether this process goes on."""
    is_rank_zero = run.process_group.is_rank_zero
    run.process_group.destroy()
    device.report_memory(run.emit, "train", run.device)
    if forecast is not None and is_rank_zero:
        run.emit.send(forecast)
    return is_rank_zero and forecast is None


def _train(
    run: Context[Any], job: loop.TrainingJob[Any], first_step: float | None = None
) -> tuple[messages.Timing, loop.TrainedSteps]:
    """Train a job. `first_step`: time to the first step of the run, where that was earlier."""
    order, warmup = job.loader.order, run.params.timing_warmup_steps
    per_epoch = order.steps_per_epoch
    timer = StepTimer(stopwatch(run.device), warmup, per_epoch, short_last=order.short_last)
    summary = TimingSummary(per_epoch, warmup)
    summary.time_to_first_step = first_step
    # Training starts from the seed, whatever filling the caches has drawn.
    # Ranks draw different dropout masks: theirs are different records.
    device.seed_generators(job.position.seed(run.spec.seed) + (run.process_group.rank << 40))
    # A CPU has no peak to compare with: one step is counted.
    counting_steps = warmup if run.device.type == "cuda" else min(warmup, 1)
    work = WorkMeter(run.device, counting_steps, run.process_group.size)
    steps = loop.train(job, timer, summary, run.emit, work)
    timing = work.complete(summary.timing())
    run.emit.send(timing)
    return timing, steps


def _report_untimed(run: Context[Any], timing: messages.Timing) -> None:
    """Send a notice where the run was too short to be timed."""
    if timing.timed_steps or timing.time_to_first_step is None:
        return
    text = (
        f"no step was timed: all were among the {timing.warmup_steps} of the timing warm-up; step "
        "and epoch times are n/a, while wall-clock, memory and losses are measured. Train more "
        "steps, or set timing_warmup_steps=0, which times the slow first step too"
    )
    run.emit.notice("not-timed", text)
