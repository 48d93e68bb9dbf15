"""Training pairs (query, one positive passage) and their batches.

The positive of a record is sampled per epoch, as a function of (seed, epoch, record) alone: neither
the order of the batches nor the number of workers changes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from engines.retrieval.data.items import ItemStore, Rows, TokenItems
from engines.torchkit.checkpointing.training_identity import fingerprint_samples
from engines.torchkit.data.collator import Collator
from engines.torchkit.data.epoch_sampling import sample_per_epoch, splitmix64

NONE = -1
"""Row of a missing modality."""


@dataclass(frozen=True)
class ItemRows:
    """Rows of queries or passages in the text and image stores; NONE where missing."""

    texts: Rows
    images: Rows

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Rows | slice) -> ItemRows:
        """The items of these rows."""
        return ItemRows(self.texts[rows], self.images[rows])


@dataclass(frozen=True)
class TrainingPairs:
    """Training pairs of a subset: queries, and the positives of all records concatenated."""

    queries: ItemRows
    positives: ItemRows
    codes: Rows
    """Row of each positive's passage id: equal rows are the same passage."""
    offsets: Rows
    """Positives of record i: offsets[i] to offsets[i + 1]; at least one."""

    def __len__(self) -> int:
        return len(self.queries)

    def digest(self, fingerprint: str, pictures: str = "") -> str:
        """Digest of the subset's fingerprint and of the rows of its pairs.

        `pictures`: digest of the images' contents.
        """
        sides = (self.queries.texts, self.queries.images, self.positives.texts)
        parts = (*sides, self.positives.images, self.codes, self.offsets, pictures)
        return fingerprint_samples(fingerprint, parts)


def has_uniform_modalities(pairs: TrainingPairs) -> bool:
    """Whether all queries have the same modalities, and all passages have the same."""
    sides = (pairs.queries, pairs.positives)
    lacking = [rows == NONE for side in sides for rows in (side.texts, side.images)]
    return all(bool(each.all() or not each.any()) for each in lacking)


@dataclass(frozen=True)
class ItemInputs:
    """Texts and images of `size` items: inputs, and the items that they belong to.

    `text_at` [n texts] and `image_at` [n images] are indices of items; an item may lack either.
    """

    size: int
    texts: Tensor
    text_at: Tensor
    images: Tensor
    image_at: Tensor


@dataclass(frozen=True)
class PairBatch:
    """A micro-batch. `positive` [B, B]: passage j is a positive of query i.

    Among several ranks `positive` is of the global micro-batch, and the inputs are one rank's share
    of it; a rank without a share gets one pair as a stand-in.
    """

    queries: ItemInputs
    passages: ItemInputs
    positive: Tensor

    def __len__(self) -> int:
        return len(self.positive)


class PairCollator(Collator[PairBatch]):
    """Collator of training pairs."""

    def __init__(
        self,
        pairs: TrainingPairs,
        texts: ItemStore,
        images: ItemStore,
        seed: int,
        modality_dropout: float = 0.0,
    ) -> None:
        self._pairs = pairs
        self._texts = texts
        self._images = images
        self._seed = seed
        self._dropout = modality_dropout

    def pad_texts(self, multiple: int) -> None:
        """Round text lengths up to a multiple, unless the store pads to one length."""
        if isinstance(self._texts, TokenItems) and not self._texts.length:
            self._texts.multiple = multiple

    def text_widths(self, rows: Rows, epoch: int) -> tuple[int, int]:
        """Padded lengths of the queries' and the passages' texts in a batch."""
        if not isinstance(self._texts, TokenItems):
            return 0, 0
        drawn = sample_per_epoch(self._pairs.offsets, rows, self._seed, epoch)
        both = (self._pairs.queries.texts[rows], self._pairs.positives.texts[drawn])
        queries, passages = (self._texts.width(texts[texts != NONE]) for texts in both)
        return queries, passages

    def collate(self, rows: Rows, epoch: int, share: slice) -> PairBatch:
        """The pairs of these records in this epoch; `positive` is of all ranks."""
        pairs = self._pairs
        drawn = sample_per_epoch(pairs.offsets, rows, self._seed, epoch)
        queries = pairs.queries.select(rows)
        if self._dropout:
            queries = drop_modality(queries, rows, self._seed, epoch, self._dropout)
        return PairBatch(
            gather_inputs(queries.select(share), self._texts, self._images),
            gather_inputs(pairs.positives.select(drawn[share]), self._texts, self._images),
            torch.from_numpy(positive_matrix(pairs, rows, drawn)),
        )


def drop_modality(queries: ItemRows, rows: Rows, seed: int, epoch: int, share: float) -> ItemRows:
    """Drop the text or the image, at even odds, of `share` of the queries that have both."""
    chance = splitmix64(rows, seed, epoch, salt=2)
    both = (queries.texts != NONE) & (queries.images != NONE)
    chosen = both & ((chance >> np.uint64(11)) * 2.0**-53 < share)
    text = chosen & (chance & np.uint64(1) == 0)
    return ItemRows(
        np.where(text, NONE, queries.texts), np.where(chosen & ~text, NONE, queries.images)
    )


def positive_matrix(pairs: TrainingPairs, rows: Rows, drawn: Rows) -> npt.NDArray[np.bool_]:
    """[B, B]: whether the passage drawn for record j is a positive of record i."""
    starts, counts = pairs.offsets[rows], np.diff(pairs.offsets)[rows]
    ends = np.cumsum(counts)
    flat = np.arange(ends[-1]) - np.repeat(ends - counts - starts, counts)
    hits = pairs.codes[flat][:, None] == pairs.codes[drawn][None, :]
    matrix: npt.NDArray[np.bool_] = np.logical_or.reduceat(hits, ends - counts, axis=0)
    return matrix


def gather_inputs(side: ItemRows, texts: ItemStore, images: ItemStore) -> ItemInputs:
    """Inputs of items, as CPU tensors."""
    text_at = np.flatnonzero(side.texts != NONE)
    image_at = np.flatnonzero(side.images != NONE)
    return ItemInputs(
        len(side),
        texts.gather(side.texts[text_at]),
        torch.from_numpy(text_at),
        images.gather(side.images[image_at]),
        torch.from_numpy(image_at),
    )


def join_inputs(first: ItemInputs, second: ItemInputs) -> ItemInputs:
    """Concatenate the inputs of two sides; texts are padded with 0 to the longer."""
    width = max(first.texts.shape[1], second.texts.shape[1])
    texts = [functional.pad(i.texts, (0, width - i.texts.shape[1])) for i in (first, second)]
    return ItemInputs(
        first.size + second.size,
        torch.cat(texts),
        torch.cat([first.text_at, second.text_at + first.size]),
        torch.cat([first.images, second.images]),
        torch.cat([first.image_at, second.image_at + first.size]),
    )


def count_join_padding(first: ItemInputs, second: ItemInputs) -> int:
    """Padding tokens that `join_inputs` adds."""
    (rows, width), (others, other_width) = first.texts.shape, second.texts.shape
    return rows * max(0, other_width - width) + others * max(0, width - other_width)
