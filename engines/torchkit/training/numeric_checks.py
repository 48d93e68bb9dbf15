"""Whether the numbers of a training are numbers: the first batch, and the steps fp16 skips.

Apart from the loop, which computes. Nothing here waits for the device, but for the check of the
first batch: once a process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from engines import protocol
from engines.emitter import Emitter, EngineError

if TYPE_CHECKING:
    from engines.torchkit.runtime.precision import Precision
    from engines.torchkit.training.loop import Outcome

Batch = TypeVar("Batch")

MOST_SKIPPED: Final = 100
"""Steps in a row that fp16 scaling may skip."""

LEAST_SKIPPED: Final = 25
"""Fewer are no fault even where they are a whole epoch: the scale begins at 2**16 and is halved by
every skipped step, so 25 of them bring it to 2**-9. A sound model needs 0 to about 10."""

REMEDY: Final = {
    "fp16": "fp16 ends at 65,504: use precision = bf16 or fp32",
    "bf16": "the weights or the data hold such numbers: look at both, or use precision = fp32",
    "fp32": "the weights or the data hold such numbers: look at both",
}


def checked(
    forward: Callable[[Batch], Outcome], model: nn.Module, precision: Precision
) -> Callable[[Batch], Outcome]:
    """The same function, which looks once at what the first batch came to.

    Raises:
        EngineError: from the first call, where its loss is infinite or NaN: logits and vectors that
            are not finite make it so. Names the first module with such an output.
    """
    fresh = True

    def look(batch: Batch) -> Outcome:
        nonlocal fresh
        outcome = forward(batch)
        if fresh and not math.isfinite(loss := outcome.loss.item()):
            where = first_unfinite(model, lambda: forward(batch))
            raise EngineError(
                f"first batch: its loss is {loss} before anything is trained{where}; "
                f"{REMEDY[precision.name]}"
            )
        fresh = False
        return outcome

    return look


@torch.no_grad()
def first_unfinite(model: nn.Module, forward: Callable[[], Any]) -> str:
    """Words about the first module whose output is infinite or NaN when `forward` runs again."""
    if any(module._compiled_call_impl is not None for module in model.modules()):
        return ""  # a compiled module calls no hooks of those inside
    flags: list[tuple[str, Tensor]] = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
            numbers = [tensor for tensor in tensors if tensor.is_floating_point()]
            flags.extend((name, x.isfinite().all()) for x in numbers)

        return hook

    handles = [
        module.register_forward_hook(note(name)) for name, module in model.named_modules() if name
    ]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    broken = next((name for name, finite in flags if not finite), "")
    return f", and '{broken}' is the first module whose output is not finite" if broken else ""


def skip_limit(steps_per_epoch: int, steps: int) -> int:
    """Skipped steps in a row that end a run: a whole epoch within bounds, or all there are."""
    return min(MOST_SKIPPED, max(LEAST_SKIPPED, steps_per_epoch), steps)


def check_window(window: protocol.Step, skipped_in_a_row: int, limit: int, emit: Emitter) -> None:
    """Notices of a loss that is no number and of skipped steps.

    Raises:
        EngineError: so many steps in a row as `limit` were skipped.
    """
    if not math.isfinite(window.loss):
        emit.notice("loss-not-finite", f"the loss is {window.loss} at step {window.step}")
    if window.skipped_steps:
        emit.notice(
            "steps-skipped",
            f"{window.skipped_steps} of {window.count} steps up to step {window.step} changed no "
            "weight: their fp16 gradients overflowed, and the gradient scale was halved",
            window.skipped_steps,
        )
    if skipped_in_a_row >= limit:
        raise EngineError(
            f"step {window.step}: {skipped_in_a_row} steps in a row changed no weight, since their "
            f"gradients are infinite or NaN; {REMEDY['fp16']}"
        )
