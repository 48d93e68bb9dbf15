"""The phase `compile`: what torch.compile needs time for happens before the first step is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from engines.emitter import Emitter
from engines.torchkit.training import loop


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Running statistics and generators are afterwards what they were; gradients are given up."""
    statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    with torch.random.fork_rng([torch.cuda.current_device()] if on_gpu else []):
        yield
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, before in statistics:
            buffer.copy_(before)


def with_first_batch(job: loop.Training[Any]) -> Callable[[int, Emitter], None]:
    """For `Training.prepare`: forward and backward of the run's first batch, which compiles both.

    Every rank does the same. Weights, optimizer and what is drawn later stay as they are.
    """

    def prepare(start: int, emit: Emitter) -> None:
        emit.phase("compile")
        batch = job.transfer(next(job.loader.batches(start, start + 1)).result())
        with untouched(job.model):
            with job.precision.autocast():
                outcome = job.forward(batch)
            outcome.loss.backward()  # type: ignore[no-untyped-call]

    return prepare
