"""Encoding of items whose vectors are not a sum: late interaction, or recurrent fusion.

An item is encoded as a whole, and once more without its text or image for an ablation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engines.emitter import EngineError
from engines.retrieval.data.items import ItemStore, Rows, batch_by_cost
from engines.retrieval.data.pairs import NONE, ItemInputs, ItemRows, gather_inputs
from engines.retrieval.index.encoding import CorpusEncoder, EncodedItems, Results
from engines.torchkit.data.data_loader import choose_others


def _shuffle(images: Rows) -> Rows:
    """Each item that has an image with that of another one."""
    present = np.flatnonzero(images != NONE)
    shuffled = images.copy()
    shuffled[present] = images[present[choose_others(len(present))]]
    return shuffled


@dataclass(frozen=True)
class JointlyEncodedItems(EncodedItems):
    """Encoded items; vectors of one modality are computed on demand."""

    whole: Tensor
    encode_modality: Callable[[str], Tensor]

    def fuse(self, modality: str = "both") -> Tensor:
        """Item vectors [N, D], or tokens [N, T, D]; zeros where an item has none of them."""
        return self.whole if modality == "both" else self.encode_modality(modality)


class JointCorpusEncoder(CorpusEncoder):
    """Encodes whole items with a model, in batches of like cost."""

    def encode(
        self, side: ItemRows, name: str, texts: ItemStore, images: ItemStore
    ) -> JointlyEncodedItems:
        """Encode all items of a side; `name` is "query" or "passage".

        Raises:
            EngineError: no item has a text or an image.
        """
        if (side.texts == NONE).all() and (side.images == NONE).all():
            raise EngineError(f"no {name} has a text or an image; look at the subset's records")
        absent = np.full(len(side), NONE)

        def encode_modality(modality: str) -> Tensor:
            kept = side.texts if modality in ("text", "shuffled") else absent
            shown = {"image": side.images, "shuffled": _shuffle(side.images)}.get(modality, absent)
            return self._encode_items(ItemRows(kept, shown), name, texts, images)

        whole = self._encode_items(side, name, texts, images)
        return JointlyEncodedItems(None, None, self._storage, whole, encode_modality)

    @torch.inference_mode()
    def _encode_items(
        self, side: ItemRows, name: str, texts: ItemStore, images: ItemStore
    ) -> Tensor:
        costs = np.append(texts.costs(), 1)[side.texts]  # NONE, which is -1, takes the 1
        usual = max(1, int(np.median(costs)))

        def gathered(part: Rows) -> tuple[ItemInputs, Tensor]:
            return gather_inputs(side.select(part), texts, images), torch.from_numpy(part)

        def compute() -> Results:
            done = 0
            parts = batch_by_cost(np.maximum(costs, usual), self._batch * usual)
            for part, (inputs, at) in self._pipeline.batches(parts, gathered):
                self._emit.check_stop()
                with self._precision.autocast():
                    vectors = self._model.encode_items(inputs, name)
                self._count_batch()
                done += len(part)
                self._emit.progress(done, len(side), "items")
                yield (part, at), vectors

        return self._scatter(compute(), len(side))
