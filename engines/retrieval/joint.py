"""Encoding items whose vectors are no sum: all tokens side by side, or text and image in one cell.

Apart from `search.Encoder`, which computes every distinct text and image once; here an item is
computed as a whole, and without its text or image anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engines.emitter import EngineError
from engines.retrieval.items import Items, by_cost
from engines.retrieval.pairs import NONE, Side, gather
from engines.retrieval.search import Encoded, Encoder


@dataclass(frozen=True)
class JointlyEncoded(Encoded):
    """Items that are encoded; those of one modality are computed when they are asked for."""

    whole: Tensor
    again: Callable[[str], Tensor]

    def fused(self, modality: str = "both") -> Tensor:
        """Item vectors [N, D], or tokens [N, T, D]; zeros where an item has none of them."""
        return self.whole if modality == "both" else self.again(modality)


class JointEncoder(Encoder):
    """Runs a model over whole items in batches of like cost."""

    def encode(self, side: Side, name: str, texts: Items, images: Items) -> JointlyEncoded:
        """All items of a side; `name` is "query" or "passage".

        Raises:
            EngineError: no item has a text or an image.
        """
        if (side.texts == NONE).all() and (side.images == NONE).all():
            raise EngineError(f"no {name} has a text or an image; look at the subset's records")
        absent = np.full(len(side), NONE)

        def again(modality: str) -> Tensor:
            kept = side.texts if modality == "text" else absent
            shown = side.images if modality == "image" else absent
            return self._items(Side(kept, shown), name, texts, images)

        whole = self._items(side, name, texts, images)
        return JointlyEncoded(None, None, self._room, whole, again)

    @torch.inference_mode()
    def _items(self, side: Side, name: str, texts: Items, images: Items) -> Tensor:
        costs = np.append(texts.costs(), 1)[side.texts]  # NONE, which is -1, takes the 1
        usual = max(1, int(np.median(costs)))
        done, vectors = 0, None
        for part in by_cost(np.maximum(costs, usual), self._batch * usual):
            self._emit.check_stop()
            inputs = gather(side.take(part), texts, images).to(self._precision.device)
            with self._precision.autocast():
                made = self._model.items(inputs, name)
            self._count_batch()
            if vectors is None:
                width = made[0].numel()
                vectors = self._room.zeros(len(side), width).view(-1, *made.shape[1:])
            vectors[torch.from_numpy(part).to(vectors.device)] = made.to(vectors.device)
            done += len(part)
            self._emit.progress(done, len(side), "items")
        assert vectors is not None  # noqa: S101 - there is at least one item
        return vectors
