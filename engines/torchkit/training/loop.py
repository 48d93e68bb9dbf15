"""The one training loop: every engine trains with it, and it is all that is timed.

It computes, counts and saves; what a batch is and what a loss is come from the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from engines import protocol
from engines.emitter import Emitter, EngineError, Stopped
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.checkpointing.training_identity import TrainingIdentity
from engines.torchkit.data.data_loader import Loader
from engines.torchkit.data.prefetch import Prefetcher
from engines.torchkit.modeling.master_weights import Replica
from engines.torchkit.runtime.distributed import Team
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training import numeric_checks
from engines.torchkit.training.optimizers import set_lr
from engines.torchkit.training.step_timing import Ledger, Meter
from engines.torchkit.training.weight_averaging import Average, Swa

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Outcome:
    """One micro-batch: its mean loss (0-d, with graph), its metrics (0-d) and its size."""

    loss: Tensor
    metrics: Mapping[str, Tensor]
    samples: int


@dataclass
class Training(Generic[Batch]):
    """All that the loop uses."""

    model: nn.Module
    loader: Loader[Batch]
    transfer: Callable[[Batch], Batch]
    """To the device, not blocking; on a GPU on the stream of copies."""
    forward: Callable[[Batch], Outcome]
    optimizer: torch.optim.Optimizer
    lr_at: Callable[[int], float]
    precision: Precision
    steps: int
    clip_norm: float
    replica: Replica[Any] | None = None
    """What `forward` computes with, where that is a copy of `model`, whose weights learn."""
    prepare: Callable[[int, Emitter], None] | None = None
    """Called before the first step with the number of steps already done, in no step's time."""
    ema: Average | None = None
    swa: Swa | None = None
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: not by steps."""
    checkpoint_seconds: float = 0.0
    """Seconds between checkpoints; 0: not by the clock."""
    checkpoint_root: Path | None = None
    full_disk_is_fatal: bool = True
    """A checkpoint on the way that cannot be written ends the run; otherwise a notice says so."""
    identity: TrainingIdentity | None = None
    """What a checkpoint belongs to; None: checkpoints are not checked."""
    team: Team = field(default_factory=Team)
    stop_at: int | None = None
    """A costing run: the last step that is done. Schedules and batches stay those of `steps`."""
    stop_when: Callable[[protocol.Step], bool] | None = None
    """A costing run: asked at the end of every window whether enough is known."""
    after_epoch: Callable[[int], bool] | None = None
    """Asked after each whole epoch (its number, from 1) whether training should end there.

    In no step's time. The model and the generators must be left as they were found.
    """

    @property
    def saved_identity(self) -> dict[str, Any]:
        """The identity as a checkpoint keeps it."""
        return {"identity": self.identity.as_state()} if self.identity else {}

    @property
    def averages(self) -> dict[str, Average]:
        """The running averages of the weights, by the name that a checkpoint keeps them under."""
        both: dict[str, Average | None] = {"ema": self.ema, "swa": self.swa}
        return {name: average for name, average in both.items() if average is not None}

    @property
    def last_step(self) -> int:
        """The step after which training ends at the latest."""
        return min(self.steps, self.stop_at or self.steps)


def train(job: Training[Batch], meter: Meter, ledger: Ledger, emit: Emitter) -> None:
    """Train from where the last checkpoint ends (or the start) to the last step.

    Raises:
        Stopped: as asked, after the step at hand and a checkpoint.
    """
    start = resume(job, emit)
    parameters = [p for p in job.model.parameters() if p.requires_grad]
    meter.warmup_until = start + meter.warmup_steps
    computing = _computing_model(job)
    if job.prepare is not None and start < job.last_step:
        job.prepare(start, emit)
    emit.phase("warmup" if meter.warmup_steps else "train")
    batches = job.loader.batches(start, job.last_step)
    feed = Prefetcher(batches, job.transfer, job.precision.device)
    forward = numeric_checks.checked(job.forward, computing, job.precision)
    most_skipped = numeric_checks.skip_limit(job.loader.order.steps_per_epoch, job.steps)
    stop_vote, enough_vote, due, enough = job.team.vote(), job.team.vote(), Due(job), False
    for step in range(start + 1, job.last_step + 1):
        if not meter.running:
            meter.open()
        lr = job.lr_at(step - 1)
        set_lr(job.optimizer, lr)
        outcomes = _compute(job, forward, job.loader.order.parts(step - 1), feed, meter)
        norm, overflow = _update(job, parameters)
        meter.lap("optimizer")
        meter.end_step(*_sum(outcomes), norm, overflow)
        stopping = stop_vote(emit.stop_requested)
        finished = job.stop_when is not None and enough_vote(enough)
        leaving = stopping or finished or step == job.last_step
        saving = due.at(step)
        first = step == start + 1
        if meter.due(step, first=first) or leaving or saving:
            window = meter.close(step, lr)
            if first:
                ledger.time_to_first_step = emit.now()
            ledger.add(window)
            emit.send(window)
            enough = job.stop_when is not None and job.stop_when(window)
            numeric_checks.check_window(window, meter.skipped_in_a_row, most_skipped, emit)
        if step == meter.warmup_until and step > start:
            emit.phase("train")
        finished = _ends_epoch(job, step) or finished
        if saving or stopping:
            save_on_the_way(job, step, emit)
        if stopping:
            raise Stopped
        if finished or (enough and job.team.size == 1):  # several ranks hear of it a step later
            break


def _computing_model(job: Training[Any]) -> nn.Module:
    """The module that computes, in training mode: the model or its replica, brought up to date."""
    job.model.train()
    if job.replica is None:
        return job.model
    job.replica.refresh()
    model: nn.Module = job.replica.model
    return model.train()


def _compute(
    job: Training[Batch],
    forward: Callable[[Batch], Outcome],
    parts: int,
    feed: Prefetcher[Batch],
    meter: Meter,
) -> list[Outcome]:
    """Forward and backward pass of a step's `parts` micro-batches; gradients are of their mean."""
    outcomes: list[Outcome] = []
    for number in range(parts):
        feed.wait()
        meter.lap("data_wait")
        batch = feed.take()
        meter.lap("transfer")
        # A replica's gradients leave it after each micro-batch, to be added up in float32.
        last = number == parts - 1 or job.replica is not None
        with job.team.averaging(last):
            with job.precision.autocast():
                outcome = forward(batch)
            meter.lap("forward")
            job.precision.scaler.scale(outcome.loss / parts).backward()  # type: ignore[no-untyped-call]
        if job.replica is not None:
            job.replica.collect()
        meter.lap("backward")
        feed.look_ahead()
        outcomes.append(outcome)
    return outcomes


