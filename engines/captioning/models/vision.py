"""Frozen vision towers: from pixels to the features of all patches.

A CLIP or SigLIP vision tower in transformers' layout, or EfficientNet-Lite0 from its package. Sizes
come from the configuration; the weights are loaded on the first picture that is not in the feature
cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from engines import model_catalog
from engines.captioning.params import Params
from engines.emitter import EngineError
from engines.model_catalog import ModelPart
from engines.torchkit.modeling import image_encoders, weights
from engines.torchkit.modeling.image_encoders import EFFNET
from engines.torchkit.modeling.image_normalization import PixelNormalizer
from engines.torchkit.modeling.model_config import read_config
from engines.torchkit.runtime.precision import Precision

MODEL_TYPES: Final = ("clip", "siglip", EFFNET)
REVISION: Final = 1
"""Incremented when equal pixels give other features, so that cached ones are not used."""


@dataclass(frozen=True)
class Shape:
    """Input and output sizes of a tower. Its repr is part of `VisionTower.fingerprint`."""

    family: str
    image_size: int
    patches: int
    """Tokens of one frame, including the class token if it is kept."""
    width: int


class VisionTower:
    """A frozen vision tower; `encode` loads its weights."""

    def __init__(
        self,
        part: ModelPart,
        params: Params,
        precision: Precision,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """`config`: of a tower without a folder; None: of the folder, or of the package.

        Raises:
            EngineError: the part is no vision tower, or settings do not fit it.
        """
        self.folder = model_catalog.weights_folder(part)
        if config is None:
            config = _package_config(part) if self.folder is None else read_config(self.folder)
        self._config = config
        self.shape = _read_shape(config, self.folder or part.hub or "vision")
        self.precision = precision
        self._layer = params.vision_layer
        self._cls = params.cls
        self.at_once = params.vision_batch
        self._dtype = getattr(torch, params.feature_dtype)
        self._compile = params.compile
        self._model: Any = None
        if self.shape.family == "clip":
            self.shape = _with_class_token(self.shape, keep=params.cls)
        elif params.cls:
            raise EngineError(f"cls: a {self.shape.family} tower has no class token; set it false")
        if self.shape.family == EFFNET and params.vision_layer != -1:
            raise EngineError("vision_layer = -2: effnet-lite0 gives its last feature map only")
        statistics = image_encoders.read_statistics(self.shape.family, self.folder)
        self._pixels = PixelNormalizer(*statistics).to(precision.device)

    def fingerprint(self) -> str:
        """Digest of all that features depend on: weights, layer, class token, precision, dtype."""
        digest = hashlib.blake2b(digest_size=12)
        for path in self._weight_files():
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
        if self.folder is not None:
            digest.update((self.folder / "config.json").read_bytes())
        parts = (REVISION, self._layer, self._cls, self.precision.name, self._dtype,
                 self.shape, self._pixels.shift.tolist(), self._pixels.gain.tolist())  # fmt: skip
        digest.update(repr(parts).encode())
        return digest.hexdigest()

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 [m, S, S, 3] on the device -> [m, N, D] in the dtype of the feature cache.

        Every pass has the same shape, the last one padded with black frames: features of a frame
        are bitwise independent of the number of frames.
        """
        if self._model is None:
            self._model = self._load()
        out = []
        for start in range(0, len(frames), self.at_once):
            piece = frames[start : start + self.at_once]
            missing = self.at_once - len(piece)
            full = torch.cat([piece, piece.new_zeros(missing, *piece.shape[1:])])
            pixels = self._pixels(full)
            with self.precision.autocast():
                features = self._features(pixels)
            out.append(features[: len(piece)].to(self._dtype))
        # On a CPU the training step's autocast to bfloat16 refuses to join float16.
        with torch.autocast(self.precision.device.type, enabled=False):
            return torch.cat(out)

    def _features(self, pixels: Tensor) -> Tensor:
        if self.shape.family == EFFNET:
            maps: Tensor = self._model.extract_features(pixels)
            return maps.flatten(2).transpose(1, 2)
        output = self._model(pixel_values=pixels, output_hidden_states=self._layer != -1)
        states = output.last_hidden_state if self._layer == -1 else output.hidden_states[-2]
        drop = self.shape.family == "clip" and not self._cls
        tokens: Tensor = states[:, 1:] if drop else states
        return tokens

    def _weight_files(self) -> list[Path]:
        if self.folder is not None:
            return sorted(self.folder.glob("*.safetensors"))
        return [image_encoders.efficientnet_weights()]

    def release_weights(self) -> None:
        """Release the weights; the next `encode` loads them again."""
        self._model = None

    def init_random(self) -> Any:
        """Build the model with random weights, for a memory estimate; returns it."""
        loaded = image_encoders.load(self._config, None, MODEL_TYPES, vision_only=True)
        self._model = loaded.model.eval().requires_grad_(False)
        return self._model

    def _load(self) -> Any:
        folder = self.folder or image_encoders.efficientnet_weights().parent
        with weights.unsound_as_errors(folder, "vision tower"):
            model = image_encoders.load(self._config, folder, MODEL_TYPES, vision_only=True).model
        model.to(self.precision.device).eval().requires_grad_(False)
        if self._compile:
            model.compile()
        return model


def _read_shape(config: Mapping[str, Any], location: object) -> Shape:
    """The shape of a tower, alone or as part of its dual encoder."""
    family = image_encoders.read_type(config, MODEL_TYPES, location, vision_only=True)
    sizes = config.get("vision_config", config)
    size, patch = int(sizes.get("image_size", 224)), int(sizes.get("patch_size", 32))
    return Shape(family, size, (size // patch) ** 2, int(sizes.get("hidden_size", 768)))


def _with_class_token(shape: Shape, *, keep: bool) -> Shape:
    return Shape(shape.family, shape.image_size, shape.patches + keep, shape.width)


def _package_config(part: ModelPart) -> dict[str, Any]:
    """Configuration of the tower that a package has: `tower` of its architecture."""
    named = {**part.architecture, "model_type": part.architecture.get("tower", "")}
    return {**image_encoders.EFFNET_CONFIG, **named}
