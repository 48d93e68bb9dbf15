"""Frozen models of transformers from a local folder: weights in 4 bits or whole, no code of theirs.

Apart from the engines because all that train LoRA load the same way: the configuration without what
would choose code, attention stated by us, safetensors only, and module types looked at afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from torch import nn

from engines import out_of_memory
from engines.emitter import EngineError
from engines.process_memory import collection_paused
from engines.torchkit.modeling import quantize, weights
from engines.torchkit.modeling.model_config import ATTENTION, read_config
from engines.torchkit.runtime.precision import Precision


@dataclass(frozen=True)
class Kind:
    """A kind of model that can be loaded."""

    auto: str
    """Name of transformers' class that finds the right one by the configuration."""
    said: str
    """For messages."""
    keep: tuple[str, ...] = ()
    """Modules that are never quantised, by their whole names; empty: all but the language model."""

    def quantised(self, name: str) -> bool:
        """Whether a linear layer of this name is meant to be 4-bit."""
        return not any(name == kept or name.startswith(f"{kept}.") for kept in self.keep)


CAUSAL: Final = Kind("AutoModelForCausalLM", "causal language model", quantize.KEPT)
SEEING: Final = Kind("AutoModelForImageTextToText", "vision-language model")
"""Its vision tower stays whole: in 4 bits it costs accuracy."""


def load(folder: Path, kind: Kind, precision: Precision, *, four_bit: bool, double: bool) -> Any:
    """The model, frozen.

    Raises:
        EngineError: the folder holds no sound model of that kind, or bitsandbytes is missing.
    """
    import transformers

    extra: dict[str, Any] = {}
    auto = getattr(transformers, kind.auto)
    sizes = sizes_of(folder, kind)
    try:
        if four_bit:
            kind = replace(kind, keep=kind.keep or beside_language(auto, sizes))
            extra["quantization_config"] = quantize.nf4(
                precision.products, double=double, keep=kind.keep
            )
        with no_warmup():
            model, found = auto.from_pretrained(
                folder, config=sizes, attn_implementation=ATTENTION, local_files_only=True,
                use_safetensors=True, trust_remote_code=False, dtype=precision.weights,
                device_map={"": str(precision.device)}, output_loading_info=True, **extra,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        if out_of_memory.of_device(error):
            raise
        reason = (str(error).splitlines() or [""])[0][:200]
        raise EngineError(f"{folder}: no sound {kind.said} ({reason})") from None
    weights.refuse_missing(found["missing_keys"], folder)
    model.requires_grad_(False)
    if four_bit:
        quantize.check_four_bit(model, kind.quantised)
        quantize.keep_layout(model)
    widen(model)
    return model


def widen(model: nn.Module) -> None:
    """Embeddings, norms and whatever else is fp16 and no matrix product: fp32 from now on.

    Then the residual stream is fp32 too, since autocast gives fp16 to products alone. In fp16 the
    stream of Qwen2.5-VL and its like passes 65,504. peft's `prepare_model_for_kbit_training` does
    the same, and to products that are not 4-bit as well: those are cast back at every use.
    """
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.dtype == torch.float16:
                parameter.data = parameter.data.float()


@contextmanager
def no_warmup() -> Iterator[None]:
    """Loading without transformers' allocation of the whole model in one block beforehand.

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


def sizes_of(folder: Path, kind: Kind) -> Any:
    """The folder's configuration.

    Raises:
        EngineError: there is none that transformers knows.
    """
    import transformers

    try:
        config = read_config(folder)
        return transformers.AutoConfig.for_model(config.pop("model_type", ""), **config)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise EngineError(f"{folder}: no sound {kind.said} ({reason})") from None


def refuse_unseeing(folder: Path) -> None:
    """Looks at the configuration alone, before anything large is read.

    Raises:
        EngineError: it is no image-text-to-text model, or one whose answer is not behind the
            question in one and the same sequence: its decoder has an encoder.
    """
    import transformers

    sizes = sizes_of(folder, SEEING)
    with collection_paused("transformers.modeling_utils"):
        known = transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if type(sizes) not in known:
        raise EngineError(
            f"{folder}: a '{sizes.model_type}' is no image-text-to-text model of transformers; "
            "take one, such as Qwen2.5-VL, LLaVA, SmolVLM or InternVL"
        )
    if any(one.is_encoder_decoder for one in (sizes, sizes.get_text_config(decoder=True))):
        raise EngineError(
            f"{folder}: a '{sizes.model_type}' answers by a decoder behind an encoder, and here "
            "the answer is learnt behind the question; take a model with a decoder alone, such as "
            "Qwen2.5-VL, LLaVA, SmolVLM or InternVL"
        )


def language(model: Any) -> str:
    """Name of the module that is the language model inside of a vision-language model.

    Raises:
        EngineError: there is none of its own.
    """
    decoder = model.get_decoder()
    name = next((name for name, module in model.named_modules() if module is decoder), "")
    if not name:
        raise EngineError(
            f"{type(model).__name__}: has no language model of its own inside; take a decoder "
            "behind a vision tower, such as Qwen2.5-VL, LLaVA, SmolVLM or InternVL"
        )
    return name


def beside_language(auto: Any, sizes: Any) -> tuple[str, ...]:
    """Names of the largest modules that are not in the language model, found without weights.

    Whole names: transformers 5.23 skips nothing for "visual" where it is "model.visual", and says
    nothing.
    """
    with torch.device("meta"):
        model = auto.from_config(sizes)
    return _beside(model)


def seeing_modules(model: Any) -> tuple[str, ...]:
    """Names of the largest modules that are neither in the language model nor its output layer:
    the vision tower, and what makes its features tokens."""
    output = model.get_output_embeddings()
    return tuple(name for name in _beside(model) if model.get_submodule(name) is not output)


def _beside(model: Any) -> tuple[str, ...]:
    speaking = language(model)
    found: list[str] = []
    for name, _ in model.named_modules():  # parents first
        holds_it = not name or f"{speaking}.".startswith(f"{name}.")
        if not holds_it and not any(name.startswith(f"{one}.") for one in (speaking, *found)):
            found.append(name)
    return tuple(found)


def recompute(model: Any, *, random: bool = True) -> None:
    """Gradient checkpointing: activations are made again in the backward pass.

    `random`: with the same dropout as the first time. transformers and peft would also make the
    input layers' outputs ask for gradients, which only reentrant checkpointing needs; a frozen
    vision tower, which has an input layer too, would be differentiated for nothing.
    """
    model.enable_input_require_grads = _nothing
    # Renamed in transformers 5; the old name warns, and goes in 6.
    enable: Callable[[dict[str, Any]], None] | None
    enable = getattr(model, "activation_checkpointing_enable", None)
    how = {"use_reentrant": False, "preserve_rng_state": random}
    (enable or model.gradient_checkpointing_enable)(how)


def _nothing() -> None:
    """Stands for what must not be done."""
