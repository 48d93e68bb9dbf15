"""Copies of adapter weights in the dtype of autocast, which converts them anew in every pass.

LoRA's weights are float32 and its layers many: in Qwen2.5-VL-3B autocast makes 504 conversions in a
forward pass, as many in a recomputed one and as many of gradients. Here one operation over lists
converts all of them after the optimizer's step, and one their gradients before it. The numbers are
those of autocast to the last bit: the same values are rounded in the same way.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from torch import Tensor, nn
from torch.nn import functional

from engines.torchkit.modeling.master_weights import Slot, WeightCopies
from engines.torchkit.runtime.precision import DTYPES, PrecisionName

MATRICES: Final = ("lora_A", "lora_B")
CAST: Final = "_cast_input_dtype"
"""peft's method that converts an input to the weights' dtype, from which autocast converts it back.
Dropout between both would draw and round in another dtype, so with dropout it is left alone.
"""


def copy_adapters(
    model: nn.Module, precision: PrecisionName, ranks: int = 1
) -> WeightCopies[nn.Module] | None:
    """Let the trained adapters of `model` compute with copies in training mode.

    In evaluation mode they compute with their own weights. None, and copies of an earlier call are
    gone: in float32, where none is trained, with DoRA, which reads the weights themselves, and with
    several ranks, which average the gradients of the weights themselves.
    """
    adapted = [module for module in model.modules() if _list_matrices(module)]
    for module in adapted:
        vars(module).pop(CAST, None)
        for matrix in _list_matrices(module):
            vars(matrix).pop("forward", None)
    if precision == "fp32" or ranks > 1:
        return None
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    slots: dict[str, Slot] = {}
    for module in adapted:
        for matrix in _list_matrices(module):
            if matrix.weight.requires_grad:
                copied = nn.Parameter(matrix.weight.detach().to(DTYPES[precision]))
                vars(matrix)["forward"] = partial(_compute, matrix, copied)
                if not _has_dropout(module):
                    vars(module)[CAST] = partial(_cast_input, module)
                slots[names[id(matrix.weight)]] = Slot(copied, slice(None))
    return WeightCopies(model, model, slots) if slots else None


def _list_matrices(module: nn.Module) -> list[nn.Linear]:
    """The linear layers of a module's LoRA; none of a variant of LoRA."""
    groups = [getattr(module, name, None) for name in MATRICES]
    variants = getattr(module, "lora_variant", None) or ()
    return [
        layer
        for group in groups
        if isinstance(group, nn.ModuleDict)
        for adapter, layer in group.items()
        if isinstance(layer, nn.Linear) and adapter not in variants
    ]


def _has_dropout(module: Any) -> bool:
    return not all(isinstance(part, nn.Identity) for part in module.lora_dropout.values())


def _compute(matrix: nn.Linear, copied: nn.Parameter, x: Tensor) -> Tensor:
    """The layer's product: with the copy in training mode, else with its own weight."""
    return functional.linear(x, copied if matrix.training else matrix.weight, matrix.bias)


def _cast_input(module: Any, x: Tensor, *dtype: Any) -> Tensor:
    """In training mode autocast alone converts inputs; else as peft does it."""
    if module.training:
        return x
    output: Tensor = getattr(type(module), CAST)(module, x, *dtype)
    return output
