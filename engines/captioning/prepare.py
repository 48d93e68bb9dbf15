"""From a spec to data and model: builds subsets, decodes media, runs the vision tower, loads.

Each part is a phase of its own, so that a run's time to first step can be read apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

from datasets_mm.clips import ClipCache
from datasets_mm.images import ImageCache
from datasets_mm.source import SourceError
from engines import models
from engines.captioning import base, captions, llm, media, projectors
from engines.captioning.captions import Captions
from engines.captioning.context import Context
from engines.captioning.llm import Wording
from engines.captioning.media import Frames, Rows
from engines.captioning.model import Captioner
from engines.captioning.vision import Tower
from engines.emitter import EngineError
from engines.models import Part
from engines.torchkit import device, lora, quantize, subsets

CALIBRATED_ON: Final = 64
"""Media whose features set the scale of the projector's input."""


@dataclass(frozen=True)
class Split:
    """Some media with their captions; `rows` are their places among the run's media."""

    name: str
    captions: Captions
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def spread(self, most: int) -> Split:
        """At most so many (0: all), evenly spread: the same ones in every run."""
        if not most or most >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, most).round().astype(np.int64)
        return Split(self.name, self.captions.take(chosen), self.rows[chosen])


@dataclass(frozen=True)
class Data:
    """Everything that is read of the subsets."""

    fingerprint: str
    train: Split
    validation: Split | None
    splits: list[Split]
    pixels: Frames
    base_captions: list[str]
    """What a language model from scratch reads."""


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

    def features(self, seen: Tensor) -> Tensor:
        """Of a batch's media: [B, F, N, D]; pixels go through the tower first."""
        if seen.dtype.is_floating_point:
            return seen
        features = self.tower.encode(seen.flatten(0, 1))
        return features.view(*seen.shape[:2], *features.shape[1:])


def part(context: Context, name: str) -> Part:
    """The vision tower or language model of the run: the setting's, else the entry's.

    Raises:
        EngineError: there is none, or it cannot be had here.
    """
    asked: str = getattr(context.params, name)
    kind, _, rest = asked.partition(":")
    if kind == "path":
        found: Part | None = Part(path=rest)
    elif kind == "hub":
        hub, _, revision = rest.partition("@")
        found = Part(hub=hub, revision=revision or "main")
    elif asked:
        raise EngineError(f"{name} = {asked}: is neither path:/abs/dir nor hub:org/name")
    else:
        found = getattr(context.entry, name)
    if found is None:
        raise EngineError(f"model '{context.entry.name}' has no {name}; set {name} = path:/abs/dir")
    needed = models.PART_FILES if name == "vision" else (*models.PART_FILES, "tokenizer.json")
    if sentence := models.part_problem(context.entry.name, found, needed):
        raise EngineError(sentence)
    return found


def read_data(context: Context, tower: Tower) -> Data:
    """Build (or open) the subsets and decode their media.

    Raises:
        EngineError: a subset cannot be built, or has no usable caption.
    """
    spec, params, emit = context.spec, context.params, context.emit
    source = context.source
    own = source.built(spec.subset, emit)
    train = captions.read(own)
    wanted = own.evaluate_on if params.evaluate_on is None else params.evaluate_on
    if spec.task == "evaluate" and not wanted:
        wanted = (spec.subset,)
    named: dict[str, Captions] = {}
    for name in wanted:
        if params.evaluate_on is None and (sentence := source.absent(name)):
            emit.notice("not-evaluated", sentence)
            continue
        named[name] = captions.read(source.built(name, emit))
    if params.validate_on and spec.task == "train":
        named.setdefault(params.validate_on, captions.read(source.built(params.validate_on, emit)))
    read = [captions.read(source.built(name, emit)) for name in _base_texts(context)]
    emit.phase("cache", "media")
    pixels, kept = _decode(context, tower.shape.image_size, [train, *named.values()])
    splits = {
        name: Split(name, said.take(rows), places)
        for (name, said), (rows, places) in zip(named.items(), kept[1:], strict=True)
    }
    whole = Split(spec.subset, train.take(kept[0][0]), kept[0][1])
    training, validation = _held_back(context, whole, splits)
    texts = [one for said in (train, *read) for many in said.references for one in many]
    evaluated = [splits[name] for name in wanted if name in splits]
    return Data(own.fingerprint, training, validation, evaluated, pixels, texts)


def _base_texts(context: Context) -> list[str]:
    """Other subsets whose captions a language model from scratch reads."""
    if context.trained is not None or models.weights_folder(part(context, "llm")):
        return []
    return [name for name in context.params.base_texts if name != context.spec.subset]


def _held_back(
    context: Context, whole: Split, splits: dict[str, Split]
) -> tuple[Split, Split | None]:
    """Training media, and those whose loss decides when to stop."""
    params = context.params
    if params.validate_on and context.spec.task == "train":
        return whole, splits[params.validate_on]
    count = round(params.validation_share * len(whole)) if params.early_stopping else 0
    if not count:
        return whole, None
    order = np.random.default_rng([context.spec.seed, 1]).permutation(len(whole))
    held, kept = np.sort(order[:count]), np.sort(order[count:])

    def some(name: str, rows: Rows) -> Split:
        return Split(name, whole.captions.take(rows), whole.rows[rows])

    return some(whole.name, kept), some(f"{whole.name} (held back)", held)


