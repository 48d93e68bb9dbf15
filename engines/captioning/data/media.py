"""Pictures and clips as pixels or cached features, and training batches of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.captioning.models.captioner import IGNORED
from engines.captioning.models.vision import VisionTower
from engines.torchkit.data.collator import Collator
from engines.torchkit.data.data_loader import split_rows
from engines.torchkit.data.epoch_sampling import sample_per_epoch
from engines.torchkit.data.prefetch import InputPipeline, to_arrays
from engines.torchkit.modeling.feature_cache import FeatureStore, content_key

Rows = npt.NDArray[np.int64]
Progress = Callable[[int, int, str], None]
"""Takes done, total and the unit."""


class MediaItems(Protocol):
    """Inputs of the model for the media of a run: pixels or features."""

    def __len__(self) -> int:
        """Number of media."""

    def gather(self, rows: Rows) -> Tensor:
        """Inputs [n, F, ...] of these media, on the CPU."""


class Frames:
    """Rows of memory-mapped arrays, several for each medium: pixels or features.

    `places` [n, F, 2]: array and row of each frame. Frames are read when they are gathered.
    """

    def __init__(self, arrays: Sequence[npt.NDArray[Any]], places: Rows) -> None:
        self.arrays = list(arrays)
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @property
    def frames(self) -> int:
        """Frames of each medium."""
        return int(self.places.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all distinct frames."""
        first = self.arrays[0]
        size = first.dtype.itemsize * math.prod(first.shape[1:])
        return len(np.unique(self.places.reshape(-1, 2), axis=0)) * size

    def gather(self, rows: Rows) -> Tensor:
        """[n, F, ...] of these media, copied."""
        places = self.places[rows].reshape(-1, 2)
        first = self.arrays[0]
        out = np.empty((len(places), *first.shape[1:]), first.dtype)
        for number, array in enumerate(self.arrays):
            positions = np.flatnonzero(places[:, 0] == number)
            if len(positions):
                out[positions] = array[places[positions, 1]]
        return torch.from_numpy(out).view(len(rows), self.frames, *out.shape[1:])

    def keys(self) -> list[bytes]:
        """Content key of every frame, medium by medium; equal frames have equal keys."""
        keys: dict[tuple[int, int], bytes] = {}
        for array, row in self.places.reshape(-1, 2).tolist():
            if (array, row) not in keys:
                keys[array, row] = content_key(self.arrays[array][row].tobytes())
        return [keys[array, row] for array, row in self.places.reshape(-1, 2).tolist()]


@dataclass(frozen=True)
class CachedFeatures:
    """Features on disk."""

    items: Frames
    computed: int
    """Frames that were not in the cache before."""
    bytes: int
    """Bytes of all features that the run reads."""


def open_feature_store(tower: VisionTower, root: Any, dtype: str) -> FeatureStore:
    """The feature store of this tower, by its fingerprint."""
    return FeatureStore(root, tower.fingerprint(), (tower.shape.patches, tower.shape.width), dtype)


def cache_features(
    pixels: Frames, store: FeatureStore, tower: VisionTower, pipeline: InputPipeline, say: Progress
) -> CachedFeatures:
    """Features of all frames; those that the store lacks are computed and added.

    Raises:
        NoRoomError: the disk lacks the room.
    """
    keys = pixels.keys()
    flat = Frames(pixels.arrays, pixels.places.reshape(-1, 1, 2))

    def gather(rows: Rows) -> Tensor:
        return flat.gather(rows)[:, 0]

    def encode(rows: Rows) -> Iterator[tuple[Sequence[int], Tensor]]:
        done = 0
        for part, frames in pipeline.batches(split_rows(rows, tower.at_once), gather):
            features = tower.encode(frames)
            done += len(part)
            say(done, len(rows), "frames")
            yield part.tolist(), features

    stored = store.open(keys, lambda positions: to_arrays(encode(np.asarray(positions, np.int64))))
    places = stored.positions.reshape(len(pixels), pixels.frames, 2)
    size = store.disk_bytes(len(set(keys)))
    return CachedFeatures(Frames(stored.arrays, places), stored.computed, size)


@dataclass(frozen=True)
class CaptionBatch:
    """A micro-batch of media with one caption each."""

    media: Tensor
    """Features [B, F, N, D] from the cache, or pixels uint8 [B, F, S, S, 3]."""
    ids: Tensor
    """Token ids of the captions, end token last, [B, T], padded with 0."""
    labels: Tensor
    """The same with IGNORED where there is padding."""
    whole: int = 0
    """Media of the global micro-batch, of which this is the share of one rank; 0: all."""

    def __len__(self) -> int:
        return self.whole or len(self.ids)


class TokenizedCaptions:
    """Captions as token ids; medium i has captions offsets[i] to offsets[i + 1]."""

    def __init__(self, captions: Sequence[Sequence[Sequence[int]]]) -> None:
        self.tokens = [
            np.asarray(tokens, np.int64) for references in captions for tokens in references
        ]
        self.offsets = np.cumsum([0, *(len(references) for references in captions)]).astype(
            np.int64
        )


class CaptionCollator(Collator[CaptionBatch]):
    """Collator of media and captions; row i of the training set is medium `media[i]`."""

    def __init__(
        self, items: MediaItems, media: Rows, captions: TokenizedCaptions, seed: int
    ) -> None:
        self._items = items
        self._media = media
        self._captions = captions
        self._seed = seed

    def collate(self, rows: Rows, epoch: int, share: slice) -> CaptionBatch:
        """The media of the share, each with a caption drawn by epoch."""
        drawn = sample_per_epoch(self._captions.offsets, rows[share], self._seed, epoch)
        ids, labels = pad_captions([self._captions.tokens[index] for index in drawn])
        return CaptionBatch(self._items.gather(self._media[rows[share]]), ids, labels, len(rows))


def pad_captions(tokens: Sequence[npt.NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Token ids [n, longest], padded on the right with 0, and labels with IGNORED there."""
    lengths = np.asarray([len(caption) for caption in tokens])
    inside = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(inside.shape, np.int64)
    ids[inside] = np.concatenate(list(tokens))
    return torch.from_numpy(ids), torch.from_numpy(np.where(inside, ids, IGNORED))
