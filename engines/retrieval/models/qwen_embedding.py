"""Qwen3-VL-Embedding (Li et al. 2026): an item's text and picture in one prompt, one vector.

The prompt is a system message, the user's turn with picture and text, and the opening of the
assistant's turn; the vector is the last hidden state of its last token, at unit length. The model
is evaluated, not trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from tokenizers import Tokenizer
from torch import Tensor

from engines.emitter import EngineError
from engines.retrieval.data.pairs import ItemInputs
from engines.retrieval.models.encoder import DualEncoder, l2_normalize
from engines.torchkit.modeling import image_encoders
from engines.torchkit.modeling.image_encoders import ImageEncoder
from engines.torchkit.modeling.image_normalization import PixelNormalizer
from engines.torchkit.modeling.model_config import read_config

INSTRUCTION: Final = "Represent the user's input."
PAD: Final = "<|endoftext|>"
MODEL_TYPES: Final = ("qwen3_vl",)


@dataclass(frozen=True)
class PromptTokens:
    """Token ids of the parts of a prompt."""

    before: list[int]
    """System message and the opening of the user's turn."""
    after: list[int]
    """End of the user's turn and the opening of the assistant's."""
    look: int
    """Begins a picture."""
    looked: int
    """Ends a picture."""
    image: int
    """One token of a picture."""
    pad: int

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer, config: Any) -> Self:
        """The parts in the model's chat format (ChatML)."""

        def ids(text: str) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False).ids)

        system = f"<|im_start|>system\n{INSTRUCTION}<|im_end|>\n<|im_start|>user\n"
        return cls(
            ids(system), ids("<|im_end|>\n<|im_start|>assistant\n"), config.vision_start_token_id,
            config.vision_end_token_id, config.image_token_id, padding_id(tokenizer),
        )  # fmt: skip


def padding_id(tokenizer: Tokenizer) -> int:
    """Id of the padding token, which the tokenizer itself does not name.

    Raises:
        EngineError: it is no tokenizer of Qwen.
    """
    number = tokenizer.token_to_id(PAD)
    if number is None:
        raise EngineError(f"the tokenizer has no {PAD}; take a folder of Qwen3-VL-Embedding")
    return int(number)


class QwenEmbedder(DualEncoder):
    """A Qwen3VLModel; items of both sides are prompts."""

    def __init__(self, loaded: ImageEncoder, tokens: PromptTokens, temperature: float) -> None:
        super().__init__(temperature)
        self.model = model = loaded.model.requires_grad_(False)
        self.pixel_normalizer = self._normalize = PixelNormalizer(*loaded.statistics)
        self._tokens = tokens
        vision = model.config.vision_config
        self._patch, self._merge = int(vision.patch_size), int(vision.spatial_merge_size)
        self._frames = int(vision.temporal_patch_size)
        self.image_multiple = self._patch * self._merge

    @property
    def joint(self) -> bool:
        """An item's vector is no sum of its text and image vectors."""
        return True

    def encode_items(self, inputs: ItemInputs, side: str) -> Tensor:  # noqa: ARG002 - one for both
        """Item vectors [B, D]: unit length, zeros where an item has neither text nor picture."""
        device = self.log_scale.device
        texts = dict(zip(inputs.text_at.tolist(), inputs.texts.tolist(), strict=True))
        pictured = inputs.image_at.tolist()
        per_picture = (inputs.images.shape[1] // self.image_multiple) ** 2 if pictured else 0
        items = sorted({*texts, *pictured})
        vectors = torch.zeros(inputs.size, self.model.config.text_config.hidden_size, device=device)
        if not items:
            return vectors
        shown = frozenset(pictured)
        prompts = [
            self._prompt(texts.get(item, ()), per_picture if item in shown else 0) for item in items
        ]
        hidden = self._last_hidden_states(prompts, inputs.images if pictured else None)
        return vectors.index_copy(0, torch.tensor(items, device=device), l2_normalize(hidden))

    def _prompt(self, text: Sequence[int], picture: int) -> list[int]:
        """Token ids of a prompt with a text and a picture of so many tokens."""
        tokens = self._tokens
        shown = [tokens.look, *[tokens.image] * picture, tokens.looked] if picture else []
        words = [number for number in text if number != tokens.pad]
        return [*tokens.before, *shown, *words, *tokens.after]

    def _last_hidden_states(self, prompts: Sequence[list[int]], images: Tensor | None) -> Tensor:
        """Hidden states [n, D] of the last tokens; `images`: of the prompts that show one."""
        device, longest = self.log_scale.device, max(map(len, prompts))
        ids = torch.tensor([p + [self._tokens.pad] * (longest - len(p)) for p in prompts])
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        mask = (torch.arange(longest) < lengths[:, None]).long()
        arguments: dict[str, Tensor] = {}
        if images is not None:
            side = images.shape[1] // self._patch
            arguments = {
                "pixel_values": self._patches(images),
                "image_grid_thw": torch.tensor([[1, side, side]] * len(images), device=device),
                "mm_token_type_ids": (ids == self._tokens.image).int().to(device),
            }
        hidden: Tensor = self.model(
            input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False, **arguments
        ).last_hidden_state
        last: Tensor = hidden[torch.arange(len(prompts), device=device), (lengths - 1).to(device)]
        return last

    def _patches(self, images: Tensor) -> Tensor:
        """uint8 [n, S, S, 3] -> [n x patches, 3 x frames x patch x patch], token by token."""
        p, m, side = self._patch, self._merge, images.shape[1] // self.image_multiple
        split = self._normalize(images).reshape(len(images), 3, side, m, p, side, m, p)
        # picture, token row and column, patch row and column in it, channel, y, x
        cut: Tensor = split.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, 3, 1, p, p)
        return cut.expand(-1, -1, self._frames, -1, -1).flatten(1)


def from_folder(folder: Path, tokenizer: Tokenizer, temperature: float) -> QwenEmbedder:
    """The embedder of a local folder, in float32."""
    loaded = image_encoders.load(read_config(folder), folder, MODEL_TYPES)
    tokens = PromptTokens.from_tokenizer(tokenizer, loaded.model.config)
    return QwenEmbedder(loaded, tokens, temperature)
