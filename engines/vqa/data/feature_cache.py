"""Whether a run's vision features are kept, and the keeping of them: the tower's only pass.

Apart from `vision`, which uses what is kept. Whether a kind of model takes features in the place of
pixels is tried with the model itself, before anything is computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from engines import out_of_memory
from engines.torchkit.data.prefetch import to_arrays
from engines.torchkit.modeling.feature_cache import FeatureStore, NoRoomError, content_key
from engines.vqa.context import Context
from engines.vqa.data.dataset import Data
from engines.vqa.data.image_inputs import NUMPY, Kept, Tower, View, Vision
from engines.vqa.data.images import Pictures
from engines.vqa.models.chat_template import Said
from engines.vqa.models.model import Answerer
from engines.vqa.models.processor import Pixels
from engines.vqa.models.qwen_layout import Layout
from engines.vqa.models.vision_output import Form
from engines.vqa.params import Params

NEAR: Final = 0.05
"""Of the logits' spread: the most by which two ways to the same logits may differ. One pass over
two pictures and two passes over one round differently in half precision."""
ASKED: Final = (Said("what?", (), None), Said("what is it?", (), None))
"""Of two lengths, so that there is padding."""
BESIDE: Final = "every picture goes through the tower in every step"


def wanted(params: Params, *, trains: bool) -> bool:
    """Whether features are kept, as far as the settings say: where a picture is looked at twice.

    A run that only answers looks at each picture once at a scale, unless options are turned.
    """
    return params.feature_cache and (trains or params.tta_options)


def prepare(context: Context, data: Data, pictures: Pictures, model: Any) -> tuple[Vision, str]:
    """How the pictures of a run reach its model, which is whole yet; and how to say it.

    With kept features the tower is taken out of the model.
    """
    emit, trains = context.emit, context.spec.task in ("train", "probe")
    vision, pair = Vision(pictures, context.precision), noise(pictures.sight.factor)
    plain = logits(model, vision, pair)
    vision.layout = Layout.of(model, pictures.sight)
    if vision.layout is not None and not alike(plain, logits(model, vision, pair)):
        vision.layout = None
    if not wanted(context.params, trains=trains):
        return vision, f"none: {BESIDE}"
    emit.phase("cache", "vision features")
    tower = Tower(model, vision)
    if reason := refusal(model, tower, pair, plain):
        emit.notice("feature-cache", f"no feature cache: {reason}; {BESIDE}")
        return vision, f"none: {reason}; {BESIDE}"
    began = emit.now()
    try:
        kept = keep(context, tower, vision, views(context.params, data))
    except NoRoomError as error:
        emit.notice("feature-cache", f"no feature cache: {error}; {BESIDE}")
        return vision, f"none: no room on the disk; {BESIDE}"
    vision.form, vision.kept = tower.form, kept
    tower.drop()
    took = emit.now() - began
    said = f"{kept.bytes / 2**20:.1f} MiB; {kept.computed} pictures computed in {took:.1f} s"
    return vision, said


def noise(factor: int) -> list[Pixels]:
    """Two pictures of different sides."""
    generator = np.random.default_rng(0)
    shapes = ((2 * factor, 3 * factor, 3), (4 * factor, 2 * factor, 3))
    return [generator.integers(0, 256, shape, np.uint8) for shape in shapes]


@torch.no_grad()
def logits(
    model: Any, vision: Vision, pair: Sequence[Pixels], features: tuple[Form, Tensor] | None = None
) -> Tensor:
    """What the model says to two questions about these pictures, or about their features."""
    form, rows = features or (None, None)
    batch = vision.to_device(vision.collate(ASKED, pair, rows, ahead=True))
    with vision.precision.autocast():
        return Answerer(model, form).next_logits(batch)


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether two ways lead to the same logits [B, V]."""
    return bool((one - other).abs().max() <= NEAR * one.std())


