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


def need_bitsandbytes() -> None:
    """Raise EngineError with the remedy where it is missing."""
    if find_spec("bitsandbytes") is None:
        raise EngineError(
            "quantize = nf4: package `bitsandbytes` is missing; install the `qlora` extra: "
            "pip install 'workbench-mm[qlora]'"
        )


def nf4(compute: torch.dtype, *, double: bool, keep: tuple[str, ...] = KEPT) -> Any:
    """A configuration for `from_pretrained`: NF4 weights (Dettmers et al. 2023, "QLoRA").

    `compute`: type in which products are computed; see `precision.Precision.products`. `double`:
    quantise the scales too (0.37 bits a weight less).

    Raises:
        EngineError: bitsandbytes is missing.
    """
    need_bitsandbytes()
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # transformers
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
    from bitsandbytes.nn.modules import Linear4bit

    return [name for name, module in model.named_modules() if isinstance(module, Linear4bit)]


def keep_layout(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights at the first evaluation on a CPU.

    Where the CPU has AVX512-BF16, a forward pass in eval mode turns the weights, for good, into a
    layout with bfloat16 scales that has no gradient (0.50): training that went on after a look at
    the validation loss would be wrong without a word, and widths that are no multiple of 64 raise.
    """
    for name in four_bit(model):
        module: Any = model.get_submodule(name)
        module.support_avx512bf16_for_cpu = False


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
