"""Checkpoints of a training: when they are due, what they hold, and resuming from one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from engines.emitter import Emitter
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.checkpointing.trained_tensors import load_trained, trainable_tensors

if TYPE_CHECKING:
    from engines.torchkit.training.loop import TrainingJob


class CheckpointTimer:
    """When the next checkpoint is due: by steps, or by rank 0's clock."""

    def __init__(self, job: TrainingJob[Any]) -> None:
        self._job = job
        self._vote = job.process_group.any_reduce() if job.checkpoint_seconds else None
        self._saved = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether to save after this step; to be called once a step."""
        job, now = self._job, time.monotonic()
        due = bool(job.checkpoint_every) and step % job.checkpoint_every == 0
        if self._vote is not None:
            late = now - self._saved >= job.checkpoint_seconds
            due = self._vote(late and job.process_group.is_rank_zero) or due
        if due:
            self._saved = now
        return due


def save_intermediate(job: TrainingJob[Any], step: int, emit: Emitter) -> None:
    """`save_checkpoint`; where a full disk is not fatal, a notice instead of its error."""
    if emit.stop_requested:
        emit.phase("save")  # the warden waits longer for an engine that says so
    try:
        save_checkpoint(job, step)
    except OSError as error:
        if job.full_disk_is_fatal:
            raise
        emit.notice("checkpoint-failed", f"no checkpoint after step {step}: {error.strerror}")


def save_checkpoint(job: TrainingJob[Any], step: int) -> None:
    """Write a checkpoint to resume from, then remove older ones. A collective of all ranks."""
    if job.checkpoint_root is None:
        return
    random = job.process_group.gather_state(checkpoints.random_state())
    if not job.process_group.is_rank_zero:
        return
    groups: dict[str, Mapping[str, Tensor]] = {
        "model": trainable_tensors(job.model, job.trained_before),
        "optimizer": checkpoints.optimizer_tensors(job.optimizer),
        "random": random,
    }
    groups |= {name: average.tensors() for name, average in job.averages.items()}
    total = job.position.first_step + step
    kept = checkpoints.step_folder(job.checkpoint_root, total)
    checkpoints.save(kept, groups, {"step": total, **_saved_state(job, job.position.number)})
    checkpoints.remove_others(job.checkpoint_root, kept)


def save_stage_start(job: TrainingJob[Any], number: int) -> None:
    """Write the checkpoint that stage `number`, the one after this job, starts from."""
    if job.checkpoint_root is None or not job.process_group.is_rank_zero:
        return
    total = job.position.first_step + job.steps
    folder = checkpoints.step_folder(job.checkpoint_root, total)
    kept = folder.with_name(f"{folder.name}-stage{number}")  # sorts after one of the same step
    tensors = {"model": trainable_tensors(job.model, job.trained_before)}
    checkpoints.save(kept, tensors, {"step": total, **_saved_state(job, number)})
    checkpoints.remove_others(job.checkpoint_root, kept)


def _saved_state(job: TrainingJob[Any], stage: int) -> dict[str, Any]:
    """What a checkpoint of stage `stage` stores beside tensors and its step."""
    stages = {"stage": stage} if stage else {}
    state = {"scaler": job.precision.scaler.state_dict(), "history": job.history.as_state()}
    return {**stages, **state, **job.saved_identity}


def find_stage(root: Path) -> int:
    """Number of the stage that the newest sound checkpoint belongs to; 0: none, or no stages."""
    sound = (f for f in checkpoints.newest_first(root) if not checkpoints.find_problem(f))
    folder = next(sound, None)
    return checkpoints.read_stage(folder) if folder is not None else 0


def resume(job: TrainingJob[Any], emit: Emitter) -> int:
    """Load the newest sound checkpoint; returns the number of steps done, 0 without one.

    Final weights count too: such a run only has to be evaluated.
    """
    if job.checkpoint_root is None or job.continues:
        return 0
    for folder in checkpoints.newest_first(job.checkpoint_root):
        if problem := checkpoints.find_problem(folder):
            emit.notice("checkpoint-damaged", f"{problem}; it is passed over")
        elif (start := _continue(job, folder, emit)) is not None:
            stage = f" of {job.position.title}" if job.position.number else ""
            emit.notice("resumed", f"goes on after step {start} of {job.steps}{stage}")
            return start
    return 0


def _continue(job: TrainingJob[Any], folder: Path, emit: Emitter) -> int | None:
    """Load a checkpoint; None if it cannot be trained on.

    Raises:
        EngineError: it belongs to other data or settings.
    """
    groups, state = checkpoints.load(folder, next(job.model.parameters()).device)
    start = int(state["step"]) - job.position.first_step
    begins = bool(job.position.number) and start == 0  # with the weights of the stage before
    if state.get("stage", 0) != job.position.number:
        return None
    if "optimizer" not in groups and start < job.last_step and not begins:
        return None
    if job.identity and (change := job.identity.check(state.get("identity") or {}, folder)):
        emit.notice("checkpoint-changed", change)
    names = job.trained_before
    load_trained(job.model, groups["model"], folder, names, partly=begins)
    job.history.restore(state.get("history") or (), emit)
    for name, average in job.averages.items():
        average.load(groups[name])
    if "optimizer" in groups:
        checkpoints.load_optimizer(job.optimizer, groups["optimizer"])
        checkpoints.set_random_state(job.process_group.local_state(groups["random"]))
    if state.get("scaler"):
        job.precision.scaler.load_state_dict(state["scaler"])
    return start
