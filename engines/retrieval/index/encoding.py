"""Encoding of many items: every distinct text and image once, in batches of like cost."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from engines.emitter import Emitter, EngineError
from engines.retrieval.data.items import ItemStore, Rows, batch_by_cost
from engines.retrieval.data.pairs import NONE, ItemRows
from engines.retrieval.models.encoder import DualEncoder, l2_normalize
from engines.torchkit.data import prefetch
from engines.torchkit.data.data_loader import choose_others
from engines.torchkit.data.prefetch import InputPipeline
from engines.torchkit.modeling.feature_cache import FULL, NoRoomError
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training.step_timing import stopwatch

Results = Iterator[tuple[tuple[Rows, Tensor], Tensor]]
"""Rows of a batch, on the host and on the device, and their vectors."""

FUSED_AT_ONCE: Final = 65_536
GIB: Final = 1 << 30


class VectorStorage:
    """Storage of vectors: on the device, or above a limit in an unlinked, memory-mapped file.

    The file is unlinked as soon as it is mapped, so it is freed however the process ends.
    """

    def __init__(self, device: torch.device, limit_gib: float, folder: Path | None = None) -> None:
        self._device = device
        self._limit = limit_gib * GIB
        self._folder = folder
        self.uses_file = False
        """Whether any vectors are in a file."""

    def zeros(self, rows: int, width: int) -> Tensor:
        """Zeros [rows, width] in float32.

        Raises:
            NoRoomError: the disk lacks the room; a write into a mapped file would end the process.
        """
        if self._folder is None or rows * width * 4 <= self._limit:
            return torch.zeros(rows, width, device=self._device)
        self.uses_file = True
        path, size = self._folder / f".vectors-{id(self):x}", rows * width
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, 4 * size)
            kept = torch.from_file(str(path), shared=True, size=size, dtype=torch.float32)
        except OSError as error:
            if error.errno in FULL:
                raise NoRoomError(
                    f"{self._folder}: {4 * size / GIB:.2f} GiB of vectors do not fit on the disk "
                    f"({error.strerror}); make room, or raise corpus_memory_gib"
                ) from None
            raise
        finally:
            path.unlink(missing_ok=True)
        return kept.view(rows, width)


@dataclass(frozen=True)
class ModalityVectors:
    """Vectors of one modality of many items: distinct ones, and their row for each item."""

    distinct: Tensor
    """[U + 1, D], unit length; the last row is of zeros, for items that lack the modality."""
    at: Tensor
    """Row of `distinct` for each item, on its device."""

    def shuffle(self) -> ModalityVectors:
        """Each item that has the modality with the vector of another one that has it."""
        present = (self.at < len(self.distinct) - 1).nonzero().squeeze(1)
        others = torch.from_numpy(choose_others(len(present))).to(present.device)
        at = self.at.clone()
        at[present] = self.at[present[others]]
        return replace(self, at=at)

    def rows(self, start: int, stop: int) -> Tensor:
        """Vectors of the items from `start` to before `stop`."""
        return self.distinct[self.at[start:stop]]


@dataclass(frozen=True)
class EncodedItems:
    """Text and image vectors of many items; None where no item has the modality."""

    texts: ModalityVectors | None
    images: ModalityVectors | None
    storage: VectorStorage

    def fuse(self, modality: str = "both") -> Tensor:
        """Item vectors [N, D] of both modalities or one; zeros where an item has none.

        `shuffled`: of both, with the images of other items.
        """
        present = next(v for v in (self.texts, self.images) if v is not None)
        images = self.images
        if modality == "shuffled" and images is not None:
            images = images.shuffle()
        sides = {"text": [self.texts], "image": [images]}.get(modality, [self.texts, images])
        parts = [vectors for vectors in sides if vectors is not None]
        out = self.storage.zeros(len(present.at), present.distinct.shape[1])
        for start in range(0, len(out), FUSED_AT_ONCE):
            stop = min(start + FUSED_AT_ONCE, len(out))
            rows = [vectors.rows(start, stop) for vectors in parts]
            if rows:
                out[start:stop] = (
                    l2_normalize(torch.stack(rows).sum(0)) if len(rows) > 1 else rows[0]
                )
        return out


class CorpusEncoder:
    """Encodes items with a model, in batches of like cost; every distinct row once."""

    def __init__(
        self,
        model: DualEncoder,
        precision: Precision,
        batch: int,
        emit: Emitter,
        storage: VectorStorage | None = None,
        pipeline: InputPipeline | None = None,
    ) -> None:
        self._model = model.eval()
        self._pipeline = pipeline or InputPipeline(precision.device)
        self._precision = precision
        self._batch = batch
        self._emit = emit
        self._storage = storage or VectorStorage(precision.device, 0)
        self._watch = stopwatch(precision.device)
        self.batches = 0
        """Batches encoded so far, over all calls."""
        self.first_batch_seconds: float | None = None
        """Seconds from the start of the attempt to the end of the first batch."""

    def encode(
        self, side: ItemRows, name: str, texts: ItemStore, images: ItemStore
    ) -> EncodedItems:
        """Encode all items of a side; `name` is "query" or "passage".

        Raises:
            EngineError: no item has a text or an image.
        """
        total = len(np.unique(side.texts)) + len(np.unique(side.images))
        embedded = self._embed(side.texts, texts, f"text:{name}", 0, total)
        done = len(np.unique(side.texts))
        pictures = self._embed(side.images, images, f"image:{name}", done, total)
        if embedded is None and pictures is None:
            raise EngineError(f"no {name} has a text or an image; look at the subset's records")
        return EncodedItems(embedded, pictures, self._storage)

    def synchronize(self) -> None:
        """Wait for the device."""
        self._watch.synchronize()

    @torch.inference_mode()
    def _embed(
        self, rows: Rows, items: ItemStore, kind_and_side: str, done: int, total: int
    ) -> ModalityVectors | None:
        unique, inverse = np.unique(rows, return_inverse=True)
        present = unique[unique != NONE]
        if not len(present):
            return None
        costs = items.costs()[present]
        most = self._batch * max(1, int(np.median(costs)))
        kind, _, side = kind_and_side.partition(":")
        embed = self._model.embed_texts if kind == "text" else self._model.embed_images

        def gather(part: Rows) -> tuple[Tensor, Tensor]:
            return items.gather(present[part]), torch.from_numpy(part)

        def compute() -> Results:
            count = done
            for part, (batch, at) in self._pipeline.batches(batch_by_cost(costs, most), gather):
                self._emit.check_stop()
                with self._precision.autocast():
                    vectors = l2_normalize(embed(batch, side))
                self._count_batch()
                count += len(part)
                self._emit.progress(count, total, "items")
                yield (part, at), vectors

        # One more row, of zeros, for missing items.
        distinct = self._scatter(compute(), len(present) + 1)
        shift = len(unique) - len(present)  # NONE sorts first
        at = np.where(inverse < shift, len(present), inverse - shift)
        return ModalityVectors(distinct, torch.from_numpy(at).to(distinct.device))

    def _scatter(self, results: Results, rows: int) -> Tensor:
        """Scatter the results into a tensor [rows, ...], zeros elsewhere."""
        key, first = next(results)
        vectors = self._storage.zeros(rows, first[0].numel()).view(-1, *first.shape[1:])
        results = itertools.chain([(key, first)], results)
        if vectors.device == first.device:
            for (_, at), vectors_of_batch in results:
                vectors[at] = vectors_of_batch
        else:
            for (part, _), array in prefetch.to_arrays(results):
                vectors[torch.from_numpy(part)] = torch.from_numpy(array)
        return vectors

    def _count_batch(self) -> None:
        self.batches += 1
        if self.first_batch_seconds is None:
            self._watch.synchronize()
            self.first_batch_seconds = self._emit.now()
