"""Qwen3-VL-Embedding on fake tensors: batches of prompts, without the code that reads values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch import Tensor, nn

from engines.retrieval.data.pairs import ItemInputs
from engines.retrieval.models.encoder import l2_normalize
from engines.retrieval.models.qwen_embedding import MODEL_TYPES, PromptTokens, QwenEmbedder
from engines.retrieval.models.towers import EncoderTower
from engines.torchkit.memory.patch_towers import DeepPatchTower
from engines.torchkit.modeling import image_encoders

PROMPT: Final = PromptTokens([0] * 14, [0] * 5, look=0, looked=0, image=0, pad=0)
"""As many tokens as Qwen's tokenizer makes of the parts of a prompt."""
MARKS: Final = 2
"""Tokens around a picture."""


class _PartOfModel(EncoderTower):
    """A part whose parameters are counted as those of a tower."""

    def __init__(self, part: nn.Module) -> None:
        self._part = part

    def modules(self) -> Iterable[nn.Module]:
        """See `EncoderTower`."""
        return (self._part,)


class FakeEmbedder(QwenEmbedder):
    """The embedder with the sizes of a configuration; all prompts are of the longest text."""

    def __init__(self, config: Mapping[str, Any], temperature: float) -> None:
        loaded = image_encoders.load(config, None, MODEL_TYPES)
        super().__init__(loaded, PROMPT, temperature)
        model = loaded.model
        self.text_tower = _PartOfModel(model.language_model)
        self.vision_tower = _PartOfModel(model.visual)
        self._tower = DeepPatchTower(config)

    def encode_items(self, inputs: ItemInputs, side: str) -> Tensor:  # noqa: ARG002 - as QwenEmbedder
        """Item vectors [B, D], of items that all have the modalities of the first."""
        decoder, count = self.model.language_model, inputs.size
        whole = SimpleNamespace(model=self.model, get_decoder=lambda: decoder)
        length = sum(map(len, (PROMPT.before, PROMPT.after)))
        length += inputs.texts.shape[1] if len(inputs.texts) else 0
        vision, shown = None, []
        if len(inputs.images):
            size = (inputs.images.shape[1],) * 2
            length += self._tower.tokens(size) + MARKS
            grids = torch.zeros(count, 3, dtype=torch.long)
            vision = self._tower.encode(whole, [self._patches(inputs.images), grids], count, size)
            shown = list(torch.split(vision.features, self.model.config.text_config.hidden_size, 1))
        words = decoder.embed_tokens(torch.zeros(count, length, dtype=torch.long))
        if shown:
            mask = torch.zeros(words.shape, dtype=torch.bool)
            words = words.masked_scatter(mask, shown.pop(0).to(words.dtype))
        self._tower.prepare(whole)
        arguments = self._tower.decoder_arguments(
            torch.zeros(count, 1, length, length, dtype=torch.bool),
            torch.zeros(3, count, length, dtype=torch.long), [deep.contiguous() for deep in shown],
        )  # fmt: skip
        if not shown:
            arguments["attention_mask"] = arguments["attention_mask"]["full_attention"]
        hidden = decoder(inputs_embeds=words, use_cache=False, **arguments).last_hidden_state
        del vision  # the library's forward pass holds it until here
        vectors = torch.zeros(count, hidden.shape[-1])
        return vectors.index_copy(0, torch.arange(count), l2_normalize(hidden[:, -1]))