def _decode(
    context: Context, size: int, groups: Sequence[Captions]
) -> tuple[Frames, list[tuple[Rows, Rows]]]:
    """Pixels of all media; for each group the rows that could be read, and their places."""
    if len({said.videos for said in groups}) > 1:
        raise EngineError("the subsets of a run are of pictures or of videos, not of both")
    arrays: list[Any] = []
    places: list[Rows] = []
    kept: list[tuple[Rows, Rows]] = []
    total = 0
    for number, said in enumerate(groups):
        opener = _clips if said.videos else _pictures
        array, rows = opener(context, size, said)
        readable = np.flatnonzero((rows >= 0).all(1))
        if not len(readable):
            raise EngineError(f"{said.root}: none of {len(said)} media could be read")
        arrays.append(array)
        good = rows[readable]
        places.append(np.stack([np.full_like(good, number), good], -1))
        kept.append((readable, np.arange(total, total + len(readable))))
        total += len(readable)
    return Frames(arrays, np.concatenate(places)), kept


def _pictures(context: Context, size: int, said: Captions) -> tuple[Any, Rows]:
    """uint8 [N, S, S, 3] and the row [n, 1] of each picture; -1: it cannot be read."""
    cache = ImageCache.open(said.paths, said.root, size, context.cache_root, progress=context.say)
    subsets.tell_skipped(context.emit, cache.skipped, "pictures")
    rows = np.asarray([cache.row(path) for path in said.paths], np.int64)[:, None]
    return cache.array, rows


def _clips(context: Context, size: int, said: Captions) -> tuple[Any, Rows]:
    """uint8 [N, S, S, 3] and the rows [n, F] of each clip's frames; -1: it cannot be read."""
    frames = context.params.frames
    try:
        cache = ClipCache.open(
            said.paths, said.root, size, frames, context.cache_root, progress=context.say
        )
    except SourceError as error:
        raise EngineError(str(error)) from None
    subsets.tell_skipped(context.emit, cache.skipped, "videos")
    first = np.asarray([cache.row(path) for path in said.paths], np.int64)[:, None]
    rows = np.where(first >= 0, first * frames + np.arange(frames), -1)
    return cache.array.reshape(-1, size, size, 3), rows


def prepare(context: Context, data: Data, tower: Tower) -> Prepared:
    """The model of the spec, and what it looks at.

    Raises:
        EngineError: weights are missing, or settings do not fit the model.
    """
    params, emit = context.params, context.emit
    items, cache_said = _items(context, data, tower)
    folder, base_said = _llm_folder(context, data)
    emit.phase("import", "transformers")
    wording = llm.wording(folder, params.prompt)
    emit.phase("load", context.entry.name)
    model = llm.load(folder, params, context.precision)
    four_bit = len(quantize.four_bit(model))
    held = quantize.weight_bytes(model)
    device.seed(context.spec.seed)  # a tower that had to be loaded has drawn its first weights
    adapted = llm.adapt(model, params)
    sizes = _sizes(context, tower, data.pixels.frames, llm.width(adapted))
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
        "trainable": lora.listed(captioner),
    }
    return Prepared(
        captioner, wording, tower, items, _revision(context, folder), facts,
        {"base": folder.name if folder.parent.name == "bases" else ""},
    )  # fmt: skip


def _is_trained(name: str) -> bool:
    return name.startswith("projector.") or ".lora_A." in name or ".lora_B." in name


def projector_parameters(model: Captioner) -> int:
    """Parameters of the projector."""
    return sum(p.numel() for p in model.projector.parameters())


def _sizes(context: Context, tower: Tower, frames: int, width: int) -> projectors.Sizes:
    params = context.params
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
    missing = store.missing(keys)
    emit.notice(
        "feature-cache",
        f"{missing} of {len(set(keys))} frames are not in the feature cache yet; it will take "
        f"{store.bytes_of(missing) / 2**20:.1f} MiB more in {store.folder}",
        missing,
    )
    began = emit.now()
    made = media.cached(data.pixels, store, tower, context.say)
    took = emit.now() - began
    said = f"{made.bytes / 2**20:.1f} MiB; {made.computed} frames computed in {took:.1f} s"
    return made.items, said


def _llm_folder(context: Context, data: Data) -> tuple[Path, str]:
    """The language model's folder, trained from scratch first where the entry says so."""
    found = part(context, "llm")
    folder = models.weights_folder(found)
    if folder is not None:
        return folder, ""
    if context.trained is not None:
        place = context.cache_root / "bases" / str(context.trained.state["base"])
        if not (place / base.ABOUT).is_file():
            raise EngineError(f"{place}: the run's language model is gone; train the run again")
        made = base.opened(place)
    else:
        context.emit.phase("cache", "language model from scratch, on text")
        made = base.trained(
            data.base_captions, found.architecture, context.cache_root, context.device, context.say
        )
    said = (
        f"trained here on {made.texts:,} texts: {made.steps} steps, {made.seconds:.0f} s"
        f"{'' if made.fresh else ' (cached)'}, last loss {made.loss:.2f}; "
    )
    return made.folder, said


def _revision(context: Context, folder: Path) -> str:
    parts = []
    for name in ("vision", "llm"):
        found = part(context, name)
        parts.append(models.revision(found) if found.hub else found.path or "")
    known = [one for one in parts if one]
    return " + ".join(known) or f"base {folder.name}"
