"""Gradient checkpointing: activations are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def enable_gradient_checkpointing(model: Any, *, random: bool = True) -> None:
    """Enable gradient checkpointing of a model of transformers.

    `random`: with the same dropout as in the forward pass. transformers and peft would also make
    the input layers' outputs require gradients, which only reentrant checkpointing needs; a frozen
    vision tower, which has an input layer too, would be differentiated needlessly.
    """
    model.enable_input_require_grads = _do_nothing
    # Renamed in transformers 5; the old name warns, and goes in 6.
    enable: Callable[[dict[str, Any]], None] | None
    enable = getattr(model, "activation_checkpointing_enable", None)
    settings = {"use_reentrant": False, "preserve_rng_state": random}
    (enable or model.gradient_checkpointing_enable)(settings)


def _do_nothing() -> None:
    """Replaces `enable_input_require_grads`."""
