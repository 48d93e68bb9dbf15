"""Frozen pretrained models of transformers from a local folder, quantized to 4 bits or whole.

No code of the folder is run: the configuration is stripped of keys that choose code, attention is
passed explicitly, and weights are safetensors only. Module types are checked after loading.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from engines.emitter import EngineError
from engines.process_memory import collection_paused
from engines.torchkit.modeling import quantize, weights
from engines.torchkit.modeling.model_config import build_config, names_own_code, read_config
from engines.torchkit.runtime.precision import Precision


@dataclass(frozen=True)
class ModelKind:
    """A kind of model: its auto class, and the modules that are never quantized."""

    auto: str
    """Name of transformers' auto class."""
    description: str
    """Name of the kind in messages."""
    keep: tuple[str, ...] = ()
    """Modules that are never quantized, by their whole names; empty: all but the language model."""

    def quantized(self, name: str) -> bool:
        """Whether a linear layer of this name is to be 4-bit."""
        return not any(name == kept or name.startswith(f"{kept}.") for kept in self.keep)


CAUSAL: Final = ModelKind("AutoModelForCausalLM", "causal language model", quantize.KEPT)
VISION_LANGUAGE: Final = ModelKind("AutoModelForImageTextToText", "vision-language model")
"""Its vision tower stays whole: in 4 bits it costs accuracy."""


def load(
    folder: Path, kind: ModelKind, precision: Precision, *, four_bit: bool, double: bool
) -> Any:
    """Load the model, frozen.

    Raises:
        EngineError: the folder holds no sound model of that kind, or bitsandbytes is missing.
    """
    import transformers

    extra: dict[str, Any] = {}
    auto = getattr(transformers, kind.auto)
    config = load_config(folder, kind)
    with weights.unsound_as_errors(folder, kind.description), without_allocator_warmup():
        if four_bit:
            kind = replace(kind, keep=kind.keep or modules_beside_language(auto, config))
            extra["quantization_config"] = quantize.nf4_config(
                precision.product_dtype, double=double, keep=kind.keep
            )
        model = weights.load(
            auto, folder, config, dtype=precision.weight_dtype,
            device_map={"": str(precision.device)}, **extra,
        )  # fmt: skip
    model.requires_grad_(False)
    if four_bit:
        quantize.check_four_bit(model, kind.quantized)
        quantize.keep_layout(model)
    widen_to_fp32(model)
    return model


def widen_to_fp32(model: nn.Module) -> None:
    """Convert fp16 parameters of modules without matrix products (embeddings, norms) to fp32.

    Then the residual stream is fp32 too, since autocast computes only products in fp16. In fp16 the
    stream of Qwen2.5-VL and similar models exceeds 65,504. peft's
    `prepare_model_for_kbit_training` also converts the weights of products that are not 4-bit,
    which are then cast back at every use.
    """
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.dtype == torch.float16:
                parameter.data = parameter.data.float()


@contextmanager
def without_allocator_warmup() -> Iterator[None]:
    """Context of loading without transformers' warm-up allocation of the whole model.

    The block would be the memory peak of the phase `load`, whatever the weights then need: it is
    sized by a guess of their types. It saves calls of cudaMalloc, which expandable segments make
    page by page anyway.
    """
    from transformers import modeling_utils

    name = "caching_allocator_warmup"
    before = getattr(modeling_utils, name, None)
    if before is None:  # another version, without it
        yield
        return
    setattr(modeling_utils, name, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(modeling_utils, name, before)


def load_config(folder: Path, kind: ModelKind) -> Any:
    """The folder's configuration as transformers' class.

    Raises:
        EngineError: there is none that transformers knows.
    """
    import transformers

    config = read_config(folder)
    model_type = config.get("model_type", "")
    with weights.unsound_as_errors(folder, kind.description):
        if model_type not in transformers.CONFIG_MAPPING and names_own_code(folder):
            raise EngineError(
                f"{folder}: a '{model_type}' loads by Python code of its own (auto_map), which is "
                "never run; take a model that is part of transformers"
            )
        return build_config(config)


def validate_vision_language(folder: Path) -> None:
    """Check the configuration of an image-text-to-text model, before its weights are read.

    Raises:
        EngineError: it is no image-text-to-text model, or one whose answer is not behind the
            question in one and the same sequence: its decoder has an encoder.
    """
    import transformers

    config = load_config(folder, VISION_LANGUAGE)
    with collection_paused("transformers.modeling_utils"):
        supported = transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if type(config) not in supported:
        raise EngineError(
            f"{folder}: a '{config.model_type}' is no image-text-to-text model of transformers; "
            "take one, such as Qwen2.5-VL, LLaVA, SmolVLM or InternVL"
        )
    if any(part.is_encoder_decoder for part in (config, config.get_text_config(decoder=True))):
        raise EngineError(
            f"{folder}: a '{config.model_type}' answers by a decoder behind an encoder, and here "
            "the answer is learnt behind the question; take a model with a decoder alone, such as "
            "Qwen2.5-VL, LLaVA, SmolVLM or InternVL"
        )


def language_module_name(model: Any) -> str:
    """Name of the language model's module in a vision-language model.

    Raises:
        EngineError: it has none.
    """
    decoder = model.get_decoder()
    name = next((name for name, module in model.named_modules() if module is decoder), "")
    if not name:
        raise EngineError(
            f"{type(model).__name__}: has no language model of its own inside; take a decoder "
            "behind a vision tower, such as Qwen2.5-VL, LLaVA, SmolVLM or InternVL"
        )
    return name


def modules_beside_language(auto: Any, config: Any) -> tuple[str, ...]:
    """Names of the largest modules outside the language model, from a model on `meta`.

    Whole names: transformers 5.23 skips nothing for "visual" where it is "model.visual", and says
    nothing.
    """
    with torch.device("meta"):
        model = auto.from_config(config)
    return _modules_beside(model)


def vision_modules(model: Any) -> tuple[str, ...]:
    """Names of the largest modules outside the language model and its output layer: the vision
    tower and its projector."""
    output = model.get_output_embeddings()
    return tuple(name for name in _modules_beside(model) if model.get_submodule(name) is not output)


def _modules_beside(model: Any) -> tuple[str, ...]:
    language_name = language_module_name(model)
    names: list[str] = []
    for name, _ in model.named_modules():  # parents first
        holds_it = not name or f"{language_name}.".startswith(f"{name}.")
        if not holds_it and not any(
            name.startswith(f"{parent}.") for parent in (language_name, *names)
        ):
            names.append(name)
    return tuple(names)
