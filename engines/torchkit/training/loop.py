"""The training loop of all engines.

The engine provides the model, the batches and the loss (`TrainingJob`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from engines import messages
from engines.emitter import Emitter, Stopped
from engines.torchkit.checkpointing.training_identity import TrainingIdentity
from engines.torchkit.data.data_loader import Loader
from engines.torchkit.data.prefetch import Prefetcher
from engines.torchkit.modeling.master_weights import WeightCopies
from engines.torchkit.runtime.device import preserved_state
from engines.torchkit.runtime.distributed import ProcessGroup
from engines.torchkit.runtime.model_flops import WorkMeter
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training import job_checkpoints, numeric_checks
from engines.torchkit.training.optimization import set_lr
from engines.torchkit.training.stage_position import EpochEnd, StagePosition, TrainingHistory
from engines.torchkit.training.step_timing import StepTimer, TimingSummary
from engines.torchkit.training.weight_averaging import Swa, WeightAverage

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class LossOutput:
    """Output of a micro-batch: mean loss (0-d, with graph), metrics (0-d), number of samples."""

    loss: Tensor
    metrics: Mapping[str, Tensor]
    samples: int
    tokens: Tensor | None = None
    """Tokens of the language model's sequences, 0-d, without padding; None: it has none."""


@dataclass
class TrainingJob(Generic[Batch]):
    """Everything that the loop needs of a run."""

    model: nn.Module
    loader: Loader[Batch]
    transfer: Callable[[Batch], Batch]
    """Copies a batch to the device, asynchronously; on a GPU on the copy stream."""
    forward: Callable[[Batch], LossOutput]
    optimizer: torch.optim.Optimizer
    lr_at: Callable[[int], float]
    precision: Precision
    steps: int
    max_grad_norm: float
    weight_copies: WeightCopies[Any] | None = None
    """Copies of weights that `forward` computes with; `model` holds the master weights."""
    prepare: Callable[[int, Emitter], None] | None = None
    """Called before the first step with the number of steps done; not timed."""
    ema: WeightAverage | None = None
    swa: Swa | None = None
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: not by steps."""
    checkpoint_seconds: float = 0.0
    """Seconds between checkpoints; 0: not by the clock."""
    checkpoint_root: Path | None = None
    full_disk_is_fatal: bool = True
    """Whether a failed intermediate checkpoint ends the run; otherwise a notice is sent."""
    identity: TrainingIdentity | None = None
    """Identity of the training; None: checkpoints are not checked on resume."""
    process_group: ProcessGroup = field(default_factory=ProcessGroup)
    stop_at: int | None = None
    """Cost probe: the last step. Schedules and batches are those of `steps`."""
    stop_when: Callable[[messages.Step], bool] | None = None
    """Cost probe: called with every window; returns whether to stop."""
    after_epoch: Callable[[int], EpochEnd] | None = None
    """Called after each whole epoch with its number, from 1.

    Not timed. It must leave the model and the generators unchanged.
    """
    position: StagePosition = field(default_factory=StagePosition)
    """Place of this job in a training of several stages."""
    trained_before: frozenset[str] = frozenset()
    """Names of parameters that earlier stages trained: they are in the checkpoints too."""
    continues: bool = False
    """This process has just trained the stage before: there is nothing to resume from."""
    history: TrainingHistory = field(default_factory=TrainingHistory)
    """Completed epochs and stages."""

    @property
    def saved_identity(self) -> dict[str, Any]:
        """The identity as it is stored in a checkpoint."""
        return {"identity": self.identity.as_state()} if self.identity else {}

    @property
    def averages(self) -> dict[str, WeightAverage]:
        """The weight averages by their name in a checkpoint."""
        both: dict[str, WeightAverage | None] = {"ema": self.ema, "swa": self.swa}
        return {name: average for name, average in both.items() if average is not None}

    @property
    def last_step(self) -> int:
        """The last step at the latest; of a training that was stopped early its last."""
        stopped = self.history.stopped_at(self.position.number)
        return stopped or min(self.steps, self.stop_at or self.steps)


class TrainedSteps(NamedTuple):
    """The step that a training resumed after, 0 at its start, and its last one."""

    start: int
    end: int


def train(
    job: TrainingJob[Batch], timer: StepTimer, summary: TimingSummary, emit: Emitter,
    work: WorkMeter | None = None,
) -> TrainedSteps:  # fmt: skip
    """Train from the last checkpoint (or the start) to the last step.

    `work`: counts FLOPs and tokens; None: nobody asks.

    Raises:
        Stopped: the engine was asked to stop; raised after the current step and a checkpoint.
    """
    start = job_checkpoints.resume(job, emit)
    parameters = [p for p in job.model.parameters() if p.requires_grad]
    timer.warmup_until = start + timer.warmup_steps
    computing = _computing_model(job)
    work = _prepare(job, start, emit, work)
    emit.phase("warmup" if timer.warmup_steps else "train")
    feed = Prefetcher(job.loader.batches(start, job.last_step), job.transfer, job.precision.device)
    forward = numeric_checks.with_first_batch_check(job.forward, computing, job.precision)
    most_skipped = numeric_checks.skip_limit(job.loader.order.steps_per_epoch, job.steps)
    stop_vote, enough_vote = job.process_group.any_reduce(), job.process_group.any_reduce()
    checkpoint_timer, step, enough = job_checkpoints.CheckpointTimer(job), start, False
    for step in range(start + 1, job.last_step + 1):
        if not timer.running:
            timer.open()
        set_lr(job.optimizer, lr := job.lr_at(step - 1))
        micro_batches = job.loader.order.micro_batch_count(step - 1)
        outputs = _forward_backward(job, forward, (micro_batches, feed), timer, work)
        norm, overflow = _optimizer_step(job, parameters)
        timer.end_part("optimizer")
        timer.end_step(*_mean_outputs(outputs), norm, overflow)
        stopping = stop_vote(emit.stop_requested)
        finished = job.stop_when is not None and enough_vote(enough)
        leaving = stopping or finished or step == job.last_step
        saving = checkpoint_timer.is_due(step)
        if timer.is_due(step, first=step == start + 1) or leaving or saving:
            window = timer.close(step, lr)
            enough = job.stop_when is not None and job.stop_when(window)
            window = _report_window(job, window, summary, emit)
            numeric_checks.check_window(window, timer.skipped_in_a_row, most_skipped, emit)
        if step == timer.warmup_until and step > start:
            emit.phase("train")
        finished = _end_epoch(job, step, summary, emit) or finished
        if saving or stopping:
            job_checkpoints.save_intermediate(job, step, emit)
        if stopping:
            raise Stopped
        if finished or (enough and job.process_group.size == 1):  # ranks hear of it a step later
            break
    return TrainedSteps(start, step)


def _prepare(
    job: TrainingJob[Batch], start: int, emit: Emitter, work: WorkMeter | None
) -> WorkMeter:
    """What comes before the first step and is not timed; returns the meter of the steps."""
    work = work or WorkMeter(job.precision.device, 0)
    work.begin(start)
    if job.prepare is not None and start < job.last_step:
        work.count_compiled(lambda: _compute_batch(job, start))
        job.prepare(start, emit)
    return work


def _report_window(
    job: TrainingJob[Any], window: messages.Step, summary: TimingSummary, emit: Emitter
) -> messages.Step:
    """Add a window to the summary and send it; returns it at its position in the run."""
    summary.time_to_first_step = summary.time_to_first_step or emit.now()
    summary.add(window)
    window = job.position.shift(window)
    emit.send(window)
    return window


def _computing_model(job: TrainingJob[Any]) -> nn.Module:
    """The module that computes, in training mode: the model or its refreshed replica."""
    job.model.train()
    if job.weight_copies is None:
        return job.model
    job.weight_copies.refresh()
    model: nn.Module = job.weight_copies.model
    return model.train()


def _forward_backward(
    job: TrainingJob[Batch],
    forward: Callable[[Batch], LossOutput],
    micro_batches: tuple[int, Prefetcher[Batch]],
    timer: StepTimer,
    work: WorkMeter,
) -> list[LossOutput]:
    """Forward and backward pass of a step's micro-batches; gradients are of their mean.

    `micro_batches`: their number, and where they come from.
    """
    outputs: list[LossOutput] = []
    parts, feed = micro_batches
    for number in range(parts):
        feed.wait()
        timer.end_part("data_wait")
        batch = feed.next_batch()
        timer.end_part("transfer")
        # A replica's gradients are collected after each micro-batch and accumulated in float32.
        last = number == parts - 1 or job.weight_copies is not None
        with job.process_group.gradient_averaging(last):
            with work.forward(), job.precision.autocast():
                output = forward(batch)
            timer.end_part("forward")
            with work.backward():
                job.precision.scaler.scale(output.loss / parts).backward()  # type: ignore[no-untyped-call]
        if job.weight_copies is not None:
            job.weight_copies.collect_gradients()
        timer.end_part("backward")
        work.add(output.samples, output.tokens)
        feed.copy_ahead()
        outputs.append(output)
    work.end_step()
    return outputs


def _compute_batch(job: TrainingJob[Batch], start: int) -> int:
    """A forward pass of the first micro-batch, which changes nothing; returns its samples."""
    batch = job.transfer(next(job.loader.batches(start, start + 1)).result())
    with (
        preserved_state(job.model),
        job.process_group.gradient_averaging(last=False),
        job.precision.autocast(),
    ):
        return job.forward(batch).samples


def _end_epoch(job: TrainingJob[Any], step: int, summary: TimingSummary, emit: Emitter) -> bool:
    """Validate and summarize an epoch that ends after this step; whether training stops there."""
    epoch, rest = divmod(step, job.loader.order.steps_per_epoch)
    if rest or job.stop_at is not None:
        return False
    end = job.after_epoch(epoch) if job.after_epoch is not None else EpochEnd()
    loss, seconds = summary.epoch(epoch)
    job.history.add(
        messages.EpochSummary(
            stage=job.position.number, epoch=epoch, steps=job.loader.order.steps_per_epoch,
            loss=loss, seconds=seconds, validation=dict(end.metrics), since_best=end.since_best,
            patience=end.patience, stopped=end.stops,
        ),
        emit,
    )  # fmt: skip
    return end.stops


def _optimizer_step(
    job: TrainingJob[Any], parameters: list[nn.Parameter]
) -> tuple[Tensor, Tensor | None]:
    """One optimizer step with the accumulated gradients.

    Returns their norm before clipping, and whether fp16 scaling skipped the step (0-d, 0 or 1).
    """
    scaler = job.precision.scaler
    scaler.unscale_(job.optimizer)
    norm = nn.utils.clip_grad_norm_(parameters, job.max_grad_norm or float("inf"))
    overflow = job.precision.overflow(job.optimizer)
    scaler.step(job.optimizer)
    scaler.update()
    if job.weight_copies is not None:
        job.weight_copies.refresh()
    job.optimizer.zero_grad(set_to_none=True)
    for average in job.averages.values():
        average.update(overflow)
    return norm, overflow


def _mean_outputs(outputs: list[LossOutput]) -> tuple[int, Tensor, dict[str, Tensor]]:
    """Samples, mean loss and mean metrics of a step's micro-batches."""
    if len(outputs) == 1:
        only = outputs[0]
        return only.samples, only.loss.detach(), dict(only.metrics)
    loss = torch.stack([o.loss.detach() for o in outputs]).mean()
    names = outputs[0].metrics
    means = {n: torch.stack([o.metrics[n] for o in outputs]).mean() for n in names}
    return sum(o.samples for o in outputs), loss, means