def _ends_epoch(job: Training[Any], step: int) -> bool:
    """Whether an epoch ends after this step and `after_epoch` says that training does too."""
    epoch, rest = divmod(step, job.loader.order.steps_per_epoch)
    return job.after_epoch is not None and not rest and job.after_epoch(epoch)


def _update(job: Training[Any], parameters: list[nn.Parameter]) -> tuple[Tensor, Tensor | None]:
    """One optimizer step with the gradients at hand.

    Returns their norm before clipping, and whether fp16 scaling skipped the step (0-d, 0 or 1).
    """
    scaler = job.precision.scaler
    scaler.unscale_(job.optimizer)
    norm = nn.utils.clip_grad_norm_(parameters, job.clip_norm or float("inf"))
    overflow = job.precision.overflow(job.optimizer)
    scaler.step(job.optimizer)
    scaler.update()
    if job.replica is not None:
        job.replica.refresh()
    job.optimizer.zero_grad(set_to_none=True)
    for average in job.averages.values():
        average.update(overflow)
    return norm, overflow


def _sum(outcomes: list[Outcome]) -> tuple[int, Tensor, dict[str, Tensor]]:
    """Samples, mean loss and mean metrics of a step's micro-batches."""
    if len(outcomes) == 1:
        only = outcomes[0]
        return only.samples, only.loss.detach(), dict(only.metrics)
    loss = torch.stack([o.loss.detach() for o in outcomes]).mean()
    names = outcomes[0].metrics
    means = {n: torch.stack([o.metrics[n] for o in outcomes]).mean() for n in names}
    return sum(o.samples for o in outcomes), loss, means


