"""CLIP and MetaCLIP 2 through transformers: local weights, or a small CLIP from scratch.

MetaCLIP 2 (Chuang et al. 2025) is CLIP with XLM-V's vocabulary: many languages, Korean among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from engines.retrieval.models.encoder import DualEncoder
from engines.retrieval.models.towers import EncoderTower, average_states, mask_until_end
from engines.torchkit.modeling import image_encoders
from engines.torchkit.modeling.image_encoders import ImageEncoder
from engines.torchkit.modeling.image_normalization import PixelNormalizer
from engines.torchkit.modeling.model_config import read_config

MODEL_TYPES: Final = ("clip", "metaclip_2")


class ClipTextTower(EncoderTower):
    """The causal text tower, pooled at the first end token.

    No padding mask: causal attention before the end token sees no padding, and without a mask it
    takes its fastest path.
    """

    ignores_padding = True

    def __init__(self, clip: Any) -> None:
        self._clip, self._tower = clip, clip.text_model
        self.blocks = len(clip.text_model.encoder.layers)
        self.width = int(clip.config.text_config.hidden_size)

    def forward(self, inputs: Tensor) -> Tensor:
        """Token ids [n, L] -> [n, D]."""
        return self._clip.get_text_features(input_ids=inputs).pooler_output  # type: ignore[no-any-return]

    def hidden_states(self, inputs: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """[n, L, width] each."""
        states = self._tower(input_ids=inputs, output_hidden_states=True).hidden_states[1:]
        return [states[i] for i in layers]

    def pool(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """[n, D]."""
        ends = (inputs == self._tower.eos_token_id).int().argmax(1)
        rows = torch.arange(len(inputs), device=inputs.device)
        pooled = average_states([self._tower.final_layer_norm(s[rows, ends]) for s in states])
        return self._clip.text_projection(pooled)  # type: ignore[no-any-return]

    def tokens(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:  # noqa: ARG002 - all tokens
        """[n, L, D]."""
        normed = average_states([self._tower.final_layer_norm(s) for s in states])
        return self._clip.text_projection(normed)  # type: ignore[no-any-return]

    def attention_mask(self, inputs: Tensor, tokens: int) -> Tensor:
        """Up to the first end token."""
        return mask_until_end(inputs, self._tower.eos_token_id)[:, :tokens]

    def modules(self) -> Iterable[nn.Module]:
        """Tower and projection."""
        return self._tower, self._clip.text_projection


class ClipVisionTower(EncoderTower):
    """The vision tower, pooled at its class token."""

    def __init__(self, clip: Any, normalizer: PixelNormalizer) -> None:
        self._clip, self._tower, self._normalizer = clip, clip.vision_model, normalizer
        self.blocks = len(clip.vision_model.encoder.layers)
        self.width = int(clip.config.vision_config.hidden_size)
        size = clip.config.vision_config.image_size
        self._native = (size, size)

    def forward(self, inputs: Tensor) -> Tensor:
        """uint8 [n, S, S, 3] -> [n, D]; normalized here, on the device."""
        return self._clip.get_image_features(**self._arguments(inputs)).pooler_output  # type: ignore[no-any-return]

    def hidden_states(self, inputs: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """[n, patches + 1, width] each."""
        out = self._tower(**self._arguments(inputs), output_hidden_states=True)
        return [out.hidden_states[1:][i] for i in layers]

    def pool(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:  # noqa: ARG002
        """[n, D]."""
        pooled = average_states([self._tower.post_layernorm(s[:, 0]) for s in states])
        return self._clip.visual_projection(pooled)  # type: ignore[no-any-return]

    def tokens(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:  # noqa: ARG002
        """[n, patches + 1, D]."""
        normed = average_states([self._tower.post_layernorm(s) for s in states])
        return self._clip.visual_projection(normed)  # type: ignore[no-any-return]

    def modules(self) -> Iterable[nn.Module]:
        """Tower and projection."""
        return self._tower, self._clip.visual_projection

    def _arguments(self, images: Tensor) -> dict[str, Any]:
        interpolate = tuple(images.shape[1:3]) != self._native
        return {"pixel_values": self._normalizer(images), "interpolate_pos_encoding": interpolate}


class ClipEncoder(DualEncoder):
    """Both towers of a CLIP with its projections; queries and passages share them."""

    def __init__(self, loaded: ImageEncoder, temperature: float) -> None:
        super().__init__(temperature)
        self.clip = clip = loaded.model
        text = clip.text_model
        is_clip = clip.config.model_type == "clip"  # of MetaCLIP 2 the end token is 2
        if is_clip and text.eos_token_id == 2:  # configs from before transformers 4.31
            text.eos_token_id = clip.config.text_config.vocab_size - 1
        del clip.logit_scale  # ours is `log_scale`; a second one would never get a gradient
        self.pixel_normalizer = PixelNormalizer(*loaded.statistics)
        self.text_tower = ClipTextTower(clip)
        self.vision_tower = ClipVisionTower(clip, self.pixel_normalizer)
        self.text_limit = int(clip.config.text_config.max_position_embeddings)


def from_folder(folder: Path, temperature: float) -> ClipEncoder:
    """A CLIP or MetaCLIP 2 from a local folder, in float32."""
    return ClipEncoder(image_encoders.load(read_config(folder), folder, MODEL_TYPES), temperature)


def from_config(config: Mapping[str, Any], temperature: float) -> ClipEncoder:
    """A CLIP or MetaCLIP 2 of a configuration, with random weights."""
    return ClipEncoder(image_encoders.load(config, None, MODEL_TYPES), temperature)


def from_scratch(
    sizes: dict[str, Any], image_size: int, max_length: int, temperature: float
) -> ClipEncoder:
    """A small CLIP with fresh weights; `sizes` is the entry's `architecture`."""
    width, layers, heads = (int(sizes[k]) for k in ("width", "layers", "heads"))
    shared = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": "gelu",
    }
    text = {"max_position_embeddings": max_length, "pad_token_id": 0, "bos_token_id": 3}
    config = {
        "model_type": "clip",
        "text_config": {
            **shared, **text, "vocab_size": int(sizes["vocabulary"]), "eos_token_id": 4
        },
        "vision_config": {
            **shared, "image_size": image_size, "patch_size": int(sizes["patch_size"])
        },
        "projection_dim": int(sizes["projection"]),
    }  # fmt: skip
    return from_config(config, temperature)
