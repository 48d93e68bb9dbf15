"""Media and captions of a run: builds its subsets, decodes media, selects the splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets_mm.media.clip_cache import ClipCache
from datasets_mm.media.image_cache import ImageCache
from engines import model_catalog
from engines.captioning.components import resolve_part
from engines.captioning.context import Context
from engines.captioning.data import captions
from engines.captioning.data.captions import Captions
from engines.captioning.data.media import Frames, Rows
from engines.emitter import EngineError
from engines.torchkit.data import subset_source
from engines.torchkit.training.early_stopping import Monitor


@dataclass(frozen=True)
class Split:
    """Some media with their captions; `rows` [n] are their indices among all media of the run."""

    name: str
    captions: Captions
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def select_evenly(self, count: int) -> Split:
        """At most `count` media (0: all), evenly spaced, the same ones in every run."""
        if not count or count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).round().astype(np.int64)
        return Split(self.name, self.captions.select(chosen), self.rows[chosen])


@dataclass(frozen=True)
class CaptioningData:
    """The data of a run."""

    fingerprint: str
    train: Split
    validation: Split | None
    splits: list[Split]
    pixels: Frames
    base_captions: list[str]
    """Texts on which a language model from scratch is trained."""
    media: str
    """Digest of the contents of the training media, held-out ones included."""
    listed: int
    """Media of the run's own subset, those that cannot be read among them."""

    @property
    def evaluated_samples(self) -> int:
        """Media of all splits."""
        return sum(map(len, self.splits))


def read_data(context: Context, size: int) -> CaptioningData:
    """Build (or open) the subsets and decode their media, `size` pixels a side.

    Raises:
        EngineError: a subset cannot be built, or has no usable caption.
    """
    spec, params, emit = context.spec, context.params, context.emit
    source = context.source
    subset = source.build(spec.subset, emit)
    train = captions.read_captions(subset, optional=spec.task == "infer")
    evaluated_names = subset.evaluate_on if params.evaluate_on is None else params.evaluate_on
    if spec.task == "infer" or (spec.task == "evaluate" and not evaluated_names):
        evaluated_names = (spec.subset,)
    named: dict[str, Captions] = {spec.subset: train} if spec.task == "infer" else {}
    for name in evaluated_names:
        if name in named:
            continue
        if params.evaluate_on is None and (sentence := source.find_problem(name)):
            emit.notice("not-evaluated", sentence)
            continue
        named[name] = captions.read_captions(source.build(name, emit))
    if params.validate_on and spec.task == "train":
        named.setdefault(
            params.validate_on, captions.read_captions(source.build(params.validate_on, emit))
        )
    read = [
        captions.read_captions(source.build(name, emit)) for name in _base_text_subsets(context)
    ]
    emit.phase("cache", "media")
    pixels, kept, media = _decode_media(context, size, [train, *named.values()])
    splits = {
        name: Split(name, group.select(rows), positions)
        for (name, group), (rows, positions) in zip(named.items(), kept[1:], strict=True)
    }
    whole = Split(spec.subset, train.select(kept[0][0]), kept[0][1])
    training, validation = _split_validation(context, whole, splits)
    # Sorted: runs of any of these subsets share one base.
    texts = sorted(
        caption
        for group in (train, *read)
        for references in group.references
        for caption in references
    )
    evaluated = [splits[name] for name in evaluated_names if name in splits]
    return CaptioningData(
        subset.fingerprint, training, validation, evaluated, pixels, texts, media, len(train)
    )  # fmt: skip


def _base_text_subsets(context: Context) -> list[str]:
    """Names of further subsets whose captions a language model from scratch is trained on."""
    if context.trained is not None or model_catalog.weights_folder(resolve_part(context, "llm")):
        return []
    return [name for name in context.params.base_texts if name != context.spec.subset]


def _split_validation(
    context: Context, whole: Split, splits: dict[str, Split]
) -> tuple[Split, Split | None]:
    """The training split and the validation split; None: no media are held out."""
    params = context.params
    if params.validate_on and context.spec.task == "train":
        return whole, splits[params.validate_on]
    monitored = any(Monitor.from_params(stage).active for stage in params.stage_params())
    count = round(params.validation_share * len(whole)) if monitored else 0
    if not count:
        return whole, None
    order = np.random.default_rng([context.spec.seed, 1]).permutation(len(whole))
    held, kept = np.sort(order[:count]), np.sort(order[count:])

    def some(name: str, rows: Rows) -> Split:
        return Split(name, whole.captions.select(rows), whole.rows[rows])

    return some(whole.name, kept), some(f"{whole.name} (held back)", held)


def _decode_media(
    context: Context, size: int, groups: Sequence[Captions]
) -> tuple[Frames, list[tuple[Rows, Rows]], str]:
    """Decode the media of all groups.

    Returns:
        The pixels; for each group its readable rows and their indices in the pixels; the digest
        of the contents of the first group.
    """
    if len({group.videos for group in groups}) > 1:
        raise EngineError("the subsets of a run are of pictures or of videos, not of both")
    arrays: list[Any] = []
    places: list[Rows] = []
    kept: list[tuple[Rows, Rows]] = []
    contents: list[str] = []
    total = 0
    for number, group in enumerate(groups):
        opener = _open_clips if group.videos else _open_pictures
        cache, array, rows = opener(context, size, group)
        contents.append(cache.contents(group.paths) if not number else "")
        readable = np.flatnonzero((rows >= 0).all(1))
        if not len(readable):
            raise EngineError(f"{group.root}: none of {len(group)} media could be read")
        arrays.append(array)
        good = rows[readable]
        places.append(np.stack([np.full_like(good, number), good], -1))
        kept.append((readable, np.arange(total, total + len(readable))))
        total += len(readable)
    return Frames(arrays, np.concatenate(places)), kept, contents[0]


def _open_pictures(context: Context, size: int, captions: Captions) -> tuple[ImageCache, Any, Rows]:
    """The cache of the pictures, uint8 [N, S, S, 3] and the row [n, 1] of each; -1: unreadable."""
    root = context.cache_root
    with subset_source.source_errors_as_engine_errors():
        cache = ImageCache.open(
            captions.paths, captions.root, size, root, progress=context.report_progress
        )
    subset_source.report_skipped_media(context.emit, cache.skipped, "pictures")
    rows = np.asarray([cache.row(path) for path in captions.paths], np.int64)[:, None]
    return cache, cache.array, rows


def _open_clips(context: Context, size: int, captions: Captions) -> tuple[ImageCache, Any, Rows]:
    """The cache of the clips, uint8 [N, S, S, 3] and frame rows [n, F] of each; -1: unreadable."""
    frames = context.params.frames
    with subset_source.source_errors_as_engine_errors():
        cache = ClipCache.open(
            captions.paths,
            captions.root,
            size,
            frames,
            context.cache_root,
            progress=context.report_progress,
        )
    subset_source.report_skipped_media(context.emit, cache.skipped, "videos")
    subset_source.report_substituted_frames(context.emit, cache.substituted)
    first = np.asarray([cache.row(path) for path in captions.paths], np.int64)[:, None]
    rows = np.where(first >= 0, first * frames + np.arange(frames), -1)
    return cache, cache.array.reshape(-1, size, size, 3), rows