class Due:
    """When the next checkpoint is due: by steps, or by the leader's clock."""

    def __init__(self, job: Training[Any]) -> None:
        self._job = job
        self._vote = job.team.vote() if job.checkpoint_seconds else None
        self._saved = time.monotonic()

    def at(self, step: int) -> bool:
        """Whether to save after this step; to be asked once a step."""
        job, now = self._job, time.monotonic()
        due = bool(job.checkpoint_every) and step % job.checkpoint_every == 0
        if self._vote is not None:
            late = now - self._saved >= job.checkpoint_seconds
            due = self._vote(late and job.team.leads) or due
        if due:
            self._saved = now
        return due


def save_on_the_way(job: Training[Any], step: int, emit: Emitter) -> None:
    """`save`; where a full disk is not fatal, a notice instead of its error."""
    if emit.stop_requested:
        emit.phase("save")  # the warden waits longer for an engine that says so
    try:
        save(job, step)
    except OSError as error:
        if job.full_disk_is_fatal:
            raise
        emit.notice("checkpoint-failed", f"no checkpoint after step {step}: {error.strerror}")


def save(job: Training[Any], step: int) -> None:
    """Write a checkpoint to resume from, then remove older ones. Every rank must come here."""
    if job.checkpoint_root is None:
        return
    random = job.team.collect(checkpoints.random_state())
    if not job.team.leads:
        return
    groups: dict[str, Mapping[str, Tensor]] = {
        "model": trainable_tensors(job.model),
        "optimizer": checkpoints.optimizer_tensors(job.optimizer),
        "random": random,
    }
    groups |= {name: average.tensors() for name, average in job.averages.items()}
    state = {"step": step, "scaler": job.precision.scaler.state_dict(), **job.saved_identity}
    kept = checkpoints.step_folder(job.checkpoint_root, step)
    checkpoints.save(kept, groups, state)
    checkpoints.remove_others(job.checkpoint_root, kept)


def resume(job: Training[Any], emit: Emitter) -> int:
    """Continue from the newest whole checkpoint; returns the steps already done.

    Weights that were kept at the end count too: what is left then is to evaluate them.
    """
    if job.checkpoint_root is None:
        return 0
    for folder in checkpoints.newest_first(job.checkpoint_root):
        if problem := checkpoints.problem(folder):
            emit.notice("checkpoint-damaged", f"{problem}; it is passed over")
        elif (start := _continue(job, folder, emit)) is not None:
            emit.notice("resumed", f"goes on after step {start} of {job.last_step}")
            return start
    return 0


def _continue(job: Training[Any], folder: Path, emit: Emitter) -> int | None:
    """Load a checkpoint; None if it cannot be trained on.

    Raises:
        EngineError: it belongs to other data or settings.
    """
    groups, state = checkpoints.load(folder, next(job.model.parameters()).device)
    start = int(state["step"])
    if "optimizer" not in groups and start < job.last_step:
        return None
    if job.identity and (change := job.identity.check(state.get("identity") or {}, folder)):
        emit.notice("checkpoint-changed", change)
    load_trained(job.model, groups["model"], folder)
    for name, average in job.averages.items():
        average.load(groups[name])
    if "optimizer" in groups:
        checkpoints.load_optimizer(job.optimizer, groups["optimizer"])
        checkpoints.set_random_state(job.team.own(groups["random"]))
        if state["scaler"]:
            job.precision.scaler.load_state_dict(state["scaler"])
    return start


def load_trained(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Put a checkpoint's tensors into the model: every one that training changes, and no other.

    Raises:
        EngineError: they are those of another model. torch would leave out what does not fit.
    """
    wanted = trainable_tensors(model)
    odd = sorted(wanted.keys() ^ tensors.keys())
    odd += [name for name in wanted.keys() & tensors.keys()
            if wanted[name].shape != tensors[name].shape]  # fmt: skip
    if odd:
        raise EngineError(
            f"{folder}: is a checkpoint of another model ({len(odd)} tensors differ, first "
            f"{odd[0]}); restore the model, or start a new suite"
        )
    model.load_state_dict(tensors, strict=False)


def trainable_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, by name: parameters, and running statistics of batch norms.

    A frozen tower's weights are not saved again with every run.
    """
    kept = model.state_dict().keys()
    statistics = {n: b for n, b in model.named_buffers() if n in kept}
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad} | statistics
