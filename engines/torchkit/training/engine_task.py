"""Engine task: one run of an engine that trains, from spec to metrics, in phases.

The order of the phases, the plan message, training with its stages, and saving are the same in
every engine; an engine defines its data, model, batches, loss and evaluation.
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from engines import messages, trained_weights
from engines.emitter import Emitter
from engines.protocol import RunSpec
from engines.torchkit.modeling import quantize
from engines.torchkit.runtime import device, run_setup
from engines.torchkit.runtime.context import Context, Params
from engines.torchkit.runtime.model_flops import WorkMeter
from engines.torchkit.training import (
    cost_forecast,
    export,
    job_checkpoints,
    loop,
    trained_model,
)  # fmt: skip
from engines.torchkit.training.early_stopping import EpochEndValidation, discard_best
from engines.torchkit.training.stage_position import StagePosition, TrainingHistory
from engines.torchkit.training.step_timing import StepTimer, TimingSummary, stopwatch
from engines.torchkit.training.training_setup import TrainingSetup


class RunData(Protocol):
    """Subsets of a run."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the training subset."""

    @property
    def evaluated_samples(self) -> int:
        """Records of the subsets that are evaluated."""


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """A model that is ready to train or to evaluate; engines add its inputs."""

    model: Any
    revision: str
    facts: dict[str, str]
    state: dict[str, Any] = field(default_factory=dict)
    """Part of the checkpoint's state from which a later run builds the same model."""
    base: Path | None = None
    """Folder of a base that was trained from scratch; it is kept beside the weights."""
    files: dict[str, str] = field(default_factory=dict)
    """Text files that are kept beside the weights, by name."""

    @property
    def parameters(self) -> int:
        """Number of all parameters, two for each byte of 4-bit weights."""
        return quantize.logical_parameters(self.model)


Data = TypeVar("Data", bound=RunData)
Prepared = TypeVar("Prepared", bound=PreparedModel)
Job = loop.TrainingJob[Any]


