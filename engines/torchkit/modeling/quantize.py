"""4-bit quantization through bitsandbytes, with a check of which layers became 4-bit.

Settings that name modules fail silently: bitsandbytes skips nothing when a name does not match
(transformers 5.23: `llm_int8_skip_modules=["visual"]`). So module types are checked after loading.
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
"""Never quantized: the output layer, which small errors hurt most (bitsandbytes' own choice)."""


def require_bitsandbytes() -> None:
    """Raise EngineError with the remedy where it is missing."""
    if find_spec("bitsandbytes") is None:
        raise EngineError(
            "quantize = nf4: package `bitsandbytes` is missing; install it: "
            "pip install bitsandbytes"
        )


def nf4_config(compute: torch.dtype, *, double: bool, keep: tuple[str, ...] = KEPT) -> Any:
    """A configuration for `from_pretrained`: NF4 weights (Dettmers et al. 2023, "QLoRA").

    `compute`: dtype of products, see `Precision.product_dtype`. `double`: quantize the scales too
    (0.37 bits a weight less).

    Raises:
        EngineError: bitsandbytes is missing.
    """
    require_bitsandbytes()
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # transformers
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=list(keep),
    )


def four_bit_layers(model: nn.Module) -> list[str]:
    """Names of the modules that hold 4-bit weights, by their type."""
    if find_spec("bitsandbytes") is None:
        return []
    from bitsandbytes.nn.modules import Linear4bit

    return [name for name, module in model.named_modules() if isinstance(module, Linear4bit)]


def keep_layout(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights at the first evaluation on a CPU.

    Where the CPU has AVX512-BF16, a forward pass in eval mode turns the weights, for good, into a
    layout with bfloat16 scales that has no gradient (0.50): training that goes on after a
    validation would be silently wrong, and widths that are no multiple of 64 raise.
    """
    for name in four_bit_layers(model):
        module: Any = model.get_submodule(name)
        module.support_avx512bf16_for_cpu = False


def check_four_bit(model: nn.Module, is_quantized: Callable[[str], bool]) -> int:
    """Check that exactly the linear layers that `is_quantized` names are 4-bit; their number.

    Raises:
        EngineError: a layer is 4-bit that should not be, or the other way round.
    """
    four_bit_names = set(four_bit_layers(model))
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    expected = {name for name in linear if is_quantized(name)}
    if wrong := sorted(four_bit_names ^ expected):
        state = "is 4-bit and should not be" if wrong[0] in four_bit_names else "is not 4-bit"
        raise EngineError(
            f"quantize = nf4: {len(wrong)} of {len(linear)} linear layers are wrong, first "
            f"'{wrong[0]}', which {state}; use versions from requirements.lock, or quantize = none"
        )
    return len(four_bit_names)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters in memory, with the scales of 4-bit weights."""
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
    """Number of parameters, two for each byte of packed 4-bit weights."""
    return sum(_logical(parameter) for parameter in model.parameters())


def _logical(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else parameter.numel()


def _double(state: Any) -> tuple[Any, ...]:
    return (state.state2.absmax, state.state2.code, state.offset) if state.nested else ()
