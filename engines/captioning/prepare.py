"""From data to a model that is ready: features of the frozen tower, language model, projector.

Each part is a phase of its own, so that a run's time to first step can be read apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from engines import model_catalog
from engines.captioning.components import part, revision
from engines.captioning.context import Context
from engines.captioning.data import media
from engines.captioning.data.dataset import Data
from engines.captioning.data.media import Frames
from engines.captioning.models import llm, nano_model, projectors
from engines.captioning.models.captioner import Captioner
from engines.captioning.models.llm import Wording
from engines.captioning.models.vision import Tower
from engines.captioning.params import Params
from engines.emitter import EngineError
from engines.torchkit.modeling import lora, quantize
from engines.torchkit.runtime import device
from engines.torchkit.training import nano_models, trained_model

CALIBRATED_ON: Final = 64
"""Media whose features set the scale of the projector's input."""


@dataclass(frozen=True)
class Prepared:
    """A model and what it looks at, ready to train or to evaluate."""

    model: Captioner
    wording: Wording
    tower: Tower
    items: Frames
    """Features from the cache, or pixels for `tower` to look at."""
    revision: str
    facts: dict[str, str]
    state: dict[str, Any]
    """What a later run needs to build the same model."""
    base: Path | None = None
    """Folder of the language model from scratch; None: it has weights from elsewhere."""

    def features(self, seen: Tensor) -> Tensor:
        """Of a batch's media: [B, F, N, D]; pixels go through the tower first."""
        if seen.dtype.is_floating_point:
            return seen
        features = self.tower.encode(seen.flatten(0, 1))
        return features.view(*seen.shape[:2], *features.shape[1:])


def prepare(context: Context, data: Data, tower: Tower) -> Prepared:
    """The model of the spec, and what it looks at.

    Raises:
        EngineError: weights are missing, or settings do not fit the model.
    """
    params, emit = context.params, context.emit
    items, cache_said = _items(context, data, tower)
    folder, base_said = _llm_folder(context, data)
    context.process_group.release_other_ranks()
    emit.phase("import", "transformers")
    wording = llm.wording(folder, params.prompt)
    emit.phase("load", context.entry.name)
    model = llm.load(folder, params, context.precision)
    four_bit = len(quantize.four_bit_layers(model))
    held = quantize.weight_bytes(model)
    device.seed_generators(
        context.spec.seed
    )  # a tower that had to be loaded has drawn its first weights
    adapted = llm.adapt(model, params)
    sizes = projector_sizes(params, tower, data.pixels.frames, llm.width(adapted))
    try:
        projector = projectors.build(sizes)
    except ValueError as error:
        raise EngineError(str(error)) from None
    captioner = Captioner(projector, adapted, wording).to(context.device)
    lora.check_trainable(captioner, _is_trained)
    weights = f"{four_bit} linear layers in NF4" if four_bit else "whole"
    facts = {
        "vision": f"{tower.shape.family} at {tower.shape.image_size} px, frozen; "
        f"{tower.shape.patches} patches of {tower.shape.width}, layer {params.vision_layer}",
        "feature_cache": cache_said,
        "projector": f"{sizes.kind}, {projector_parameters(captioner):,} parameters, "
        f"{projector.length(data.pixels.frames)} tokens",
        "llm": f"{folder.name}, {base_said}{weights}, {held / 2**20:.1f} MiB",
        "prompt_form": wording.said,
        "trainable": lora.list_trainable(captioner),
    }
    scratch = model_catalog.weights_folder(part(context, "llm")) is None
    prints = {
        "vision": trained_model.weights_digest(tower.folder),
        "llm": trained_model.weights_digest(folder),
    }
    state = {"base": made_name(folder, context) if scratch else "", "base_weights": prints}
    return Prepared(
        captioner, wording, tower, items, revision(context, folder), facts, state,
        folder if scratch else None,
    )  # fmt: skip


def made_name(folder: Path, context: Context) -> str:
    """Name of a base from scratch, by what it was made of; beside a checkpoint it has another."""
    return str(context.trained.state["base"]) if context.trained else folder.name


def _is_trained(name: str) -> bool:
    return name.startswith("projector.") or ".lora_A." in name or ".lora_B." in name


def projector_parameters(model: Captioner) -> int:
    """Parameters of the projector."""
    return sum(p.numel() for p in model.projector.parameters())


def projector_sizes(params: Params, tower: Tower, frames: int, width: int) -> projectors.Sizes:
    """Of a projector between this tower and a language model of this width."""
    return projectors.Sizes(
        kind=params.projector, vision_width=tower.shape.width, patches=tower.shape.patches,
        llm_width=width, hidden=params.projector_hidden, depth=params.projector_depth,
        tokens=params.projector_tokens, heads=params.projector_heads,
        head_width=params.projector_head_width, readout=params.projector_readout, frames=frames,
    )  # fmt: skip


def _items(context: Context, data: Data, tower: Tower) -> tuple[Frames, str]:
    """Features from the cache, forecast before they are computed; or the pixels themselves."""
    params, emit = context.params, context.emit
    if not params.feature_cache:
        return data.pixels, "none: every picture goes through the tower in every step"
    emit.phase("cache", "vision features")
    store = media.store_of(tower, context.cache_root, params.feature_dtype)
    keys = data.pixels.keys()
    missing = store.count_missing(keys)
    emit.notice(
        "feature-cache",
        f"{missing} of {len(set(keys))} frames are not in the feature cache yet; it will take "
        f"{store.disk_bytes(missing) / 2**20:.1f} MiB more in {store.folder}",
        missing,
    )
    began = emit.now()
    made = media.cached(data.pixels, store, tower, context.pipeline, context.report_progress)
    tower.drop()  # of no more use: 1.2 GB of the GPU for CLIP ViT-L
    took = emit.now() - began
    said = f"{made.bytes / 2**20:.1f} MiB; {made.computed} frames computed in {took:.1f} s"
    return made.items, said


def _llm_folder(context: Context, data: Data) -> tuple[Path, str]:
    """The language model's folder, trained from scratch first where the entry says so."""
    found = part(context, "llm")
    folder = model_catalog.weights_folder(found)
    if folder is not None:
        return folder, ""
    if context.trained is not None:
        made = nano_models.find_base(context.cache_root, context.trained)
    else:
        context.emit.phase("cache", "language model from scratch, on text")
        recipe = nano_model.recipe(data.base_captions, found.architecture)
        made = nano_models.get_or_train_language_model(
            recipe, context.cache_root, context.device, context.report_progress
        )
    return made.folder, f"{made.description}; "