def refusal(model: Any, tower: Tower, pair: Sequence[Pixels], plain: Tensor) -> str:
    """Why features cannot stand in for pixels in a model of this kind; empty: they can.

    Tried without the tower: whatever else of it the model reads fails here.
    """
    kind = type(model).__name__
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        return f"{kind} takes no features in the place of pixels"
    if draws(tower.modules):
        return f"the vision tower of {kind} draws dropout in training"
    try:
        form = Form.of(tower.look(pair[0]))
        if form is None:
            return f"{kind} hands its features on in a form of its own"
        rows = torch.cat([tower.encode(one, form) for one in pair])
        taken = tower.drop()
        try:
            other = logits(model, tower.vision, pair, (form, rows))
        finally:
            tower.restore(taken)
    except Exception as error:  # code of any model: it may raise whatever it likes
        if out_of_memory.is_device_failure(error):
            raise
        return f"{kind} fails on features ({(str(error).splitlines() or [''])[0][:120]})"
    if rows.dtype not in NUMPY or not alike(plain, other):
        return f"{kind} says something else to features than to pixels"
    tower.form, tower.dtype, tower.width = form, rows.dtype, rows.shape[1]
    return ""


def draws(modules: dict[str, nn.Module]) -> bool:
    """Whether there is dropout in modules, which a training step would draw anew."""
    inside = [one for module in modules.values() for one in module.modules()]
    rates = [getattr(one, name, 0.0) for one in inside for name in ("dropout", "attention_dropout")]
    layers = [one.p for one in inside if isinstance(one, nn.modules.dropout._DropoutNd)]
    return any(isinstance(rate, float) and rate > 0 for rate in (*rates, *layers))


def views(params: Params, data: Data) -> list[View]:
    """Every picture at every size at which the run looks at it."""
    found = {View(data.train.root, path): None for path in data.train.paths}
    for asked in (data.validation, *data.splits.values()):
        for path in asked.paths:
            for scale in (1.0, *params.tta_scales):
                found[View(asked.root, path, scale)] = None
            if params.blank:
                found[View(asked.root, path, blank=True)] = None
    return list(found)


class Item(NamedTuple):
    """A picture by its content."""

    key: bytes
    rows: int


def keep(context: Context, tower: Tower, vision: Vision, seen: Sequence[View]) -> Kept:
    """The features of all views, computed where the store has none.

    Raises:
        NoRoomError: the disk lacks the room.
    """
    emit = context.emit
    store = FeatureStore(context.cache_root, tower.fingerprint(), tower.width, NUMPY[tower.dtype])
    items = [item(tower, vision.pixels(view)) for view in seen]
    keys, sizes = [one.key for one in items], [one.rows for one in items]
    distinct = dict(zip(keys, sizes, strict=True))
    missing = store.count_missing(keys)
    emit.notice(
        "feature-cache",
        f"{missing} of {len(distinct)} pictures are not in the feature cache yet; all take "
        f"{store.disk_bytes(sum(distinct.values())) / 2**20:.1f} MiB in {store.folder}",
        missing,
    )

    def encode(positions: Sequence[int]) -> Iterator[tuple[Sequence[int], Tensor]]:
        for count, place in enumerate(positions, 1):
            rows = tower.encode(vision.pixels(seen[place]))
            bits = rows.view(torch.uint16) if rows.dtype == torch.bfloat16 else rows
            context.report_progress(count, len(positions), "pictures")
            yield [place], bits

    stored = store.open(keys, lambda positions: to_arrays(encode(positions)), sizes)
    places = {
        view: tuple(place) for view, place in zip(seen, stored.positions.tolist(), strict=True)
    }
    size = store.disk_bytes(sum(distinct.values()))
    return Kept(stored.arrays, places, tower.dtype, stored.computed, size)


def item(tower: Tower, pixels: Pixels) -> Item:
    """Of a picture at its size."""
    height, width = pixels.shape[:2]
    return Item(
        content_key(f"{height}x{width}".encode(), pixels.tobytes()), tower.rows((height, width))
    )
