"""Models of open_clip: MobileCLIP (Vasu et al. 2024), MobileCLIP2 (Faghri et al. 2025), others.

A folder in open_clip's layout has everything: architecture, context, image size, normalization.
Texts are padded to the whole context, because many of these text towers attend both ways and
were trained without a mask. MobileOne's branches stay apart: merging them is for inference only.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engines import out_of_memory
from engines.emitter import EngineError, first_line
from engines.retrieval.models.encoder import INITIAL_BIAS, DualEncoder
from engines.retrieval.models.towers import EncoderTower, average_states, mask_until_end
from engines.torchkit.modeling.image_normalization import PixelNormalizer


class OpenClipTextTower(EncoderTower):
    """open_clip's own text transformer."""

    def __init__(self, text: Any) -> None:
        self._tower = text
        self.blocks, self.width = len(text.transformer.resblocks), int(text.width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Token ids [n, context] -> [n, D]."""
        return self._tower(inputs)  # type: ignore[no-any-return]

    def hidden_states(self, inputs: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """[n, context, width] each."""
        indices = sorted(set(layers))
        outputs = self._tower.forward_intermediates(
            inputs, indices=indices, intermediates_only=True, output_fmt="NLC"
        )["text_intermediates"]
        return [outputs[indices.index(i)] for i in layers]

    def pool(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """[n, D]: at the end token, as CLIP."""
        ends = inputs.argmax(1)  # the end token has the highest number
        rows = torch.arange(len(inputs), device=inputs.device)
        return self._project(average_states([self._tower.ln_final(s[rows, ends]) for s in states]))

    def tokens(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:  # noqa: ARG002 - all tokens
        """[n, context, D]."""
        return self._project(average_states([self._tower.ln_final(s) for s in states]))

    def attention_mask(self, inputs: Tensor, tokens: int) -> Tensor:
        """Up to the first end token."""
        return mask_until_end(inputs, self._tower.vocab_size - 1)[:, :tokens]

    def modules(self) -> Iterable[nn.Module]:
        """The tower, which holds its projection."""
        return (self._tower,)

    def _project(self, features: Tensor) -> Tensor:
        project = self._tower.text_projection
        if isinstance(project, nn.Module):
            return project(features)  # type: ignore[no-any-return]
        return features if project is None else features @ project


class OpenClipVisionTower(EncoderTower):
    """A vision transformer, of open_clip itself or of timm, or a convolutional tower of timm."""

    def __init__(self, visual: Any, normalizer: PixelNormalizer) -> None:
        self._tower, self._normalizer = visual, normalizer
        self._trunk = getattr(visual, "trunk", None)
        blocks = visual.transformer.resblocks if self._trunk is None else _blocks(self._trunk)
        self.blocks = len(blocks)
        if self._trunk is None:
            self.width = int(visual.conv1.out_channels)
        else:
            self.width = int(self._trunk.num_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """uint8 [n, S, S, 3] -> [n, D]."""
        return self._tower(self._normalize(inputs))  # type: ignore[no-any-return]

    def hidden_states(self, inputs: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """[n, prefix + patches, width] each."""
        if not self.blocks:
            return super().hidden_states(inputs, layers)
        indices = sorted(set(layers))
        outputs = self._tower.forward_intermediates(
            self._normalize(inputs),
            indices=indices,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        patches = outputs["image_intermediates"]
        prefix = outputs.get("image_intermediates_prefix") or [p[:, :0] for p in patches]
        whole = [torch.cat(pair, 1) for pair in zip(prefix, patches, strict=True)]
        return [whole[indices.index(i)] for i in layers]

    def pool(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:  # noqa: ARG002
        """[n, D]."""
        if self._trunk is not None:
            normed = average_states([self._trunk.norm(s) for s in states])
            return self._tower.head(self._trunk.forward_head(normed))  # type: ignore[no-any-return]
        pooled = average_states([self._tower._pool(s)[0] for s in states])
        return pooled if self._tower.proj is None else pooled @ self._tower.proj

    def tokens(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:  # noqa: ARG002
        """[n, prefix + patches, D]."""
        if self._trunk is not None:
            normed = average_states([self._trunk.norm(s) for s in states])
            return self._tower.head(self._trunk.head(self._trunk.fc_norm(normed)))  # type: ignore[no-any-return]
        normed = average_states([self._tower.ln_post(s) for s in states])
        return normed if self._tower.proj is None else normed @ self._tower.proj

    def last_tokens(self, inputs: Tensor) -> Tensor:
        """[n, T, D]; of a convolutional tower each position of the last map, projected.

        Average pooling and a linear head commute: their mean is the tower's own output.
        """
        if self.blocks:
            return super().last_tokens(inputs)
        maps = self._trunk.forward_features(self._normalize(inputs))  # type: ignore[union-attr]
        positions = maps.flatten(2).transpose(1, 2)
        return self._tower.head(self._trunk.head.fc(positions))  # type: ignore[no-any-return, union-attr]

    def modules(self) -> Iterable[nn.Module]:
        """The tower, which holds its projection."""
        return (self._tower,)

    def _normalize(self, images: Tensor) -> Tensor:
        pixels: Tensor = self._normalizer(images)
        # Channels last, FastViT's backward pass ends in a segmentation fault on CPUs (torch 2.15).
        return pixels.contiguous() if pixels.device.type == "cpu" else pixels


def _blocks(trunk: Any) -> Sequence[nn.Module]:
    """A transformer's blocks; none of a tower with stages, whose widths differ."""
    blocks = getattr(trunk, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not hasattr(trunk, "norm"):
        return []
    return list(blocks)


class OpenClipEncoder(DualEncoder):
    """A CustomTextCLIP; queries and passages share both towers."""

    def __init__(self, model: Any, temperature: float) -> None:
        super().__init__(temperature)
        self.model = model
        del model.logit_scale
        model.logit_bias = None
        visual = model.visual
        self.pixel_normalizer = PixelNormalizer(visual.image_mean, visual.image_std)
        self.text_tower = OpenClipTextTower(model.text)
        self.vision_tower = OpenClipVisionTower(visual, self.pixel_normalizer)
        self.text_limit = int(model.context_length)
        size = visual.image_size
        self.image_limit = int(size if isinstance(size, int) else size[0])


def from_folder(folder: Path, temperature: float) -> OpenClipEncoder:
    """A model from a local folder in open_clip's layout, safetensors only, in float32.

    Raises:
        EngineError: open_clip cannot build it.
    """
    model = _create_model(f"local-dir:{folder}", folder, require_pretrained=True, weights_only=True)
    bias = model.logit_bias
    initial_bias = INITIAL_BIAS if bias is None else float(bias.detach())
    encoder = OpenClipEncoder(model, temperature)
    encoder.initial_bias = initial_bias
    return encoder


def from_architecture(name: str, temperature: float) -> OpenClipEncoder:
    """A model with random weights, for a memory estimate: `local-dir:FOLDER`, or a known name.

    Raises:
        EngineError: open_clip cannot build it.
    """
    model = _create_model(name, name, load_weights=False, device=torch.get_default_device())
    return OpenClipEncoder(model, temperature)


def _create_model(name: str, source: object, **settings: Any) -> Any:
    import open_clip

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's notes on its own deprecations
        try:
            model: Any = open_clip.create_model(name, force_custom_text=True, **settings)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            if out_of_memory.is_device_failure(error):
                raise
            raise EngineError(
                f"{source}: open_clip cannot build the model: {first_line(error)}"
            ) from None
    if not hasattr(model, "text") or not hasattr(model.text, "transformer"):
        raise EngineError(f"{source}: only open_clip's own text towers are supported")
    if not hasattr(model.text.transformer, "resblocks"):
        raise EngineError(f"{source}: text towers from transformers are not supported; use theirs")
    return model
