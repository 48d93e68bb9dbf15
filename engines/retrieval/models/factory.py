"""Model factory: loads a model of the catalog, and configures it by the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import nn

from engines import out_of_memory
from engines.emitter import EngineError, first_line
from engines.model_catalog import ModelEntry
from engines.retrieval.models import clip, layers, openclip, qwen_embedding, siglip
from engines.retrieval.models.encoder import (
    DualEncoder,
    LateShape,
    count_parameters,
    count_tower_parameters,
)
from engines.retrieval.models.fusion import HEAD_WIDTH, FusionSizes, RecurrentFusion
from engines.retrieval.models.tokenizer import TextTokenizer
from engines.retrieval.params import Params

EVALUATE_ONLY: Final = ("qwen-embedding",)
"""Families that are not trained here."""
FUSION_FACTS: Final = {
    "mean": "sum of unit text and image vectors, at unit length",
    "recurrent": "recurrent gated cell over the layers (ReT)",
}


def refuse_training(entry: ModelEntry) -> None:
    """Raise EngineError where a model of the catalog is only evaluated."""
    if entry.family in EVALUATE_ONLY:
        raise EngineError(
            f"model '{entry.name}': is evaluated, not trained; run it with "
            "--task evaluate, or train siglip2-b16 or another model"
        )


def from_scratch(entry: ModelEntry, text_tokenizer: TextTokenizer, params: Params) -> DualEncoder:
    """A small CLIP with fresh weights, for the vocabulary of `text_tokenizer`."""
    sizes = {**entry.architecture, "vocabulary": text_tokenizer.tokenizer.get_vocab_size()}
    return clip.from_scratch(sizes, params.image_size, params.max_length, params.temperature)


def from_folder(
    entry: ModelEntry, folder: Path, text_tokenizer: TextTokenizer, params: Params
) -> DualEncoder:
    """The model in a local folder.

    Raises:
        EngineError: settings do not fit it, or the folder holds no sound model.
    """
    try:
        model = _load_model(entry, folder, text_tokenizer, params.temperature)
    except EngineError:
        raise
    except Exception as error:  # sizes that do not fit raise errors of many classes
        if out_of_memory.is_device_failure(error):  # out of memory, not a damaged folder
            raise
        raise EngineError(
            f"model '{entry.name}': {folder} cannot be loaded ({type(error).__name__}: "
            f"{first_line(error)}); its files are damaged or do not belong together"
        ) from None
    validate_model(model, entry, params)
    return model


def validate_model(model: DualEncoder, entry: ModelEntry, params: Params) -> None:
    """Raise EngineError where the settings ask for texts or images that the model cannot take."""
    text_limit, image_limit = model.text_limit, model.image_limit
    if text_limit and params.max_length > text_limit:
        raise EngineError(
            f"max_length = {params.max_length}: model '{entry.name}' takes at most {text_limit}"
        )
    if image_limit and params.image_size != image_limit:
        raise EngineError(
            f"image_size = {params.image_size}: model '{entry.name}' takes {image_limit} only"
        )
    if params.image_size % model.image_multiple:
        raise EngineError(
            f"image_size = {params.image_size}: model '{entry.name}' takes multiples of "
            f"{model.image_multiple}"
        )


def _load_model(
    entry: ModelEntry, folder: Path, text_tokenizer: TextTokenizer, temperature: float
) -> DualEncoder:
    if entry.family == "open-clip":
        return openclip.from_folder(folder, temperature)
    if entry.family == "qwen-embedding":
        return qwen_embedding.from_folder(folder, text_tokenizer.tokenizer, temperature)
    if entry.family == "siglip":
        return siglip.from_folder(folder, temperature, text_tokenizer.pad)
    return clip.from_folder(folder, temperature)


def configure_model(
    model: DualEncoder, entry: ModelEntry, params: Params, text_tokenizer: TextTokenizer | None
) -> None:
    """Set layers, fusion, scoring, loss and frozen towers by the settings.

    Raises:
        EngineError: a setting does not fit the model.
    """
    if entry.family in EVALUATE_ONLY and params.scoring == "late":
        raise EngineError(
            f"scoring = late: model '{entry.name}' makes one vector of an item; "
            "use scoring = pooled"
        )
    set_layers(model, params)
    if params.layer_fusion == "recurrent":
        _set_recurrent(model, entry, params)
    if params.scoring == "late":
        _set_late(model, entry, params, text_tokenizer)
    if params.loss == "sigmoid":
        model.bias = nn.Parameter(torch.tensor(model.initial_bias))
    if params.freeze_towers:
        _freeze(model, entry)
    model.chunk = params.grad_cache_chunk
    kind = nn.modules.batchnorm._BatchNorm
    normed = [n for n, m in model.named_modules() if isinstance(m, kind) and not model.frozen]
    if normed:  # statistics of queries and passages together would be another objective
        model.sides_share = False
    if model.chunk and normed:
        raise EngineError(
            f"grad_cache_chunk = {model.chunk}: model '{entry.name}' normalises over the batch "
            f"({normed[0]}), so chunks would change its gradients; set grad_cache_chunk = 0"
        )


def set_layers(model: DualEncoder, params: Params) -> None:
    """Choose the blocks of both towers."""
    scale = max(layers.SCALE, model.text_blocks, model.vision_blocks)
    distinct = params.layer_fusion == "mean"
    for tower in ("text", "vision"):
        blocks, exact = getattr(model, f"{tower}_blocks"), getattr(params, f"{tower}_layers")
        if blocks:
            chosen = layers.choose_layers(
                params.layers, exact, blocks, scale, tower, distinct=distinct
            )
            setattr(model, f"{tower}_layers", chosen)
        elif exact:
            raise EngineError(
                f"{tower}_layers = {list(exact)}: the {tower} tower of this model has no blocks "
                f"to choose from; leave {tower}_layers empty"
            )


def _set_recurrent(model: DualEncoder, entry: ModelEntry, params: Params) -> None:
    text, vision = model.text_layers, model.vision_layers
    without = [t for t in ("text", "vision") if not getattr(model, f"{t}_tower").width]
    without += ["vision"] if not model.vision_blocks and "vision" not in without else []
    if without:
        raise EngineError(
            f"layer_fusion = recurrent: the {without[0]} tower of model '{entry.name}' gives no "
            "blocks to read; use layer_fusion = mean"
        )
    if not text or len(text) != len(vision):
        raise EngineError(
            f"layer_fusion = recurrent reads as many text as vision layers, and there are "
            f"{len(text)} and {len(vision)}; set layers (0 to {layers.SCALE - 1}), or text_layers "
            f"(0 to {model.text_blocks - 1}) and vision_layers (0 to {model.vision_blocks - 1}) "
            "of equal length"
        )
    if params.fusion_width > HEAD_WIDTH and params.fusion_width % HEAD_WIDTH:
        raise EngineError(
            f"fusion_width = {params.fusion_width}: not a multiple of {HEAD_WIDTH}, the width of "
            "an attention head"
        )
    sizes = FusionSizes(params.fusion_width, params.fusion_queries, params.late_width)
    widths = model.text_tower.width, model.vision_tower.width
    model.fusion = RecurrentFusion(*widths, len(text), sizes)


def _set_late(
    model: DualEncoder, entry: ModelEntry, params: Params, text_tokenizer: TextTokenizer | None
) -> None:
    if text_tokenizer is None:
        raise EngineError(
            f"scoring = late: model '{entry.name}' keeps one vector per text and image, no tokens; "
            "use scoring = pooled"
        )
    model.late = True
    if model.fusion is None:
        side = params.image_size
        with torch.inference_mode():
            probe = model.vision_tower.last_tokens(torch.zeros(1, side, side, 3, dtype=torch.uint8))
        model.late_shape = LateShape(text_tokenizer.length or params.max_length, *probe.shape[1:])


def _freeze(model: DualEncoder, entry: ModelEntry) -> None:
    if model.fusion is None:
        raise EngineError(
            "freeze_towers leaves nothing to train but the temperature; use it with "
            "layer_fusion = recurrent"
        )
    if not (entry.hub or entry.path):
        raise EngineError(
            f"freeze_towers: model '{entry.name}' starts from scratch, so its towers know nothing "
            "yet; use a model with weights"
        )
    model.frozen = True
    for tower in (model.text_tower, model.vision_tower):
        for parameter in tower.parameters():
            parameter.requires_grad_(False)


def describe_model(model: DualEncoder, params: Params) -> dict[str, str]:
    """Facts of the record about the model: layers, fusion, scoring, parameters."""
    counts = ", ".join(
        f"{name} {number:,}" for name, number in count_tower_parameters(model).items()
    )
    total, trained = count_parameters(model)
    facts = {
        "layers": layers.describe_layers(params.layers, model.text_layers, model.vision_layers),
        "fusion": FUSION_FACTS[params.layer_fusion],
        "scoring": "one vector per item",
        "parameters": f"{total:,}: {counts}; {trained:,} trained",
        "image_size": f"{params.image_size} px",
    }
    if params.scoring == "late":
        shape = model.late_shape
        tokens = params.fusion_queries if model.fusion else f"up to {shape.texts + shape.images}"
        width = params.late_width if model.fusion else shape.width
        facts["scoring"] = f"late interaction (MaxSim) over {tokens} tokens of {width}"
        if model.fusion is None:
            facts["fusion"] = "text and image tokens side by side"
    if model.pixel_normalizer is not None:
        mean, gain = (
            (model.pixel_normalizer.shift / 255).tolist(),
            (1 / model.pixel_normalizer.gain / 255).tolist(),
        )
        facts["normalisation"] = f"mean {_format_values(mean)}, std {_format_values(gain)}"
    if model.chunk:
        facts["grad_cache"] = f"chunks of {model.chunk}; every forward pass is computed twice"
    return facts


def _format_values(values: list[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
