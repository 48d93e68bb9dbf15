"""Export of a trained encoder in its library's layout, for `from_pretrained`.

CLIP, MetaCLIP 2, SigLIP and SigLIP 2: transformers' layout; models of open_clip: open_clip's. Heads
over the frozen towers of packages have no such layout. What the layout cannot express (averaged
layers, a recurrent cell, MaxSim) is in workbench.json.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import Tensor

from engines import model_catalog
from engines.model_catalog import ModelEntry
from engines.retrieval.models.encoder import MAX_SCALE, DualEncoder
from engines.retrieval.params import Params

COPIED: Final = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
    "merges.txt", "preprocessor_config.json", "open_clip_config.json",
)  # fmt: skip
"""Small files of a base that are copied beside config and weights."""
ABOUT: Final = "workbench.json"
TRANSFORMERS: Final[Mapping[str, str]] = {
    "clip": "CLIPModel", "clip-scratch": "CLIPModel", "metaclip2": "MetaClip2Model",
    "siglip": "SiglipModel",
}  # fmt: skip


class EncoderFolder(NamedTuple):
    """Content of an encoder folder: tensors of the weights file, and text files by name."""

    file: str
    tensors: dict[str, Tensor]
    texts: dict[str, str]


def find_refusal(entry: ModelEntry) -> str:
    """Why a family cannot be exported; empty: it can."""
    if entry.family in (*TRANSFORMERS, "open-clip"):
        return ""
    return (
        f"no encoder folder: '{entry.name}' is heads over frozen towers of packages, which no "
        "library loads by from_pretrained"
    )


def make_encoder_folder(
    model: DualEncoder, entry: ModelEntry, params: Params, base: Path | None, tokenizer: str
) -> EncoderFolder:
    """The folder's content. `base`: folder of the model before training; None: from scratch.

    `tokenizer`: JSON of one that was built for the run. The tensors are the model's own, not
    copied: write them before it is trained any further.
    """
    texts = _read_copied_files(base)
    if tokenizer:
        texts |= _make_tokenizer_files(model, params, tokenizer)
    texts[ABOUT] = json.dumps(_describe_vectors(model, params), indent=1)
    if entry.family == "open-clip":
        texts[model_catalog.OPEN_CLIP] = _with_custom_text(texts[model_catalog.OPEN_CLIP])
        tensors = _with_logit_scale(model, _part(model, "model"), bias=False)
        return EncoderFolder(model_catalog.NEEDED_OPEN_CLIP[1], tensors, texts)
    siglip = entry.family == "siglip"
    whole = _part(model, "siglip" if siglip else "clip")
    name = type(whole).__name__
    texts["config.json"] = json.dumps({**whole.config.to_dict(), "architectures": [name]}, indent=1)
    return EncoderFolder(model_catalog.WEIGHTS, _with_logit_scale(model, whole, bias=siglip), texts)


def _part(model: DualEncoder, name: str) -> Any:
    return getattr(model, name)


def _with_logit_scale(model: DualEncoder, whole: Any, *, bias: bool) -> dict[str, Tensor]:
    """The library's tensors, with its temperature (and bias)."""
    scale = model.log_scale.detach().clamp(max=math.log(MAX_SCALE))
    tensors = {name: t.detach() for name, t in whole.state_dict().items()}
    if not bias:
        return {**tensors, "logit_scale": scale}
    initial_bias = (
        scale.new_tensor(model.initial_bias) if model.bias is None else model.bias.detach()
    )
    return {**tensors, "logit_scale": scale.reshape(1), "logit_bias": initial_bias.reshape(1)}


def _read_copied_files(base: Path | None) -> dict[str, str]:
    if base is None:
        return {}
    files = [path for name in COPIED if (path := base / name).is_file()]
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def _with_custom_text(config: str) -> str:
    """open_clip's configuration with `custom_text`: the text tower is a module of its own."""
    settings = json.loads(config)
    settings["model_cfg"]["custom_text"] = True
    return json.dumps(settings, indent=1)


def _make_tokenizer_files(model: DualEncoder, params: Params, tokenizer: str) -> dict[str, str]:
    """Tokenizer and image processor files of a model from scratch, for transformers."""
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": params.max_length,
        "pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>",
        "mask_token": "<mask>",
    }  # fmt: skip
    mean, gain = (
        ((), ())
        if model.pixel_normalizer is None
        else (model.pixel_normalizer.shift, model.pixel_normalizer.gain)
    )
    side = params.image_size
    pictures = {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "resample": 3,
        "size": {"shortest_edge": side}, "do_center_crop": True,
        "crop_size": {"height": side, "width": side}, "do_rescale": True, "do_normalize": True,
        "image_mean": [float(value) / 255 for value in mean],
        "image_std": [1 / float(value) / 255 for value in gain],
    }  # fmt: skip
    return {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": json.dumps(tokenizer_config, indent=1),
        "preprocessor_config.json": json.dumps(pictures, indent=1),
    }


def _describe_vectors(model: DualEncoder, params: Params) -> dict[str, Any]:
    """How the run computes vectors with these towers."""
    layers = {"text": list(model.text_layers), "vision": list(model.vision_layers)}
    plain = model.fusion is None and not model.late and not any(layers.values())
    return {
        "vectors": "the towers' own features" if plain else "of chosen layers or tokens",
        "from_pretrained_gives_the_same": plain,
        "layers": layers,
        "layer_fusion": params.layer_fusion,
        "scoring": params.scoring,
        "image_size": params.image_size,
        "max_length": params.max_length,
        "item": "text and image vectors at unit length each, added, at unit length again",
        "left_out": [] if model.fusion is None else ["the recurrent cell: checkpoints/last"],
    }
