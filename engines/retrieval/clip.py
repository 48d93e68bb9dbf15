"""CLIP-shaped encoders through transformers' CLIPModel: local weights, or small from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from engines.retrieval.encoder import DualEncoder

MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
STD: Final = (0.26862954, 0.26130258, 0.27577711)
"""Pixel statistics of CLIP's training images; every CLIP-shaped model here uses them."""


class ClipEncoder(DualEncoder):
    """Both towers of a CLIPModel with its projections; queries and passages share them."""

    def __init__(self, clip: Any, temperature: float) -> None:
        super().__init__(temperature)
        self.clip = clip
        del clip.logit_scale  # ours is `log_scale`; a second one would never get a gradient
        self.text_blocks = len(clip.text_model.encoder.layers)
        self.vision_blocks = len(clip.vision_model.encoder.layers)
        self.text_limit = int(clip.config.text_config.max_position_embeddings)
        size = clip.config.vision_config.image_size
        self._native = (size, size)
        self.register_buffer("shift", torch.tensor(MEAN) * 255, persistent=False)
        self.register_buffer("gain", 1 / (torch.tensor(STD) * 255), persistent=False)
        self.shift: Tensor
        self.gain: Tensor

    def embed_texts(self, texts: Tensor, side: str) -> Tensor:  # noqa: ARG002 - one tower for both
        """Token ids [n, L] -> [n, D].

        No padding mask: the tower is causal and pooled at the first end token, so nothing that is
        used ever sees the padding, and without a mask attention takes its fastest path.
        """
        tower = self.clip.text_model
        if not self.text_layers:
            return self.clip.get_text_features(input_ids=texts).pooler_output  # type: ignore[no-any-return]
        states = tower(input_ids=texts, output_hidden_states=True).hidden_states[1:]
        ends = (texts == tower.eos_token_id).int().argmax(1)
        rows = torch.arange(len(texts), device=texts.device)
        picked = [tower.final_layer_norm(states[i][rows, ends]) for i in self.text_layers]
        return self.clip.text_projection(torch.stack(picked).mean(0))  # type: ignore[no-any-return]

    def embed_images(self, images: Tensor, side: str) -> Tensor:  # noqa: ARG002 - one tower for both
        """uint8 [n, S, S, 3] -> [n, D]; normalised here, on the device."""
        pixels = ((images.float() - self.shift) * self.gain).permute(0, 3, 1, 2)
        stretch = tuple(images.shape[1:3]) != self._native
        tower = self.clip.vision_model
        if not self.vision_layers:
            return self.clip.get_image_features(  # type: ignore[no-any-return]
                pixel_values=pixels, interpolate_pos_encoding=stretch
            ).pooler_output
        states = tower(
            pixel_values=pixels, interpolate_pos_encoding=stretch, output_hidden_states=True
        ).hidden_states[1:]
        picked = [tower.post_layernorm(states[i][:, 0]) for i in self.vision_layers]
        return self.clip.visual_projection(torch.stack(picked).mean(0))  # type: ignore[no-any-return]

    def compile_towers(self) -> None:
        """torch.compile both towers; text lengths change from batch to batch."""
        self.clip.text_model.compile(dynamic=True)
        self.clip.vision_model.compile()


def from_folder(folder: Path, temperature: float) -> ClipEncoder:
    """A CLIPModel from a local folder, safetensors only, in float32."""
    clip: Any = CLIPModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    if clip.text_model.eos_token_id == 2:  # configs from before transformers 4.31 say 2
        clip.text_model.eos_token_id = clip.config.text_config.vocab_size - 1
    return ClipEncoder(clip, temperature)


def from_scratch(
    sizes: dict[str, Any], image_size: int, max_tokens: int, temperature: float
) -> ClipEncoder:
    """A small CLIPModel with fresh weights; `sizes` is the entry's `architecture`."""
    width, layers, heads = (int(sizes[k]) for k in ("width", "layers", "heads"))
    shared = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": "gelu",
    }
    config = CLIPConfig(
        text_config={
            **shared,
            "vocab_size": int(sizes["vocabulary"]),
            "max_position_embeddings": max_tokens,
            "pad_token_id": 0,
            "bos_token_id": 3,
            "eos_token_id": 4,
        },
        vision_config={**shared, "image_size": image_size, "patch_size": int(sizes["patch_size"])},
        projection_dim=int(sizes["projection"]),
    )
    return ClipEncoder(CLIPModel(config), temperature)
