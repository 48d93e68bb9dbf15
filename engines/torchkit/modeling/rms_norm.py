"""RMSNorm of transformers' language models by torch's fused kernel on a GPU.

transformers (5.23) writes it as eight operations, two of them conversions: to float32 and back. The
kernel reads and writes once, computes in float32 too, and multiplies by the weight before it rounds
the result, where transformers rounds before and after: the results differ by one rounding.
On a CPU torch has no such kernel, and the model's own code runs.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn import functional

WIDTH: Final = 8
"""Of the vectors on which a class is compared with torch's function."""
CLOSE: Final = 1e-6
"""Largest difference of float32 results that the order of operations may make."""


def use_fused_rms_norm(model: nn.Module) -> int:
    """Let the RMSNorms of `model` use torch's kernel where it applies; returns their number.

    A module whose class computes something else, such as Gemma's 1 + weight, is unchanged, and one
    with a forward pass of its own.
    """
    norms = []
    for module in model.modules():
        kind: Any = type(module)
        if "forward" not in vars(module) and is_rms_norm(kind):
            norms.append(module)
    for norm in norms:
        vars(norm)["forward"] = partial(_normalize, norm)
    return len(norms)


@cache
def is_rms_norm(module_class: Any) -> bool:
    """Whether modules of a class compute what torch's `rms_norm` does, by their `weight` and
    `variance_epsilon`, on random numbers."""
    if not module_class.__name__.endswith("RMSNorm"):
        return False
    with unset_fake_temporarily(), torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        x, weight = torch.randn(2, WIDTH, generator=generator, device="cpu").unbind()
        module: Any = module_class.__new__(module_class)
        nn.Module.__init__(module)
        module.weight, module.variance_epsilon = nn.Parameter(weight), 0.5
        try:
            output = module.forward(x)
        except (AttributeError, TypeError):  # other names, or further inputs
            return False
        expected = torch.rms_norm(x, (WIDTH,), weight, 0.5)
        return bool(torch.allclose(output, expected, rtol=0, atol=CLOSE))


def has_kernel(x: Tensor, weight: Tensor) -> bool:
    """Whether torch has a fused kernel for these: on a GPU, of one dtype."""
    return x.is_cuda and x.dtype == weight.dtype


def _normalize(norm: Any, x: Tensor) -> Tensor:
    """[..., W] -> [..., W] in the dtype of x."""
    if not has_kernel(x, norm.weight):
        output: Tensor = type(norm).forward(norm, x)
        return output
    with torch.autocast(x.device.type, enabled=False):  # it would convert to float32 and stay there
        return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)
