"""What a step really allocates: the oracle of the memory forecasts of all engines.

On a CPU by the allocator's events as torch's profiler reports them, on a GPU by torch's own count.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from engines.torchkit.training.weight_averaging import Ema

Step = Callable[[], None]


def of(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors that live between the steps."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def of_state(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's moments."""
    return of(tensor for state in optimizer.state.values() for tensor in state.values())


def end_step(model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None = None) -> None:
    """What follows the backward passes of a step, as the loop does it."""
    trained = [p for p in model.parameters() if p.requires_grad]
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if ema:
        ema.update()


def peak(step: Step) -> int:
    """Most bytes that come and go at once in a step on the CPU."""
    gc.collect()  # what an earlier step left would be freed within this one
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    sums = itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return max(sums)


def peak_on_gpu(step: Step) -> int:
    """Most bytes that live at once: with what lives between steps and cuBLAS's workspace."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()
