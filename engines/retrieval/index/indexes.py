"""Search indexes: exact search, or an index of FAISS.

FAISS is optional: exact search needs no index up to millions of passages; beyond, an inverted file
trades a known share of the results for time.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from engines.emitter import EngineError
from engines.retrieval.index import exact

Method = Literal["exact", "faiss-flat", "faiss-ivf"]
StoredPrecision = Literal["fp32", "bf16", "fp16"]

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ADDED_AT_ONCE: Final = 65_536
PASSAGES_A_LIST: Final = 64
"""FAISS trains a list on at least 39 vectors; it warns below."""


class SearchIndex(Protocol):
    """A corpus that can be searched."""

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores and corpus rows of the k best passages of each query, best first: [Q, k] each."""


class ExactIndex:
    """Exact search by `exact.top_k`, with vectors in `precision`."""

    def __init__(
        self, vectors: Tensor, precision: StoredPrecision = "fp32", score: exact.Score | None = None
    ) -> None:
        self._vectors = vectors.to(DTYPES[precision])
        self._score = score

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `SearchIndex`."""
        return exact.top_k(queries, self._vectors, k, self._score)


class FaissIndex:
    """IndexFlatIP (exact) or IndexIVFFlat (nearest `probes` lists only) over inner products.

    Johnson, Douze and Jégou 2019. With `folder` an inverted file keeps its lists in a file
    there.
    """

    def __init__(
        self, vectors: Tensor, method: Method, probes: int, folder: Path | None = None
    ) -> None:
        exact.validate_finite(vectors, "passage")
        faiss = _import_faiss()
        faiss.omp_set_num_threads(torch.get_num_threads())
        width, lists = vectors.shape[1], folder and folder / f".lists-{id(self):x}"
        if method == "faiss-flat":
            self._index: Any = faiss.IndexFlatIP(width)
        else:
            self._index = self._inverted(faiss, vectors, lists)
            self._index.nprobe = min(probes, self._index.nlist)
        for part in torch.split(vectors, ADDED_AT_ONCE):
            self._index.add(_to_array(part))
        if lists:  # FAISS reopens the file whenever it grows; now it is mapped for good
            lists.unlink(missing_ok=True)

    @staticmethod
    def _inverted(faiss: Any, vectors: Tensor, path: Path | None) -> Any:
        """An inverted file, trained on a sample that is spread evenly over the corpus."""
        lists = max(1, min(len(vectors) // PASSAGES_A_LIST, round(4 * math.sqrt(len(vectors)))))
        width = vectors.shape[1]
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT
        )
        sample_size = min(len(vectors), lists * PASSAGES_A_LIST)
        spread = torch.linspace(0, len(vectors) - 1, sample_size, device=vectors.device).long()
        index.train(_to_array(vectors[spread]))
        if path is not None:
            kept = faiss.OnDiskInvertedLists(lists, index.code_size, str(path))
            index.replace_invlists(kept, True)
            kept.this.disown()  # the index frees it
        return index

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `SearchIndex`. Queries whose lists hold fewer than k passages probe more lists."""
        exact.validate_finite(queries, "query")
        vectors = _to_array(queries)
        k = min(k, self._index.ntotal)
        scores, rows = self._index.search(vectors, k)
        probes = first = getattr(self._index, "nprobe", 0)
        while (short := np.flatnonzero((rows < 0).any(1))).size:
            self._index.nprobe = probes = min(4 * probes, self._index.nlist)
            scores[short], rows[short] = self._index.search(vectors[short], k)
        if first:
            self._index.nprobe = first
        return torch.from_numpy(scores), torch.from_numpy(rows)


def _to_array(vectors: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.ascontiguousarray(vectors.float().cpu().numpy())


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise EngineError(
            "search = faiss-…: the package faiss-cpu is not here; install the extra "
            "`retrieval`, or use search = exact"
        ) from None
    return faiss