@dataclass(frozen=True)
class TrainingStage:
    """One stage of a training."""

    setup: TrainingSetup
    create: Callable[[], Job]
    """Freezes what the stage does not train, and returns its job."""
    validation: EpochEndValidation | None = None
    """Validation at the ends of epochs; None: the engine has none."""
    position: StagePosition = field(default_factory=StagePosition)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the stage sets of its own."""

    def create_job(self) -> Job:
        """The job of the stage at its position, with its validation."""
        job, validation = self.create(), self.validation
        job.position = self.position
        if validation and validation.enabled and self.setup.run.spec.task == "train":
            job.after_epoch = validation.after_epoch
        return job

    def facts(self, job: Job, count: int) -> dict[str, str]:
        """Facts of the plan: place among `count` stages, and monitor of the validation."""
        monitored = self.validation.monitor.facts() if self.validation and job.after_epoch else {}
        stage = {"stage": f"{self.position.title} of {count}"} if self.position.number else {}
        return stage | monitored


class EngineTask(ABC, Generic[Params, Data, Prepared]):
    """One run of an engine that trains."""

    params_class: ClassVar[type[Any]]
    architecture: ClassVar[Sequence[str]]
    """Settings that a trained model fixes."""
    data: Data
    """Set when the phase `build` has ended."""
    ready: Prepared
    """Set when the phase `load` has ended."""

    def __init__(self, spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
        """Set the process up for the run, and resolve its model.

        Raises:
            EngineError: the settings do not fit the device or the model.
        """
        params: Params = self.params_class.model_validate(spec.params)
        self.context = self.resolve_model(run_setup.begin_run(spec, params, emit, run_dir))

    def resolve_model(self, context: Context[Params]) -> Context[Params]:
        """The context with the trained model that its spec names, if any."""
        return trained_model.resolve_trained_model(context, self.architecture)

    @abstractmethod
    def read_data(self) -> Data:
        """Build or open the subsets."""

    @abstractmethod
    def prepare(self) -> Prepared:
        """Load the model, on its device, and prepare its inputs."""

    @abstractmethod
    def create_stages(self) -> Sequence[TrainingStage]:
        """The stages of the training in order; a training without stages is one."""

    @abstractmethod
    def training_facts(self, params: Params, job: Job) -> dict[str, str]:
        """Facts of the plan about a stage with these settings, beside optimizer and schedule."""

    @abstractmethod
    def export(self) -> None:
        """Write the saved weights in the layout of another library."""

    def export_bytes(self) -> dict[str, int]:
        """Bytes of what `export` writes, by part: the adapters."""
        return {"adapter folder": export.adapter_bytes(self.ready.model)}

    @abstractmethod
    def cache_bytes(self) -> dict[str, int]:
        """Bytes of the run's caches, by part; other runs share them."""

    @abstractmethod
    def evaluate(self) -> None:
        """Evaluate the model on its splits, and report the memory peak."""

    def run(self) -> None:
        """Train and evaluate, or only evaluate."""
        context, target = self.context, self.context.device
        with context.process_group.rank_zero_first(context.emit):
            context.emit.phase("build")
            self.data = self.read_data()
            device.report_memory(context.emit, "build", target)
            self.ready = self.prepare()
            self.load_trained_weights()
        device.report_memory(context.emit, "load", target)
        if context.spec.task not in ("train", "probe"):
            self.send_plan()
        elif not self.train():
            return
        self.evaluate()
        if context.spec.task == "train":
            discard_best(context.run_dir / trained_weights.CHECKPOINTS)
        else:  # a training has left the group
            context.process_group.destroy()

    def load_trained_weights(self) -> None:
        """Load the weights that another run trained, if the spec names one.

        Raises:
            EngineError: they do not fit the model or its base.
        """
        if trained := self.context.trained:
            trained_model.check_base_weights(trained, self.ready.state.get("base_weights", {}))
            trained_model.load_trained_weights(self.ready.model, trained)

    def train(self) -> bool:
        """Train and save the model; returns whether this process goes on to evaluate."""
        context, stages = self.context, self.create_stages()
        if context.spec.task == "train" and context.process_group.is_rank_zero:
            for stage in stages:
                if stage.validation is not None:
                    stage.validation.check_monitor()
        job = train_stages(
            context, stages, lambda job: self.send_plan(job, stages), self.estimate_disk
        )
        if job is None:
            return False
        self.save(job)
        return True

    def send_plan(self, job: Job | None = None, stages: Sequence[TrainingStage] = ()) -> None:
        """Send the `Plan`; `job`: the training that begins, one of `stages`; None: no training."""
        context, ready = self.context, self.ready
        params: Any = context.params
        facts = {
            **ready.facts,
            **trained_model.facts(context),
            "precision": context.precision.description,
            **context.pipeline.facts,
        }
        order, trained, batch = None, 0, params.eval_batch_size
        if job is not None:
            stage = next(stage for stage in stages if stage.position == job.position)
            facts |= {
                "optimizer": f"AdamW{', fused' if params.fused else ''}",
                "schedule": "linear warm-up, then cosine to 0",
                **self.training_facts(stage.setup.run.params, job),
                **stage.facts(job, len(stages)),
            }
            order = job.loader.order
            trained = sum(p.numel() for p in job.model.parameters() if p.requires_grad)
        context.emit.send(
            messages.Plan(
                steps=sum(stage.setup.steps for stage in stages),
                samples=order.rows if order else self.data.evaluated_samples,
                epochs=sum(stage.setup.epochs for stage in stages),
                warmup_steps=min(params.timing_warmup_steps, job.steps) if job else 0,
                stop_at=(job.stop_at or 0) if job and len(stages) == 1 else 0,
                effective_batch=order.per_step if order else batch,
                micro_batch=order.batch if order else batch,
                parameters=ready.parameters,
                trainable_parameters=trained,
                subset_fingerprint=self.data.fingerprint,
                model_revision=ready.revision,
                facts=facts,
            )
        )

    def save(self, job: Job) -> None:
        """Save what was trained, and export it, as set."""
        params: Any = self.context.params
        ready = self.ready
        if params.save_model:
            state = {**ready.state, "subset_fingerprint": self.data.fingerprint}
            trained_model.save_trained_model(self.context, job, state, ready.files, ready.base)
            if params.export_model:
                self.export()

    def estimate_disk(self, job: Job) -> dict[str, int]:
        """Bytes that a whole run keeps on disk, by part."""
        params: Any = self.context.params
        on_the_way = params.checkpoint_every > 0 or params.checkpoint_minutes > 0
        exported = self.export_bytes() if params.save_model and params.export_model else {}
        return {
            **cost_forecast.checkpoint_bytes(job, kept=params.save_model, on_the_way=on_the_way),
            **{part: size for part, size in exported.items() if size},
            **self.cache_bytes(),
        }


def train_stages(
    run: Context[Any],
    stages: Sequence[TrainingStage],
    announce: Callable[[Job], None],
    disk: Callable[[Job], dict[str, int]],
) -> Job | None:
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
                if run.process_group.is_rank_zero:
                    discard_best(root)
        if stage is not stages[-1]:
            del job
            gc.collect()  # a job and its closures form cycles, which hold the optimizer's moments
    _report_untimed(run, timing)
    forecast = cost_forecast.join_forecasts(forecasts) if forecasts else None
    return job if _end_training(run, forecast) else None


def _end_stage(
    run: Context[Any],
    job: Job,
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
    run: Context[Any], job: Job, first_step: float | None = None
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
