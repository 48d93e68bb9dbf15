"""Phase `compile`: torch.compile runs before the first step, so that no step's time has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from engines.emitter import Emitter
from engines.torchkit.training import loop


@contextmanager
def preserved_state(model: nn.Module) -> Iterator[None]:
    """Context that restores buffers and generators afterwards, and drops gradients."""
    statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    with torch.random.fork_rng([torch.cuda.current_device()] if on_gpu else []):
        yield
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, before in statistics:
            buffer.copy_(before)


def compile_on_first_batch(job: loop.TrainingJob[Any]) -> Callable[[int, Emitter], None]:
    """For `TrainingJob.prepare`: forward and backward of the first batch, which compiles both.

    On every rank. Weights, optimizer and random numbers of the training are unchanged.
    """

    def prepare(start: int, emit: Emitter) -> None:
        emit.phase("compile")
        batch = job.transfer(next(job.loader.batches(start, start + 1)).result())
        with preserved_state(job.model):
            with job.precision.autocast():
                outcome = job.forward(batch)
            outcome.loss.backward()  # type: ignore[no-untyped-call]

    return prepare
