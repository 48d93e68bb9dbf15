"""Causal language models of captioners: weights (4-bit or full), prompt template, LoRA.

A chat template from a folder is untrusted code and is not run; models with ChatML tokens (Qwen and
others) get that format, all others the plain form: begin token, picture, prompt, caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from torch import nn

from engines.captioning.params import Params
from engines.emitter import EngineError
from engines.torchkit.modeling import attention, lora, model_tokenizer, pretrained, rms_norm
from engines.torchkit.modeling.gradient_checkpointing import enable_gradient_checkpointing
from engines.torchkit.modeling.model_config import read_config
from engines.torchkit.runtime.precision import Precision

TURN: Final = "<|im_start|>"
TURN_END: Final = "<|im_end|>"
THINK: Final = "<think>"


@dataclass(frozen=True)
class PromptTemplate:
    """The prompt of a caption: tokens before and after the picture, and the end token."""

    tokenizer: Tokenizer
    before: tuple[int, ...]
    after: tuple[int, ...]
    end: int
    form: str
    """`ChatML` or `plain`."""

    def encode(self, text: str, longest: int) -> tuple[list[int], bool]:
        """Ids with the end token, at most `longest`; and whether the text was truncated."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return [*ids[: longest - 1], self.end], len(ids) > longest - 1

    def decode(self, ids: Sequence[int]) -> str:
        """Text up to the end token, with single blanks."""
        kept = list(ids)
        kept = kept[: kept.index(self.end)] if self.end in kept else kept
        return " ".join(self.tokenizer.decode(kept, skip_special_tokens=True).split())


def read_prompt_template(folder: Path, prompt: str) -> PromptTemplate:
    """The prompt template for the tokenizer of a folder.

    Raises:
        EngineError: the folder has no tokenizer, or no end token is stated.
    """
    tokenizer = model_tokenizer.from_folder(folder)
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    turn_end = tokenizer.token_to_id(TURN_END)
    if turn_end is not None and tokenizer.token_to_id(TURN) is not None:
        empty_thought = "" if tokenizer.token_to_id(THINK) is None else "<think>\n\n</think>\n\n"
        after = f"\n{prompt}{TURN_END}\n{TURN}assistant\n{empty_thought}"
        return PromptTemplate(tokenizer, ids(f"{TURN}user\n"), ids(after), turn_end, "ChatML")
    config = read_config(folder)
    begin, end = (_token_id(config.get(f"{name}_token_id")) for name in ("bos", "eos"))
    if end is None:
        raise EngineError(f"{folder / 'config.json'}: has no eos_token_id; captions could not end")
    before = () if begin is None else (begin,)
    return PromptTemplate(tokenizer, before, ids(prompt) if prompt else (), end, "plain")


def _token_id(value: Any) -> int | None:
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) else None


def load_model(folder: Path, params: Params, precision: Precision) -> Any:
    """Load the language model, frozen, in 4 bits or full.

    Raises:
        EngineError: the folder holds no sound causal language model.
    """
    four_bit = params.quantize == "nf4"
    model = pretrained.load(
        folder, pretrained.CAUSAL, precision, four_bit=four_bit, double=params.double_quant
    )
    attention.use_causal_attention(model)
    rms_norm.use_fused_rms_norm(model)
    return model


def attach_adapters(model: Any, params: Params) -> Any:
    """Attach LoRA and enable gradient checkpointing, as set."""
    if params.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    if not params.lora_rank:
        return model
    return lora.add_lora(
        model, params.lora_rank, params.lora_alpha, params.lora_dropout, params.lora_targets,
        use_dora=params.use_dora,
    )  # fmt: skip


def input_embeddings(model: Any) -> nn.Module:
    """The input embeddings of a language model."""
    layer: nn.Module = model.get_input_embeddings()
    return layer


def embedding_width(model: Any) -> int:
    """Width of the input embeddings."""
    weight: torch.Tensor = model.get_input_embeddings().weight
    return weight.shape[1]
