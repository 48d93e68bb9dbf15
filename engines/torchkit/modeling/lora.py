"""LoRA through peft, with a check of the trainable parameters.

peft matches targets by name and trains whatever matches, so the trainable parameters are compared
with the requested ones afterwards.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from importlib.util import find_spec
from typing import Any, Final

from torch import nn

from engines.emitter import EngineError

PROJECTIONS: Final = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
)  # fmt: skip
"""The linear layers of a decoder block, as Llama, Qwen and their like name them."""


def add_lora(  # noqa: PLR0913 - one parameter for each setting
    model: Any, rank: int, alpha: int, dropout: float, targets: tuple[str, ...], within: str = "",
    *, use_dora: bool = False,
) -> Any:  # fmt: skip
    """The model with low-rank adapters on the linear layers with these names; all else is frozen.

    Hu et al. 2021, "LoRA": W + (alpha / rank) B A, with B zero at first. `within`: only inside of
    the module of that name; a vision tower's layers may have the names of the language model's
    (Qwen2.5-VL: gate_proj and others). `use_dora`: DoRA (Liu et al. 2024), which also trains the
    norm of each output's weights.

    Raises:
        EngineError: peft is missing, or a name matches no layer.
    """
    if find_spec("peft") is None:
        raise EngineError("lora_rank: package `peft` is missing; install it: pip install peft")
    from peft import LoraConfig, get_peft_model

    inside = rf"(?:.*\.)?{re.escape(within)}\." if within else ""
    reached = re.compile(rf"{inside}(?:.*\.)?([^.]+)")
    layers = [reached.fullmatch(name) for name, m in model.named_modules() if _linear(m)]
    matched = {match[1] for match in layers if match}
    if absent := [target for target in targets if target not in matched]:
        names = ", ".join(sorted(matched))
        raise EngineError(f"lora_targets: no linear layer '{absent[0]}'; this model has {names}")
    named = rf"{inside}(?:.*\.)?(?:{'|'.join(map(re.escape, targets))})"
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=named, bias="none",
        use_dora=use_dora,
    )  # fmt: skip
    with warnings.catch_warnings():  # peft 0.21 reads a name that transformers 5 calls deprecated
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(model, config)
    trained = re.compile(rf"{named}\.lora_(?:A|B|magnitude_vector)\..*")
    check_trainable(adapted, trained.fullmatch)
    return adapted


def check_trainable(model: nn.Module, expected: Any) -> None:
    """Check that exactly the parameters whose names are `expected` are trained.

    Raises:
        EngineError: a parameter differs; names the first.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad != bool(expected(name)):
            state = "is trained and should not be" if parameter.requires_grad else "is not trained"
            raise EngineError(f"parameter '{name}' {state}; use versions from requirements.lock")


def list_trainable(model: nn.Module) -> str:
    """The trainable parameters, those of equal layers together: `h.*.q.lora_A 4 x 4,096`."""
    tensors: Counter[tuple[str, int]] = Counter()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = re.sub(r"\.\d+(?=\.|$)", ".*", name).replace(".default.weight", "")
            tensors[plain.replace("base_model.model.", ""), parameter.numel()] += 1
    return "; ".join(
        f"{name} {f'{count} x ' if count > 1 else ''}{size:,}"
        for (name, size), count in tensors.items()
    )


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)  # bitsandbytes' Linear4bit is one too
