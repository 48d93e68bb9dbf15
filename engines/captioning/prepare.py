"""Prepares a captioner: cached features of the frozen tower, language model, projector.

Each step is a phase of its own, so that the time to the first step can be read step by step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor

from engines import model_catalog
from engines.captioning.components import describe_revision, resolve_part
from engines.captioning.context import Context
from engines.captioning.data import media
from engines.captioning.data.dataset import CaptioningData
from engines.captioning.data.media import Frames
from engines.captioning.models import llm, nano_model, projectors
from engines.captioning.models.captioner import Captioner
from engines.captioning.models.llm import PromptTemplate
from engines.captioning.models.vision import VisionTower
from engines.captioning.params import Params
from engines.emitter import EngineError
from engines.torchkit.modeling import gguf_weights, lora, quantize
from engines.torchkit.runtime import device
from engines.torchkit.training import nano_models, trained_model
from engines.torchkit.training.engine_task import PreparedModel

CALIBRATION_MEDIA: Final = 64
"""Number of media whose features set the scales of the projector (`Captioner.calibrate`)."""


@dataclass(frozen=True, kw_only=True)
class PreparedCaptioner(PreparedModel):
    """A model with its inputs, ready to train or to evaluate."""

    model: Captioner
    template: PromptTemplate
    tower: VisionTower
    items: Frames
    """Features from the cache, or pixels that `tower` encodes in every step."""

    def encode_features(self, media: Tensor) -> Tensor:
        """Features [B, F, N, D] of a batch of media; pixels are encoded by the tower first."""
        if media.dtype.is_floating_point:
            return media
        features = self.tower.encode(media.flatten(0, 1))
        return features.view(*media.shape[:2], *features.shape[1:])


def prepare(context: Context, data: CaptioningData, tower: VisionTower) -> PreparedCaptioner:
    """Load or build the model of the spec, and prepare its inputs.

    Raises:
        EngineError: weights are missing, or settings do not fit the model.
    """
    params, emit = context.params, context.emit
    items, cache_fact = _prepare_media(context, data, tower)
    folder, base_fact = _prepare_llm_folder(context, data)
    context.process_group.release_other_ranks()
    emit.phase("import", "transformers")
    template = llm.read_prompt_template(folder, params.prompt)
    emit.phase("load", context.entry.name)
    model = llm.load_model(folder, params, context.precision)
    four_bit = len(quantize.four_bit_layers(model))
    llm_bytes = quantize.weight_bytes(model)
    device.seed_generators(context.spec.seed)  # loading a tower may have consumed random numbers
    adapted = llm.attach_adapters(model, params)
    sizes = select_projector_sizes(params, tower, data.pixels.frames, llm.embedding_width(adapted))
    try:
        projector = projectors.build_projector(sizes)
    except ValueError as error:
        raise EngineError(str(error)) from None
    captioner = Captioner(projector, adapted, template).to(context.device)
    lora.check_trainable(captioner, _is_trained)
    weights = f"{four_bit} linear layers in NF4" if four_bit else "whole"
    facts = {
        "vision": f"{tower.shape.family} at {tower.shape.image_size} px, frozen; "
        f"{tower.shape.patches} patches of {tower.shape.width}, layer {params.vision_layer}",
        "feature_cache": cache_fact,
        "projector": f"{sizes.kind}, {count_projector_parameters(captioner):,} parameters, "
        f"{projector.length(data.pixels.frames)} tokens",
        "llm": f"{folder.name}, {base_fact}{weights}, {llm_bytes / 2**20:.1f} MiB",
        "prompt_form": template.form,
        "trainable": lora.list_trainable(captioner),
    }
    part = resolve_part(context, "llm")
    scratch = model_catalog.weights_folder(part) is None and not part.gguf
    fingerprints = {
        "vision": trained_model.weights_digest(tower.folder),
        "llm": trained_model.weights_digest(folder),
    }
    state = {"base": base_name(folder, context) if scratch else "", "base_weights": fingerprints}
    return PreparedCaptioner(
        model=captioner, template=template, tower=tower, items=items, facts=facts, state=state,
        revision=describe_revision(context, folder), base=folder if scratch else None,
    )  # fmt: skip


def base_name(folder: Path, context: Context) -> str:
    """Cache name of a base from scratch; a trained model has recorded it, as its folder differs."""
    return str(context.trained.state["base"]) if context.trained else folder.name


def _is_trained(name: str) -> bool:
    return name.startswith("projector.") or ".lora_" in name


def count_projector_parameters(model: Captioner) -> int:
    """Parameters of the projector."""
    return sum(p.numel() for p in model.projector.parameters())


def select_projector_sizes(
    params: Params, tower: VisionTower, frames: int, width: int
) -> projectors.ProjectorSizes:
    """Sizes of the projector between this tower and a language model of width `width`."""
    return projectors.ProjectorSizes(
        kind=params.projector, vision_width=tower.shape.width, patches=tower.shape.patches,
        llm_width=width, hidden=params.projector_hidden, depth=params.projector_depth,
        tokens=params.projector_tokens, heads=params.projector_heads,
        head_width=params.projector_head_width, readout=params.projector_readout, frames=frames,
    )  # fmt: skip


def _prepare_media(
    context: Context, data: CaptioningData, tower: VisionTower
) -> tuple[Frames, str]:
    """Cached features and a fact for the record, or, without a cache, the pixels.

    Announces the size of missing features before they are computed.
    """
    params, emit = context.params, context.emit
    if not params.feature_cache:
        return data.pixels, "none: every picture goes through the tower in every step"
    emit.phase("cache", "vision features")
    store = media.open_feature_store(tower, context.cache_root, params.feature_dtype)
    keys = data.pixels.keys()
    missing = store.count_missing(keys)
    emit.notice(
        "feature-cache",
        f"{missing} of {len(set(keys))} frames are not in the feature cache yet; it will take "
        f"{store.disk_bytes(missing) / 2**20:.1f} MiB more in {store.folder}",
        missing,
    )
    began = emit.now()
    cached = media.cache_features(
        data.pixels, store, tower, context.pipeline, context.report_progress
    )
    tower.release_weights()  # frees 1.2 GB of the GPU with CLIP ViT-L
    took = emit.now() - began
    fact = f"{cached.bytes / 2**20:.1f} MiB; {cached.computed} frames computed in {took:.1f} s"
    return cached.items, fact


def _prepare_llm_folder(context: Context, data: CaptioningData) -> tuple[Path, str]:
    """Folder of the language model and a fact for the record; trains a base from scratch first."""
    llm = resolve_part(context, "llm")
    if llm.gguf:
        context.emit.phase("cache", "language model from GGUF")
        return gguf_weights.get_or_convert(llm, context.cache_root), f"{llm.gguf}; "
    folder = model_catalog.weights_folder(llm)
    if folder is not None:
        return folder, ""
    if context.trained is not None:
        base = nano_models.find_base(context.cache_root, context.trained)
    else:
        context.emit.phase("cache", "language model from scratch, on text")
        recipe = nano_model.build_recipe(data.base_captions, llm.architecture)
        base = nano_models.get_or_train_language_model(
            recipe, context.cache_root, context.device, context.report_progress
        )
    return base.folder, f"{base.description}; "
