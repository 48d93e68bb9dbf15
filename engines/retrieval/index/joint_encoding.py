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
from engines.retrieval.data.items import Items, Rows, by_cost
from engines.retrieval.data.pairs import NONE, Inputs, Side, gather
from engines.retrieval.index.encoding import Encoded, Encoder, Results


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

        def gathered(part: Rows) -> tuple[Inputs, Tensor]:
            return gather(side.take(part), texts, images), torch.from_numpy(part)

        def compute() -> Results:
            done = 0
            parts = by_cost(np.maximum(costs, usual), self._batch * usual)
            for part, (inputs, at) in self._pipeline.batches(parts, gathered):
                self._emit.check_stop()
                with self._precision.autocast():
                    made = self._model.items(inputs, name)
                self._count_batch()
                done += len(part)
                self._emit.progress(done, len(side), "items")
                yield (part, at), made

        return self._placed(compute(), len(side))
