"""From a spec to media and captions: builds subsets, decodes, and says who is evaluated on what.

Apart from the model, which sees only what stands in `Data`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets_mm.media.clip_cache import ClipCache
from datasets_mm.media.image_cache import ImageCache
from engines import model_catalog
from engines.captioning.components import part
from engines.captioning.context import Context
from engines.captioning.data import captions
from engines.captioning.data.captions import Captions
from engines.captioning.data.media import Frames, Rows
from engines.emitter import EngineError
from engines.torchkit.data import subsets
from engines.torchkit.training.early_stopping import Monitor


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
    media: str
    """Digest of the contents of the training media, those held back among them."""
    listed: int
    """Media of the run's own subset, those that cannot be read among them."""


def read_data(context: Context, size: int) -> Data:
    """Build (or open) the subsets and decode their media, `size` pixels a side.

    Raises:
        EngineError: a subset cannot be built, or has no usable caption.
    """
    spec, params, emit = context.spec, context.params, context.emit
    source = context.source
    own = source.build(spec.subset, emit)
    train = captions.read(own, optional=spec.task == "infer")
    wanted = own.evaluate_on if params.evaluate_on is None else params.evaluate_on
    if spec.task == "infer" or (spec.task == "evaluate" and not wanted):
        wanted = (spec.subset,)
    named: dict[str, Captions] = {spec.subset: train} if spec.task == "infer" else {}
    for name in wanted:
        if name in named:
            continue
        if params.evaluate_on is None and (sentence := source.find_problem(name)):
            emit.notice("not-evaluated", sentence)
            continue
        named[name] = captions.read(source.build(name, emit))
    if params.validate_on and spec.task == "train":
        named.setdefault(params.validate_on, captions.read(source.build(params.validate_on, emit)))
    read = [captions.read(source.build(name, emit)) for name in _base_texts(context)]
    emit.phase("cache", "media")
    pixels, kept, media = _decode(context, size, [train, *named.values()])
    splits = {
        name: Split(name, said.take(rows), places)
        for (name, said), (rows, places) in zip(named.items(), kept[1:], strict=True)
    }
    whole = Split(spec.subset, train.take(kept[0][0]), kept[0][1])
    training, validation = _held_back(context, whole, splits)
    # Sorted: runs of any of these subsets share one base.
    texts = sorted(one for said in (train, *read) for many in said.references for one in many)
    evaluated = [splits[name] for name in wanted if name in splits]
    return Data(
        own.fingerprint, training, validation, evaluated, pixels, texts, media, len(train)
    )  # fmt: skip


def _base_texts(context: Context) -> list[str]:
    """Other subsets whose captions a language model from scratch reads."""
    if context.trained is not None or model_catalog.weights_folder(part(context, "llm")):
        return []
    return [name for name in context.params.base_texts if name != context.spec.subset]


def _held_back(
    context: Context, whole: Split, splits: dict[str, Split]
) -> tuple[Split, Split | None]:
    """Training media, and those that are validated on between epochs."""
    params = context.params
    if params.validate_on and context.spec.task == "train":
        return whole, splits[params.validate_on]
    monitored = Monitor.from_params(params).active
    count = round(params.validation_share * len(whole)) if monitored else 0
    if not count:
        return whole, None
    order = np.random.default_rng([context.spec.seed, 1]).permutation(len(whole))
    held, kept = np.sort(order[:count]), np.sort(order[count:])

    def some(name: str, rows: Rows) -> Split:
        return Split(name, whole.captions.take(rows), whole.rows[rows])

    return some(whole.name, kept), some(f"{whole.name} (held back)", held)


def _decode(
    context: Context, size: int, groups: Sequence[Captions]
) -> tuple[Frames, list[tuple[Rows, Rows]], str]:
    """Pixels of all media; for each group the rows that could be read, and their places.

    Last, a digest of the contents of the first group.
    """
    if len({said.videos for said in groups}) > 1:
        raise EngineError("the subsets of a run are of pictures or of videos, not of both")
    arrays: list[Any] = []
    places: list[Rows] = []
    kept: list[tuple[Rows, Rows]] = []
    contents: list[str] = []
    total = 0
    for number, said in enumerate(groups):
        opener = _clips if said.videos else _pictures
        cache, array, rows = opener(context, size, said)
        contents.append(cache.contents(said.paths) if not number else "")
        readable = np.flatnonzero((rows >= 0).all(1))
        if not len(readable):
            raise EngineError(f"{said.root}: none of {len(said)} media could be read")
        arrays.append(array)
        good = rows[readable]
        places.append(np.stack([np.full_like(good, number), good], -1))
        kept.append((readable, np.arange(total, total + len(readable))))
        total += len(readable)
    return Frames(arrays, np.concatenate(places)), kept, contents[0]


def _pictures(context: Context, size: int, said: Captions) -> tuple[ImageCache, Any, Rows]:
    """Their cache, uint8 [N, S, S, 3] and the row [n, 1] of each picture; -1: it cannot be read."""
    root = context.cache_root
    with subsets.source_errors_as_engine_errors():
        cache = ImageCache.open(said.paths, said.root, size, root, progress=context.report_progress)
    subsets.report_skipped_media(context.emit, cache.skipped, "pictures")
    rows = np.asarray([cache.row(path) for path in said.paths], np.int64)[:, None]
    return cache, cache.array, rows


def _clips(context: Context, size: int, said: Captions) -> tuple[ImageCache, Any, Rows]:
    """Their cache, uint8 [N, S, S, 3] and the rows [n, F] of each clip's frames; -1: unreadable."""
    frames = context.params.frames
    with subsets.source_errors_as_engine_errors():
        cache = ClipCache.open(
            said.paths,
            said.root,
            size,
            frames,
            context.cache_root,
            progress=context.report_progress,
        )
    subsets.report_skipped_media(context.emit, cache.skipped, "videos")
    subsets.report_substituted_frames(context.emit, cache.substituted)
    first = np.asarray([cache.row(path) for path in said.paths], np.int64)[:, None]
    rows = np.where(first >= 0, first * frames + np.arange(frames), -1)
    return cache, cache.array.reshape(-1, size, size, 3), rows
