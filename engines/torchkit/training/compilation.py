"""Phase `compile`: torch.compile runs before the first step, so that no step's time has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engines.emitter import Emitter
from engines.torchkit.runtime.device import preserved_state
from engines.torchkit.training import loop


def compile_on_first_batch(job: loop.TrainingJob[Any]) -> Callable[[int, Emitter], None]:
    """For `TrainingJob.prepare`: forward and backward of the first batch, which compiles both.

    On every rank. Weights, gradients, optimizer and random numbers of the training are unchanged.
    """

    def prepare(start: int, emit: Emitter) -> None:
        emit.phase("compile")
        batch = job.transfer(next(job.loader.batches(start, start + 1)).result())
        with preserved_state(job.model):
            with job.precision.autocast():
                outcome = job.forward(batch)
            outcome.loss.backward()  # type: ignore[no-untyped-call]
        if job.weight_copies is not None:
            job.weight_copies.drop_gradients()

    return prepare
