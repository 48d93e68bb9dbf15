"""Precision of fp32 matrix products on a GPU: TF32 where allowed, IEEE fp32 in scores.

TF32 rounds factors to 11 bits of mantissa. That is enough for a training step, but not for exact
search: cosines of like vectors are off by 1e-4, which changed the best passage of
0.5 % of 20,000 queries.

The switches are those of torch before 2.9. Its newer ones (`fp32_precision`) make reading the old
ones raise, which libraries do; set by the old ones, both can be read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def allow_tf32(on: bool) -> None:
    """Allow or forbid TF32 in fp32 products and convolutions of this process."""
    with warnings.catch_warnings():  # torch 2.9 to 2.14 call these switches old, once
        warnings.filterwarnings("ignore", "Please use the new API settings", UserWarning)
        torch.backends.cuda.matmul.allow_tf32 = on
        torch.backends.cudnn.allow_tf32 = on


def uses_tf32(device: torch.device) -> bool:
    """Whether fp32 products on this device use TF32: allowed, and Ampere or newer."""
    if device.type != "cuda" or not torch.backends.cuda.matmul.allow_tf32:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def ieee_fp32() -> Iterator[None]:
    """Context of IEEE fp32 products; a backward pass after the context is not covered."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def ieee_matmul(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` of float32 matrices [n, k] and [k, m] in IEEE fp32, gradients included."""
    result: Tensor = _IeeeMatmul.apply(a, b)
    return result


class _IeeeMatmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        with ieee_fp32():
            return a @ b

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        of_a, of_b = ctx.needs_input_grad
        with ieee_fp32():
            return (grads[0] @ b.mT if of_a else None, a.mT @ grads[0] if of_b else None)
