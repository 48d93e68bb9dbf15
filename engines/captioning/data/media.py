"""Pictures and clips as pixels, their features where they are cached, and batches of them.

Apart from the vision tower, which knows no files, and from the model, which sees only tensors.
"""

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
from engines.captioning.models.vision import Tower
from engines.torchkit.data.data_loader import rank_share, split_rows
from engines.torchkit.data.epoch_sampling import sample_per_epoch
from engines.torchkit.data.prefetch import InputPipeline, pin_memory, to_arrays
from engines.torchkit.modeling.feature_cache import FeatureStore, content_key

Rows = npt.NDArray[np.int64]
Progress = Callable[[int, int, str], None]
"""Label of what is padding; torch's cross entropy leaves it out."""


class Items(Protocol):
    """Something that the model looks at, for every medium of a run."""

    def __len__(self) -> int:
        """Media."""

    def gather(self, rows: Rows) -> Tensor:
        """[n, F, ...] on the CPU."""


class Frames:
    """Rows of memory-mapped arrays, several for each medium: pixels or features.

    `places` [n, F, 2]: array and row of each frame. Only what is asked for is read.
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
        """Of all distinct frames."""
        first = self.arrays[0]
        size = first.dtype.itemsize * math.prod(first.shape[1:])
        return len(np.unique(self.places.reshape(-1, 2), axis=0)) * size

    def gather(self, rows: Rows) -> Tensor:
        """[n, F, ...] of these media, copied."""
        wanted = self.places[rows].reshape(-1, 2)
        first = self.arrays[0]
        out = np.empty((len(wanted), *first.shape[1:]), first.dtype)
        for number, array in enumerate(self.arrays):
            mine = np.flatnonzero(wanted[:, 0] == number)
            if len(mine):
                out[mine] = array[wanted[mine, 1]]
        return torch.from_numpy(out).view(len(rows), self.frames, *out.shape[1:])

    def keys(self) -> list[bytes]:
        """Content key of every frame, media one after the other; equal frames have equal keys."""
        known: dict[tuple[int, int], bytes] = {}
        for array, row in self.places.reshape(-1, 2).tolist():
            if (array, row) not in known:
                known[array, row] = content_key(self.arrays[array][row].tobytes())
        return [known[array, row] for array, row in self.places.reshape(-1, 2).tolist()]


@dataclass(frozen=True)
class Cached:
    """Features on disk, and what they took."""

    items: Frames
    computed: int
    """Frames that were not there before."""
    bytes: int
    """Of all that the run reads."""


def store_of(tower: Tower, root: Any, dtype: str) -> FeatureStore:
    """Where features of this very tower are kept."""
    return FeatureStore(root, tower.fingerprint(), (tower.shape.patches, tower.shape.width), dtype)


def cached(
    pixels: Frames, store: FeatureStore, tower: Tower, pipeline: InputPipeline, say: Progress
) -> Cached:
    """The features of all frames, computed where the store has none.

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
    return Cached(Frames(stored.arrays, places), stored.computed, size)


@dataclass(frozen=True)
class CaptionBatch:
    """A micro-batch: what is seen, and what is to be said about it."""

    media: Tensor
    """Features [B, F, N, D] from the cache, or pixels uint8 [B, F, S, S, 3]."""
    ids: Tensor
    """Token ids of the captions, end token last, [B, T], padded with 0."""
    labels: Tensor
    """The same with IGNORED where there is padding."""
    whole: int = 0
    """Media of the global micro-batch, of which these are one rank's share; 0: these are all."""

    def __len__(self) -> int:
        return self.whole or len(self.ids)


class Spoken:
    """Captions as token ids: medium i has those from offsets[i] to offsets[i + 1]."""

    def __init__(self, captions: Sequence[Sequence[Sequence[int]]]) -> None:
        self.tokens = [np.asarray(one, np.int64) for many in captions for one in many]
        self.offsets = np.cumsum([0, *(len(many) for many in captions)]).astype(np.int64)

    def counts(self, size: int) -> npt.NDArray[np.int64]:
        """How often each token of the vocabulary occurs."""
        return np.bincount(np.concatenate(self.tokens), minlength=size)


class Gatherer:
    """Makes batches; called by the loader, from several threads at once.

    `rows` of the media are the training set's: row i of `spoken` is medium `media[i]`.
    """

    def __init__(self, items: Items, media: Rows, spoken: Spoken, seed: int) -> None:
        self._items = items
        self._media = media
        self._spoken = spoken
        self._seed = seed
        self.pin = False
        self.rank_and_size = (0, 1)
        """This rank and the number of ranks."""

    def __call__(self, rows: Rows, epoch: int) -> CaptionBatch:
        """These media with a caption each, drawn anew every epoch; among ranks this one's share.

        A rank without a share gets one medium as a stand-in.
        """
        drawn = sample_per_epoch(self._spoken.offsets, rows, self._seed, epoch)
        first, last = rank_share(len(rows), *self.rank_and_size)
        own = slice(first, last) if last > first else slice(0, 1)
        ids, labels = padded([self._spoken.tokens[place] for place in drawn[own]])
        batch = CaptionBatch(self._items.gather(self._media[rows[own]]), ids, labels, len(rows))
        return pin_memory(batch) if self.pin else batch


def padded(tokens: Sequence[npt.NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Token ids [n, longest], padded on the right with 0, and labels with IGNORED there."""
    lengths = np.asarray([len(one) for one in tokens])
    inside = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(inside.shape, np.int64)
    ids[inside] = np.concatenate(list(tokens))
    return torch.from_numpy(ids), torch.from_numpy(np.where(inside, ids, IGNORED))
