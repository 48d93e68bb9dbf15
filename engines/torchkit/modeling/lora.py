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

import torch
from torch import nn
from torch.nn import functional

from engines.emitter import EngineError

UNIT_VECTORS: Final = 512
"""Unit vectors in a pass of `merge_adapters`: at a width of 12,288 they take 25 MB in fp32."""


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
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    matched = {match[1] for match in map(reached.fullmatch, linear) if match}
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


@torch.no_grad()
def merge_adapters(model: nn.Module) -> int:
    """Replace every layer with adapters by one linear layer that computes the same; their number.

    The weights are read from the layer's outputs for unit vectors, so that LoRA and DoRA, whole and
    4-bit weights are merged alike. A 4-bit layer becomes a whole one in the dtype of its products:
    quantizing the sum again would round it. Call it in evaluation mode; it cannot be undone.
    """
    from peft.tuners.lora import LoraLayer

    adapted = [(name, m) for name, m in model.named_modules() if isinstance(m, LoraLayer)]
    for name, layer in adapted:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, _to_linear(layer))
    return len(adapted)


def _to_linear(layer: Any) -> nn.Linear:
    """A linear layer with the weights that a layer with adapters amounts to."""
    base = layer.get_base_layer()
    dtype = getattr(base, "compute_dtype", None) or base.weight.dtype
    device, width, height = base.weight.device, base.in_features, base.out_features
    weight = torch.empty(height, width, device=device, dtype=dtype)
    bias = layer(torch.zeros(1, width, device=device, dtype=dtype))
    for start in range(0, width, UNIT_VECTORS):
        rows = torch.arange(start, min(start + UNIT_VECTORS, width), device=device)
        vectors = functional.one_hot(rows, width).to(dtype)
        weight[:, start : start + len(rows)] = (layer(vectors) - bias).T
    merged = nn.Linear(width, height, bias=base.bias is not None, device="meta")
    merged.weight = nn.Parameter(weight, requires_grad=False)
    if base.bias is not None:
        merged.bias = nn.Parameter(base.bias.to(dtype), requires_grad=False)
    return merged


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
