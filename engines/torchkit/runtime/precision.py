"""Numeric precision of a run: bf16 or fp16 autocast, or fp32.

`auto` is what the device has in hardware: bf16 from compute capability 8.0 on, fp16 with
gradient scaling on older GPUs, bf16 on a CPU that has it and fp32 on every other CPU.
"""

from __future__ import annotations

import time
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from engines.cuda_support import BF16, bf16_problem
from engines.emitter import EngineError
from engines.torchkit.runtime.matmul_precision import uses_tf32

PrecisionName = Literal["bf16", "fp16", "fp32"]

DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
PROBE_ROWS, PROBE_WIDTH, PROBE_ROUNDS = 128, 384, 3
"""Size of the timed product where a CPU lacks a precision: one of MiniLM's, 0.1 s in all."""


def best_precision(device: torch.device, ranks: int = 1) -> PrecisionName:
    """Fastest precision of a device; with `ranks` GPUs, one that all of them have."""
    if has_bf16(device, ranks):
        return "bf16"
    return "fp16" if device.type == "cuda" else "fp32"


def has_bf16(device: torch.device, ranks: int = 1) -> bool:
    """Whether a device has bf16 in hardware; torch calls a T4 capable too, which emulates it."""
    if device.type != "cuda":
        return cpu_supports("bf16")
    devices = range(ranks) if ranks > 1 else (device,)
    return all(torch.cuda.get_device_capability(gpu) >= BF16 for gpu in devices)


def cpu_supports(name: PrecisionName) -> bool:
    """Whether this CPU computes products of a precision in hardware, as torch reports it.

    Elsewhere torch falls into a kernel without vector instructions, several times slower than fp32.
    Of a CPU with AVX512 and no bf16 instruction torch reports support too: oneDNN converts there.
    """
    if name == "fp32":
        return True
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch
        return False
    if name == "fp16":
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    cpu = torch.cpu
    converts = cpu._is_avx512_supported() and not (
        cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
    )
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and not converts


def measured_slowdown(name: PrecisionName) -> float:
    """CPU time of a matrix product in a precision, relative to fp32; measured now, ~0.1 s.

    On one thread and by the thread's clock: on a busy machine threads wait for each other far
    longer than a product of this size takes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _product_seconds(DTYPES[name]) / _product_seconds(torch.float32)
    finally:
        torch.set_num_threads(threads)


def _product_seconds(dtype: torch.dtype) -> float:
    rows = torch.ones(PROBE_ROWS, PROBE_WIDTH, dtype=dtype)
    weight = torch.ones(PROBE_WIDTH, PROBE_WIDTH, dtype=dtype)
    functional.linear(rows, weight)  # the first one chooses a kernel
    rounds = []
    for _ in range(PROBE_ROUNDS):
        began = time.thread_time()
        functional.linear(rows, weight)
        rounds.append(time.thread_time() - began)
    return max(min(rounds), 1e-9)


class Precision:
    """Autocast and, for fp16, the gradient scaler that keeps small gradients from vanishing."""

    def __init__(
        self, choice: PrecisionName | Literal["auto"], device: torch.device, ranks: int = 1
    ) -> None:
        """Raises EngineError where the GPU has no bf16 (a T4, say)."""
        name = best_precision(device, ranks) if choice == "auto" else choice
        if name == "bf16" and device.type == "cuda" and not has_bf16(device, ranks):
            raise EngineError(bf16_problem("precision", torch.cuda.get_device_name(device)))
        self.name: PrecisionName = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    @property
    def weight_dtype(self) -> torch.dtype:
        """dtype of frozen weights that are not quantized: float32 on a CPU."""
        return DTYPES[self.name] if self.device.type == "cuda" else torch.float32

    @property
    def product_dtype(self) -> torch.dtype:
        """dtype of products with 4-bit weights."""
        return choose_product_dtype(self.name, self.device.type)

    def emulation_notice(self) -> str:
        """Sentence for a CPU that emulates the precision, with the measured slowdown; or empty."""
        if self.device.type != "cpu" or cpu_supports(self.name):
            return ""
        return (
            f"precision = {self.name}: this CPU does not compute it in hardware; a matrix product "
            f"took {measured_slowdown(self.name):.1f} times as long as in fp32; precision = auto "
            "takes fp32"
        )

    @property
    def description(self) -> str:
        """Name of the precision, and whether fp32 products use TF32."""
        tf32 = self.name == "fp32" and uses_tf32(self.device)
        return "fp32, products in TF32" if tf32 else self.name

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
        overflows: dict[Any, Tensor] = self.scaler._found_inf_per_device(optimizer)
        return sum(overflows.values(), torch.zeros((), device=self.device)).clamp(max=1.0)


def choose_product_dtype(name: PrecisionName, target: str) -> torch.dtype:
    """dtype of products with 4-bit weights on `target` (cuda or cpu)."""
    return DTYPES[name] if target == "cuda" or cpu_supports(name) else torch.float32
