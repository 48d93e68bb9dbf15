"""Causal language models: weights in 4 bits or whole, the words around a picture, LoRA.

A folder's own chat template would be code from the internet; the one chat format that is known here
is ChatML (Qwen and others). Other models get the plain form: begin token, picture, prompt, caption.
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
from engines.torchkit.modeling import attention, lora, pretrained
from engines.torchkit.modeling.model_config import read_config
from engines.torchkit.runtime.precision import Precision

TURN: Final = "<|im_start|>"
TURN_END: Final = "<|im_end|>"
THINK: Final = "<think>"


@dataclass(frozen=True)
class Wording:
    """How a caption is asked for: tokens before the picture, after it, and the one that ends."""

    tokenizer: Tokenizer
    before: tuple[int, ...]
    after: tuple[int, ...]
    end: int
    said: str

    def encode(self, text: str, longest: int) -> tuple[list[int], bool]:
        """Ids with the end token, at most `longest`; and whether anything was cut."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return [*ids[: longest - 1], self.end], len(ids) > longest - 1

    def decode(self, ids: Sequence[int]) -> str:
        """Text up to the end token, blanks made single."""
        said = list(ids)
        said = said[: said.index(self.end)] if self.end in said else said
        return " ".join(self.tokenizer.decode(said, skip_special_tokens=True).split())


def wording(folder: Path, prompt: str) -> Wording:
    """The tokenizer of a folder and the form its model expects.

    Raises:
        EngineError: it has no tokenizer, or nothing says which token ends a text.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises bare Exception
        reason = str(error).splitlines()[0][:200]
        raise EngineError(f"{folder / 'tokenizer.json'}: cannot be read ({reason})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    ends = tokenizer.token_to_id(TURN_END)
    if ends is not None and tokenizer.token_to_id(TURN) is not None:
        quiet = "" if tokenizer.token_to_id(THINK) is None else "<think>\n\n</think>\n\n"
        after = f"\n{prompt}{TURN_END}\n{TURN}assistant\n{quiet}"
        return Wording(tokenizer, ids(f"{TURN}user\n"), ids(after), ends, "ChatML")
    config = read_config(folder)
    begin, end = (_token(config.get(f"{name}_token_id")) for name in ("bos", "eos"))
    if end is None:
        raise EngineError(f"{folder / 'config.json'}: has no eos_token_id; captions could not end")
    before = () if begin is None else (begin,)
    return Wording(tokenizer, before, ids(prompt) if prompt else (), end, "plain")


def _token(found: Any) -> int | None:
    found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, int) else None


def load(folder: Path, params: Params, precision: Precision) -> Any:
    """The model, frozen, in 4 bits or whole.

    Raises:
        EngineError: the folder holds no sound causal language model.
    """
    four_bit = params.quantize == "nf4"
    model = pretrained.load(
        folder, pretrained.CAUSAL, precision, four_bit=four_bit, double=params.double_quant
    )
    attention.use_causal_attention(model)
    return model


def adapt(model: Any, params: Params) -> Any:
    """With LoRA and checkpointing, as the settings say."""
    if params.checkpointing:
        pretrained.enable_gradient_checkpointing(model)
    if not params.lora_rank:
        return model
    return lora.add_lora(
        model, params.lora_rank, params.lora_alpha, params.lora_dropout, params.lora_targets
    )


def embeddings(model: Any) -> nn.Module:
    """The layer that turns token ids into vectors."""
    found: nn.Module = model.get_input_embeddings()
    return found


def width(model: Any) -> int:
    """Width of its vectors."""
    weight: torch.Tensor = model.get_input_embeddings().weight
    return weight.shape[1]
