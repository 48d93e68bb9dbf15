"""Exact top-k search over a corpus, chunk by chunk, without the full score matrix.

A top-k of every chunk costs more than its matrix product. So:

1. Each query gets a threshold: the r-th best score in a sample of the corpus, with r large enough
   that more than k passages of the corpus beat it.
2. One comparison a score finds the few hundred survivors, and only they are sorted.
3. A query with fewer than k survivors, or with too many, is searched by a running merge of top-k
   instead, so the result never depends on the sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from engines.emitter import EngineError
from engines.torchkit.runtime.matmul_precision import ieee_fp32

Score = Callable[[Tensor, Tensor], Tensor]
"""Scores [q, p] in float32 of queries [q, ...] and passages [p, ...]."""

SAMPLE: Final = 4096
"""Passages whose scores set the thresholds: 4 % more products on a corpus of 114,810."""
QUERIES_HELD: Final = 8192
"""Queries of one pass over the corpus; survivors take 8 bytes each, some 130 MB."""
QUERIES_AT_ONCE: Final = {"cpu": 512, "cuda": 8192}
PASSAGES_AT_ONCE: Final = {"cpu": 4096, "cuda": 16_384}
"""On a CPU a block of scores is 8 MiB and stays in the cache; a GPU wants few, large blocks."""
PLAIN_QUERIES: Final = 256
LARGEST: Final = 1e15
"""Vectors beyond it could overflow to inf - inf in a score."""
_EMPTY: Final = torch.iinfo(torch.int64).max
_LOW: Final = 0xFFFF_FFFF


@torch.inference_mode()
def top_k(
    queries: Tensor, corpus: Tensor, k: int, score: Score | None = None
) -> tuple[Tensor, Tensor]:
    """Scores and corpus rows of the k best passages of each query, best first: [Q, k] each.

    Equal scores are ordered by corpus row; k is at most the size of the corpus. The corpus may be
    elsewhere (in a file, on the host) and in half precision: its chunks are copied to the queries'
    device, and scores are summed in float32. Products of float32 vectors are
    IEEE, whatever `tf32` says.

    Raises:
        EngineError: a vector is not finite.
    """
    k = min(k, len(corpus))
    if not len(queries) or not k:
        empty = torch.empty(len(queries), k, device=queries.device)
        return empty, empty.long()
    validate_finite(queries, "query")
    validate_finite(corpus, "passage")
    parts = torch.split(queries, QUERIES_HELD)
    with ieee_fp32():
        results = [_search(part, corpus, k, score or inner_products) for part in parts]
    return torch.cat([scores for scores, _ in results]), torch.cat([rows for _, rows in results])


def inner_products(queries: Tensor, passages: Tensor) -> Tensor:
    """Inner products [q, p], summed in float32 whatever the passages are stored in."""
    if passages.dtype == torch.float32:
        return queries @ passages.T
    if passages.is_cuda:
        return torch.mm(queries.to(passages.dtype), passages.T, out_dtype=torch.float32)
    return queries @ passages.float().T


def validate_finite(vectors: Tensor, kind: str) -> None:
    """Raise EngineError where a vector holds NaN, infinity or a number beyond LARGEST."""
    for part in torch.split(vectors, 65_536):
        low, high = torch.aminmax(part)
        if not (float(low) >= -LARGEST and float(high) <= LARGEST):
            raise EngineError(
                f"search: a {kind} vector is NaN or infinite; the model has diverged: lower lr, or "
                "use precision = fp32"
            )


def uses_thresholds(k: int, passages: int) -> bool:
    """Whether a corpus of this size is searched by thresholds, else by merging."""
    return passages >= 4 * SAMPLE and k <= passages // 16


def plan_survivors(k: int, passages: int) -> tuple[int, int]:
    """Rank of the threshold in the sample, and capacity for survivors, per query."""
    expected = k * SAMPLE / passages
    rank = math.ceil(expected + 3.3 * math.sqrt(expected) + 2)
    return rank, math.ceil(rank * passages / SAMPLE * (1 + 6 / math.sqrt(rank)))


def _search(queries: Tensor, corpus: Tensor, k: int, score: Score) -> tuple[Tensor, Tensor]:
    """The top k of at most `QUERIES_HELD` queries."""
    if not uses_thresholds(k, len(corpus)):
        return _search_by_merge(queries, corpus, k, score)
    scan = _Scan.from_sample(queries, corpus, k, score)
    size = PASSAGES_AT_ONCE[queries.device.type]
    for start in range(0, len(corpus), size):
        chunk = corpus[start : start + size].to(queries.device)
        for at in range(0, len(queries), QUERIES_AT_ONCE[queries.device.type]):
            part = queries[at : at + QUERIES_AT_ONCE[queries.device.type]]
            scan.collect(score(part, chunk), at, start)
    scores, rows = _unpack_keys(_sort_rows(scan.keys)[:, :k])
    again = (scan.counts < k).nonzero().squeeze(1)
    if len(again):
        scores[again], rows[again] = _search_by_merge(queries[again], corpus, k, score)
    return scores, rows


@dataclass
class _Scan:
    """One pass over the corpus: thresholds and survivors of each query."""

    thresholds: Tensor
    keys: Tensor
    """Packed survivors, [Q, room]."""
    counts: Tensor
    """Number of survivors of each query; negative if they exceeded the capacity."""

    @classmethod
    def from_sample(cls, queries: Tensor, corpus: Tensor, k: int, score: Score) -> _Scan:
        """Thresholds from a sample spread evenly over the corpus."""
        rank, room = plan_survivors(k, len(corpus))
        spread = torch.linspace(0, len(corpus) - 1, SAMPLE, device=corpus.device).long()
        sample = corpus[spread].to(queries.device)
        blocks = torch.split(queries, QUERIES_AT_ONCE[queries.device.type])
        thresholds = torch.cat([_score_at_rank(score(part, sample), rank) for part in blocks])
        keys = queries.new_full((len(queries), room), _EMPTY, dtype=torch.int64)
        counts = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
        return cls(thresholds, keys, counts)

    def collect(self, scores: Tensor, at: int, start: int) -> None:
        """Add the survivors of a block of scores [q, p] at query `at` and passage `start`."""
        scores = scores.float().contiguous()
        size, width = scores.shape
        room, device = self.keys.shape[1], scores.device
        block = slice(at, at + size)
        indices = _true_indices(scores > self.thresholds[block, None])
        edges = torch.searchsorted(indices, torch.arange(size + 1, device=device) * width)
        new_counts, before = edges.diff(), self.counts[block]
        if bool((before + new_counts > room).any()):
            crowded = before + new_counts > room
            self.thresholds[block][crowded] = math.inf
            self.counts[block][crowded] = -room * width  # stays below k whatever comes
            indices = indices[~crowded.repeat_interleave(new_counts)]
            new_counts = new_counts.masked_fill(crowded, 0)
            edges = torch.cat([new_counts.new_zeros(1), new_counts.cumsum(0)])
        number = torch.arange(size, device=device)
        columns = indices - (number * width).repeat_interleave(new_counts)
        shift = (number + at) * room + before - edges[:-1]
        targets = torch.arange(len(indices), device=device) + shift.repeat_interleave(new_counts)
        self.keys.view(-1)[targets] = _pack_keys(scores.view(-1)[indices], columns + start)
        self.counts[block] += new_counts


def _search_by_merge(
    queries: Tensor, corpus: Tensor, k: int, score: Score
) -> tuple[Tensor, Tensor]:
    """Top k by a running merge; equal scores at the edge of the k are decided by row too."""
    parts = []
    size = PASSAGES_AT_ONCE[queries.device.type]
    for block in torch.split(queries, PLAIN_QUERIES):
        best = block.new_empty(len(block), 0, dtype=torch.int64)
        for start in range(0, len(corpus), size):
            scores = score(block, corpus[start : start + size].to(block.device))
            rows = torch.arange(start, start + scores.shape[1], device=block.device)
            keys = torch.cat([best, _pack_keys(scores, rows)], 1)
            best = _smallest(keys, min(k, keys.shape[1]))
        parts.append(_unpack_keys(_sort_rows(best)))
    return torch.cat([scores for scores, _ in parts]), torch.cat([rows for _, rows in parts])


def _pack_keys(scores: Tensor, rows: Tensor) -> Tensor:
    """Pack score and row into an int64 whose ascending order is best score, then lowest row."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0: -0.0 and 0.0 are one score
    ascending = bits ^ ((bits >> 31) & 0x7FFF_FFFF)
    return (~ascending).long() << 32 | rows


