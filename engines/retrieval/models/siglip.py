"""SigLIP and SigLIP 2 through transformers, fixed resolution and NaFlex (Zhai et al. 2023;
Tschannen et al. 2025).

Their text tower attends both ways, was trained without a mask on texts padded to one length, and is
pooled at the last position: padding to that length is part of the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.retrieval.models.encoder import DualEncoder
from engines.retrieval.models.towers import EncoderTower, average_states
from engines.torchkit.modeling import image_encoders
from engines.torchkit.modeling.image_encoders import NAFLEX, ImageEncoder
from engines.torchkit.modeling.image_normalization import PixelNormalizer
from engines.torchkit.modeling.model_config import read_config

MODEL_TYPES: Final = ("siglip", NAFLEX)


class SiglipTower(EncoderTower):
    """What both towers share: transformers' tower, called with the arguments of its inputs."""

    _tower: Any

    def forward(self, inputs: Tensor) -> Tensor:
        """Token ids [n, text_limit], or images uint8 [n, S, S, 3] -> [n, D]."""
        return self._tower(**self._arguments(inputs)).pooler_output  # type: ignore[no-any-return]

    def hidden_states(self, inputs: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """[n, text_limit or patches, width] each."""
        out = self._tower(**self._arguments(inputs), output_hidden_states=True)
        return [out.hidden_states[1:][i] for i in layers]

    def modules(self) -> Iterable[nn.Module]:
        """The tower, which holds its head."""
        return (self._tower,)

    def _arguments(self, inputs: Tensor) -> dict[str, Any]:
        raise NotImplementedError


class SiglipTextTower(SiglipTower):
    """The text tower, pooled at the last position."""

    def __init__(self, siglip: Any, pad: int) -> None:
        self._tower, self._pad = siglip.text_model, pad
        self.blocks = len(siglip.text_model.encoder.layers)
        self.width = int(siglip.config.text_config.hidden_size)

    def pool(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:  # noqa: ARG002
        """[n, D]."""
        pooled = average_states([self._tower.final_layer_norm(s[:, -1]) for s in states])
        return self._tower.head(pooled)  # type: ignore[no-any-return]

    def tokens(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:  # noqa: ARG002
        """[n, text_limit, D]."""
        return self._tower.head(average_states([self._tower.final_layer_norm(s) for s in states]))  # type: ignore[no-any-return]

    def attention_mask(self, inputs: Tensor, tokens: int) -> Tensor:
        """Mask without padding; the first token always counts, so that no text is empty."""
        mask = inputs[:, :tokens] != self._pad
        mask[:, 0] = True
        return mask

    def _arguments(self, inputs: Tensor) -> dict[str, Any]:
        return {"input_ids": inputs}


class SiglipVisionTower(SiglipTower):
    """The vision tower, pooled by attention; its patches are in the space of the texts' vectors.

    In a NaFlex tower transformers' resizing of the position embeddings is replaced by
    `_resize_positions_once`.
    """

    def __init__(self, siglip: Any, normalizer: PixelNormalizer) -> None:
        self._tower, self._normalizer = siglip.vision_model, normalizer
        config = siglip.config.vision_config
        self.blocks, self.width = len(siglip.vision_model.encoder.layers), int(config.hidden_size)
        self._patch = int(config.patch_size)
        self._naflex = siglip.config.model_type == NAFLEX
        self._native = 0 if self._naflex else int(config.image_size)
        if self._naflex:
            self._tower.embeddings.resize_positional_embeddings = _resize_positions_once

    def pool(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:  # noqa: ARG002
        """[n, D]."""
        return self._tower.head(average_states([self._tower.post_layernorm(s) for s in states]))  # type: ignore[no-any-return]

    def tokens(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:  # noqa: ARG002
        """[n, patches, D]; there is no projection."""
        return average_states([self._tower.post_layernorm(s) for s in states])

    def _arguments(self, inputs: Tensor) -> dict[str, Any]:
        pixels = self._normalizer(inputs)
        if not self._naflex:
            interpolate = inputs.shape[1] != self._native
            return {"pixel_values": pixels, "interpolate_pos_encoding": interpolate}
        side = inputs.shape[1] // self._patch
        patches = functional.unfold(pixels, self._patch, stride=self._patch)
        # unfold puts channels first within a patch; NaFlex wants them last
        patches = patches.view(len(inputs), 3, self._patch**2, -1).permute(0, 3, 2, 1).flatten(2)
        return {
            "pixel_values": patches,
            "pixel_attention_mask": None,  # no image is padded: all are squares of one size
            "spatial_shapes": torch.tensor([[side, side]]).expand(len(inputs), 2),
        }


def _resize_positions_once(position_embeddings: Tensor, shapes: Tensor, max_length: int) -> Tensor:
    """Position embeddings for squares of one size: [n, max_length, width].

    As Siglip2VisionEmbeddings, which interpolates anew for each picture of the batch.
    """
    side = math.isqrt(max_length)
    grid = functional.interpolate(
        position_embeddings.permute(2, 0, 1)[None].float(),
        size=(side, side),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    rows = grid.flatten(2).transpose(1, 2).to(position_embeddings.dtype)
    return rows.expand(len(shapes), max_length, -1)


class SiglipEncoder(DualEncoder):
    """Both towers of a SiglipModel or Siglip2Model; queries and passages share them."""

    def __init__(self, loaded: ImageEncoder, temperature: float, pad: int) -> None:
        super().__init__(temperature)
        self.siglip = siglip = loaded.model
        del siglip.logit_scale, siglip.logit_bias  # ours are `log_scale` and `bias`
        self.pixel_normalizer = PixelNormalizer(*loaded.statistics)
        self.text_tower = SiglipTextTower(siglip, pad)
        self.vision_tower = SiglipVisionTower(siglip, self.pixel_normalizer)
        self.text_limit = int(siglip.config.text_config.max_position_embeddings)


def from_folder(folder: Path, temperature: float, pad: int) -> SiglipEncoder:
    """A SigLIP or SigLIP 2 from a local folder, in float32."""
    loaded = image_encoders.load(read_config(folder), folder, MODEL_TYPES)
    initial_bias = float(loaded.model.logit_bias.detach())
    encoder = SiglipEncoder(loaded, temperature, pad)
    encoder.initial_bias = initial_bias
    return encoder


def from_config(config: Mapping[str, Any], temperature: float, pad: int) -> SiglipEncoder:
    """A SigLIP or SigLIP 2 of a configuration, with random weights."""
    return SiglipEncoder(image_encoders.load(config, None, MODEL_TYPES), temperature, pad)
