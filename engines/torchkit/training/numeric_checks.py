"""Checks for NaN and infinity: loss of the first batch, and steps that fp16 scaling skips.

Only the check of the first batch waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from engines import messages
from engines.emitter import Emitter, EngineError

if TYPE_CHECKING:
    from engines.torchkit.runtime.precision import Precision
    from engines.torchkit.training.loop import LossOutput

Batch = TypeVar("Batch")

MOST_SKIPPED: Final = 100
"""Steps in a row that fp16 scaling may skip, at most."""

LEAST_SKIPPED: Final = 25
"""Fewer are no fault even where they are a whole epoch: the scale begins at 2**16 and is halved by
every skipped step, so 25 of them bring it to 2**-9. A sound model needs 0 to about 10."""

REMEDY: Final = {
    "fp16": "fp16 ends at 65,504: use precision = bf16 or fp32",
    "bf16": "the weights or the data hold such numbers: look at both, or use precision = fp32",
    "fp32": "the weights or the data hold such numbers: look at both",
}


def with_first_batch_check(
    forward: Callable[[Batch], LossOutput], model: nn.Module, precision: Precision
) -> Callable[[Batch], LossOutput]:
    """`forward` with a check that the loss of the first batch is finite.

    Raises:
        EngineError: from the first call, where its loss is infinite or NaN; names the first module
            whose output is.
    """
    fresh = True

    def check(batch: Batch) -> LossOutput:
        nonlocal fresh
        outcome = forward(batch)
        if fresh and not math.isfinite(loss := outcome.loss.item()):
            module_note = first_unfinite(model, lambda: forward(batch))
            raise EngineError(
                f"first batch: its loss is {loss} before anything is trained{module_note}; "
                f"{REMEDY[precision.name]}"
            )
        fresh = False
        return outcome

    return check


@torch.no_grad()
def first_unfinite(model: nn.Module, forward: Callable[[], Any]) -> str:
    """Note on the first module whose output is infinite or NaN when `forward` runs again."""
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
    """Skipped steps in a row that end a run: an epoch's, within bounds, or all of the run."""
    return min(MOST_SKIPPED, max(LEAST_SKIPPED, steps_per_epoch), steps)


def check_window(window: messages.Step, skipped_in_a_row: int, limit: int, emit: Emitter) -> None:
    """Send notices of a non-finite loss and of skipped steps.

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
