"""Encoding many items, and exact search without ever holding the full score matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from engines.emitter import Emitter
from engines.retrieval.encoder import DualEncoder, unit
from engines.retrieval.items import Items, Rows, by_cost
from engines.retrieval.pairs import NONE, Side
from engines.torchkit.precision import Precision

QUERIES_AT_ONCE: Final = 256
PASSAGES_AT_ONCE: Final = 16_384
"""256 x 16,384 scores in float32 are 16 MiB."""


@dataclass(frozen=True)
class Encoded:
    """Text and image vectors of many items, unit length, zero where there is none: [N, D]."""

    texts: Tensor
    images: Tensor

    def fused(self, modality: str = "both") -> Tensor:
        """Item vectors, of all modalities or of one."""
        if modality == "text":
            return self.texts
        if modality == "image":
            return self.images
        return unit(self.texts + self.images)


class Encoder:
    """Runs a model over items in batches of like cost; every distinct row once."""

    def __init__(self, model: DualEncoder, precision: Precision, batch: int, emit: Emitter) -> None:
        self._model = model.eval()
        self._precision = precision
        self._batch = batch
        self._emit = emit

    def encode(self, side: Side, name: str, texts: Items, images: Items) -> Encoded:
        """All items of a side; `name` is "query" or "passage"."""
        total = len(np.unique(side.texts)) + len(np.unique(side.images))
        embedded = self._embed(side.texts, texts, f"text:{name}", 0, total)
        done = len(np.unique(side.texts))
        pictures = self._embed(side.images, images, f"image:{name}", done, total)
        width = next(v.shape[1] for v in (embedded, pictures) if v is not None)
        device = self._precision.device
        empty = torch.zeros(len(side), width, device=device)
        return Encoded(
            empty if embedded is None else embedded, empty if pictures is None else pictures
        )

    @torch.inference_mode()
    def _embed(self, rows: Rows, items: Items, what: str, done: int, total: int) -> Tensor | None:
        unique, inverse = np.unique(rows, return_inverse=True)
        present = unique[unique != NONE]
        if not len(present):
            return None
        costs = items.costs()[present]
        most = self._batch * max(1, int(np.median(costs)))
        kind, _, side = what.partition(":")
        embed = self._model.embed_texts if kind == "text" else self._model.embed_images
        vectors: Tensor | None = None
        for part in by_cost(costs, most):
            self._emit.check_stop()
            batch = items.gather(present[part]).to(self._precision.device)
            with self._precision.autocast():
                made = unit(embed(batch, side))
            if vectors is None:  # one more row, of zeros, for what is not there
                vectors = made.new_zeros(len(present) + 1, made.shape[1])
            vectors[torch.from_numpy(part).to(made.device)] = made
            done += len(part)
            self._emit.progress(done, total, "items")
        assert vectors is not None  # noqa: S101 - there is at least one present row
        shift = len(unique) - len(present)  # NONE sorts first
        at = np.where(inverse < shift, len(present), inverse - shift)
        return vectors[torch.from_numpy(at).to(vectors.device)]


@torch.inference_mode()
def top_k(queries: Tensor, corpus: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores and corpus rows of the k best passages of each query, best first: [Q, k] each.

    Equal scores are ordered by corpus row.
    """
    k = min(k, len(corpus))
    scores, rows = [], []
    kept, torch.backends.cuda.matmul.fp32_precision = (
        torch.backends.cuda.matmul.fp32_precision,
        "ieee",  # TF32 would swap near neighbours
    )
    for chunk in torch.split(queries, QUERIES_AT_ONCE):
        best = chunk.new_empty(len(chunk), 0)
        at = torch.empty(len(chunk), 0, dtype=torch.long, device=chunk.device)
        for start in range(0, len(corpus), PASSAGES_AT_ONCE):
            part = chunk @ corpus[start : start + PASSAGES_AT_ONCE].T
            found, places = part.topk(min(k, part.shape[1]), dim=1)
            best = torch.cat([best, found], 1)
            at = torch.cat([at, places + start], 1)
            by_row = at.argsort(1)
            order = best.gather(1, by_row).argsort(dim=1, descending=True, stable=True)[:, :k]
            best = best.gather(1, by_row).gather(1, order)
            at = at.gather(1, by_row).gather(1, order)
        scores.append(best)
        rows.append(at)
    torch.backends.cuda.matmul.fp32_precision = kept
    return torch.cat(scores), torch.cat(rows)