def _unpack_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    ascending = ~(keys >> 32).int()
    bits = ascending ^ ((ascending >> 31) & 0x7FFF_FFFF)
    return bits.view(torch.float32), keys & _LOW


# numpy partitions, sorts and searches with AVX2 and AVX-512: 5 to 30 times torch's CPU speed.


def _uses_torch(data: Tensor) -> bool:
    return data.is_cuda


def _score_at_rank(scores: Tensor, rank: int) -> Tensor:
    """The score at this rank of each row, from 1."""
    if _uses_torch(scores):
        return scores.topk(rank).values[:, -1]
    index = scores.shape[1] - rank
    return torch.from_numpy(np.partition(scores.numpy(), index, axis=1)[:, index].copy())


def _true_indices(mask: Tensor) -> Tensor:
    """Flat indices of the true entries, ascending."""
    if _uses_torch(mask):
        return mask.view(-1).nonzero().squeeze(1)
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _sort_rows(keys: Tensor) -> Tensor:
    if _uses_torch(keys):
        return keys.sort(1).values
    return torch.from_numpy(np.sort(keys.numpy(), axis=1))


def _smallest(keys: Tensor, k: int) -> Tensor:
    """The k smallest of each row, in any order."""
    if _uses_torch(keys):
        return keys.topk(k, dim=1, largest=False, sorted=False).values
    if k == keys.shape[1]:
        return keys
    return torch.from_numpy(np.partition(keys.numpy(), k - 1, axis=1)[:, :k].copy())
