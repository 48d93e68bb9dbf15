"""Feature cache of a run: decides whether it can be used, and computes missing features.

Whether a model gives equal logits for features and for pixels is tested on the model itself, before
any feature is computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from engines import out_of_memory
from engines.emitter import first_line
from engines.torchkit.data.prefetch import to_arrays
from engines.torchkit.modeling.feature_cache import FeatureStore, NoRoomError, content_key
from engines.vqa.context import Context
from engines.vqa.data.dataset import VqaData
from engines.vqa.data.image_inputs import (
    NUMPY,
    CachedPictureFeatures,
    ImageInputs,
    ModelVisionTower,
    PictureView,
)
from engines.vqa.data.images import Pictures
from engines.vqa.models.chat_template import ChoicePrompt
from engines.vqa.models.model import Answerer
from engines.vqa.models.processor import Pixels
from engines.vqa.models.qwen_layout import QwenInputLayout
from engines.vqa.models.vision_output import Form
from engines.vqa.params import Params

TOLERANCE: Final = 0.05
"""Greatest difference of logits that count as equal, as a share of their standard deviation. One
pass over two pictures and two passes over one round differently in half precision."""
PROBE_PROMPTS: Final = (ChoicePrompt("what?", (), None), ChoicePrompt("what is it?", (), None))
"""Prompts of two lengths, so that there is padding."""
WITHOUT_CACHE: Final = "every picture goes through the tower in every step"


def uses_feature_cache(params: Params, *, trains: bool) -> bool:
    """Whether the settings allow a feature cache: only where pictures are encoded more than once.

    A run that only answers encodes each picture once per scale, unless options are rotated.
    """
    return params.feature_cache and (trains or params.tta_options)


def prepare_images(
    context: Context, data: VqaData, pictures: Pictures, model: Any
) -> tuple[ImageInputs, str]:
    """The image inputs of a run with its full model, and a fact for the record.

    With cached features the vision tower is removed from the model.
    """
    emit, trains = context.emit, context.spec.task in ("train", "probe")
    vision, probes = (
        ImageInputs(pictures, context.precision),
        make_probe_pictures(pictures.processor.factor),
    )
    plain = compute_logits(model, vision, probes)
    vision.layout = QwenInputLayout.from_model(model, pictures.processor)
    if vision.layout is not None and not logits_agree(plain, compute_logits(model, vision, probes)):
        vision.layout = None
    if not uses_feature_cache(context.params, trains=trains):
        return vision, f"none: {WITHOUT_CACHE}"
    emit.phase("cache", "vision features")
    tower = ModelVisionTower(model, vision)
    if reason := find_refusal(model, tower, probes, plain):
        emit.notice("feature-cache", f"no feature cache: {reason}; {WITHOUT_CACHE}")
        return vision, f"none: {reason}; {WITHOUT_CACHE}"
    began = emit.now()
    try:
        cached = compute_features(context, tower, vision, list_views(context.params, data))
    except NoRoomError as error:
        emit.notice("feature-cache", f"no feature cache: {error}; {WITHOUT_CACHE}")
        return vision, f"none: no room on the disk; {WITHOUT_CACHE}"
    vision.form, vision.cached = tower.form, cached
    tower.detach_modules()
    took = emit.now() - began
    fact = f"{cached.bytes / 2**20:.1f} MiB; {cached.computed} pictures computed in {took:.1f} s"
    return vision, fact


def make_probe_pictures(factor: int) -> list[Pixels]:
    """Two random pictures of different sizes, uint8 [h, w, 3]; sides are multiples of `factor`."""
    generator = np.random.default_rng(0)
    shapes = ((2 * factor, 3 * factor, 3), (4 * factor, 2 * factor, 3))
    return [generator.integers(0, 256, shape, np.uint8) for shape in shapes]


@torch.no_grad()
def compute_logits(
    model: Any,
    vision: ImageInputs,
    probes: Sequence[Pixels],
    features: tuple[Form, Tensor] | None = None,
) -> Tensor:
    """Logits [2, V] after two questions about two pictures, or about their features."""
    form, rows = features or (None, None)
    batch = vision.to_device(vision.collate(PROBE_PROMPTS, probes, rows, ahead=True))
    with vision.precision.autocast():
        return Answerer(model, form).next_logits(batch)


def logits_agree(first: Tensor, second: Tensor) -> bool:
    """Whether logits [B, V] are equal up to `TOLERANCE`."""
    return bool((first - second).abs().max() <= TOLERANCE * first.std())


def find_refusal(
    model: Any, tower: ModelVisionTower, probes: Sequence[Pixels], plain: Tensor
) -> str:
    """Why features cannot replace pixels in this model; empty: they can.

    Tested without the tower, so that a model that reads anything else of it fails here.
    """
    kind = type(model).__name__
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        return f"{kind} takes no features in the place of pixels"
    if draws_dropout(tower.modules):
        return f"the vision tower of {kind} draws dropout in training"
    try:
        form = Form.from_output(tower.image_features(probes[0]))
        if form is None:
            return f"{kind} hands its features on in a form of its own"
        rows = torch.cat([tower.encode(picture, form) for picture in probes])
        modules = tower.detach_modules()
        try:
            cached_logits = compute_logits(model, tower.vision, probes, (form, rows))
        finally:
            tower.attach_modules(modules)
    except Exception as error:  # code of any model: any exception
        if out_of_memory.is_device_failure(error):
            raise
        return f"{kind} fails on features ({first_line(error)})"
    if rows.dtype not in NUMPY or not logits_agree(plain, cached_logits):
        return f"{kind} says something else to features than to pixels"
    tower.form, tower.dtype, tower.width = form, rows.dtype, rows.shape[1]
    return ""


def draws_dropout(modules: dict[str, nn.Module]) -> bool:
    """Whether modules have active dropout, so that features differ between training steps."""
    submodules = [part for module in modules.values() for part in module.modules()]
    rates = [
        getattr(module, name, 0.0)
        for module in submodules
        for name in ("dropout", "attention_dropout")
    ]
    layers = [
        module.p for module in submodules if isinstance(module, nn.modules.dropout._DropoutNd)
    ]
    return any(isinstance(rate, float) and rate > 0 for rate in (*rates, *layers))


def list_views(params: Params, data: VqaData) -> list[PictureView]:
    """Every picture at every size at which the run encodes it."""
    views = {PictureView(data.train.root, path): None for path in data.train.paths}
    for split in (data.validation, *data.splits.values()):
        for path in split.paths:
            for scale in (1.0, *params.tta_scales):
                views[PictureView(split.root, path, scale)] = None
            if params.blank:
                views[PictureView(split.root, path, blank=True)] = None
    return list(views)


class PictureItem(NamedTuple):
    """Content key of a picture and its number of feature rows."""

    key: bytes
    rows: int


def compute_features(
    context: Context, tower: ModelVisionTower, vision: ImageInputs, views: Sequence[PictureView]
) -> CachedPictureFeatures:
    """Features of all views; those that the store lacks are computed and added.

    Raises:
        NoRoomError: the disk lacks the room.
    """
    emit = context.emit
    store = FeatureStore(context.cache_root, tower.fingerprint(), tower.width, NUMPY[tower.dtype])
    items = [measure_picture(tower, vision.pixels(view)) for view in views]
    keys, sizes = [item.key for item in items], [item.rows for item in items]
    distinct = dict(zip(keys, sizes, strict=True))
    missing = store.count_missing(keys)
    emit.notice(
        "feature-cache",
        f"{missing} of {len(distinct)} pictures are not in the feature cache yet; all take "
        f"{store.disk_bytes(sum(distinct.values())) / 2**20:.1f} MiB in {store.folder}",
        missing,
    )

    def encode(positions: Sequence[int]) -> Iterator[tuple[Sequence[int], Tensor]]:
        for count, position in enumerate(positions, 1):
            rows = tower.encode(vision.pixels(views[position]))
            bits = rows.view(torch.uint16) if rows.dtype == torch.bfloat16 else rows
            context.report_progress(count, len(positions), "pictures")
            yield [position], bits

    stored = store.open(keys, lambda positions: to_arrays(encode(positions)), sizes)
    places = {
        view: tuple(index) for view, index in zip(views, stored.positions.tolist(), strict=True)
    }
    size = store.disk_bytes(sum(distinct.values()))
    return CachedPictureFeatures(stored.arrays, places, tower.dtype, stored.computed, size)


def measure_picture(tower: ModelVisionTower, pixels: Pixels) -> PictureItem:
    """Content key and feature rows of a picture, uint8 [h, w, 3]."""
    height, width = pixels.shape[:2]
    return PictureItem(
        content_key(f"{height}x{width}".encode(), pixels.tobytes()),
        tower.count_rows((height, width)),
    )
