"""4-bit weights through bitsandbytes, and what of a model really became 4-bit.

Apart because settings that name modules fail in silence: bitsandbytes skips nothing when a name
does not match (transformers 5.23: `llm_int8_skip_modules=["visual"]`). So module types are looked
at after loading.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engines.emitter import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = ("lm_head",)
"""Never quantised: the output layer, which small errors hurt most (bitsandbytes' own choice)."""


def nf4(compute: torch.dtype, *, double: bool, keep: tuple[str, ...] = KEPT) -> Any:
    """A configuration for `from_pretrained`: NF4 weights (Dettmers et al. 2023, "QLoRA").

    `compute`: type in which products are computed. On a CPU that is float32: bfloat16 products
    are several times slower there. `double`: quantise the scales too (0.37 bits a weight less).

    Raises:
        EngineError: bitsandbytes is missing.
    """
    if find_spec("bitsandbytes") is None:
        raise EngineError(
            "quantize = nf4: package `bitsandbytes` is missing; install the `qlora` extra: "
            "pip install 'workbench-mm[qlora]'"
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=list(keep),
    )


def four_bit(model: nn.Module) -> list[str]:
    """Names of the modules that hold 4-bit weights, by their type."""
    if find_spec("bitsandbytes") is None:
        return []
    from bitsandbytes.nn import Linear4bit

    return [name for name, module in model.named_modules() if isinstance(module, Linear4bit)]


def check_four_bit(model: nn.Module, meant: Callable[[str], bool]) -> int:
    """How many linear layers are 4-bit: exactly those whose name is `meant`.

    Raises:
        EngineError: a layer is 4-bit that should not be, or the other way round.
    """
    found = set(four_bit(model))
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    wanted = {name for name in linear if meant(name)}
    if wrong := sorted(found ^ wanted):
        state = "is 4-bit and should not be" if wrong[0] in found else "is not 4-bit"
        raise EngineError(
            f"quantize = nf4: {len(wrong)} of {len(linear)} linear layers are wrong, first "
            f"'{wrong[0]}', which {state}; use versions from requirements.lock, or quantize = none"
        )
    return len(found)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters as they lie in memory, with the scales of 4-bit weights."""
    total = 0
    for parameter in model.parameters():
        total += parameter.numel() * parameter.element_size()
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            total += sum(
                t.numel() * t.element_size()
                for t in (state.absmax, state.code, *_double(state))
                if isinstance(t, torch.Tensor)
            )
    return total


def logical_parameters(model: nn.Module) -> int:
    """Parameters as the model is described: two 4-bit weights lie in one byte."""
    return sum(_logical(parameter) for parameter in model.parameters())


def _logical(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else parameter.numel()


def _double(state: Any) -> tuple[Any, ...]:
    return (state.state2.absmax, state.state2.code, state.offset) if state.nested else ()
