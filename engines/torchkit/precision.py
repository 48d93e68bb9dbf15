"""Numeric precision as a named switch: bf16 and fp16 autocast or plain fp32."""

from __future__ import annotations

from typing import Any, Final, Literal

import torch
from torch import Tensor

from engines.emitter import EngineError

Name = Literal["bf16", "fp16", "fp32"]

DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def best(device: torch.device) -> Name:
    """What a device computes well in: bf16 from Ampere on, fp16 on older GPUs, fp32 on a CPU."""
    if device.type != "cuda":
        return "fp32"
    return "bf16" if _has_bf16() else "fp16"


def _has_bf16() -> bool:
    """In hardware: torch calls a T4 capable too, which emulates it."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


class Precision:
    """Autocast and, for fp16, the gradient scaler that keeps small gradients from vanishing."""

    def __init__(self, asked: Name | Literal["auto"], device: torch.device) -> None:
        """Raises EngineError where the GPU has no bf16 (a T4, say)."""
        name = best(device) if asked == "auto" else asked
        if name == "bf16" and device.type == "cuda" and not _has_bf16():
            gpu = torch.cuda.get_device_name(device)
            raise EngineError(f"precision = bf16: {gpu} has no bf16; use fp16")
        self.name: Name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> torch.autocast:
        """The context of every forward pass."""
        on = self.name != "fp32"
        dtype = DTYPES[self.name] if on else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=on)

    def overflow(self, optimizer: torch.optim.Optimizer) -> Tensor | None:
        """1.0 where a gradient of this step is infinite or NaN, so that the scaler skips the step.

        0-d, float32, on the device; does not wait. To be read between the scaler's `unscale_` and
        its `update`. None: gradients are not scaled, and no step is skipped.
        """
        if not self.scaler.is_enabled():
            return None
        # Not public. `get_scale` before and after `update` would wait for the device twice a step.
        found: dict[Any, Tensor] = self.scaler._found_inf_per_device(optimizer)
        return sum(found.values(), torch.zeros((), device=self.device)).clamp(max=1.0)
