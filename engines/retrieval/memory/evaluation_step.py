"""Fake evaluation: memory of encoding and searching, by part.

In the order of `evaluate`: every corpus, then the queries, then the search. Every kind of batch is
encoded once, beside the vectors that are kept. The blocks of a search are computed by formula, not
on fake tensors, because their sizes depend on scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from engines.retrieval.index import exact
from engines.retrieval.index.encoding import (
    FUSED_AT_ONCE,
    GIB,
    EncodedItems,
    ModalityVectors,
    VectorStorage,
)
from engines.retrieval.index.indexes import DTYPES
from engines.retrieval.index.joint_encoding import JointlyEncodedItems
from engines.retrieval.memory import model_from_config
from engines.retrieval.memory.dataset_stats import ItemCounts
from engines.retrieval.memory.training_step import TEXT, VISION, FakeRetrievalRun
from engines.retrieval.models import frozen_towers, max_sim
from engines.retrieval.models.encoder import l2_normalize
from engines.torchkit.memory import allocation_tracker, fake_training_step
from engines.torchkit.memory.fake_training_step import INPUTS

CORPUS: Final = "corpus vectors"
QUERIES: Final = "query vectors"
SCORES: Final = "scores of the search"
KEY: Final = 8
"""Bytes of a score with its row (`exact._pack_keys`)."""
PACKED: Final = 4 + 8 + 2 * KEY
"""Bytes of a score, two copies of its bits, and its key while packing."""
RESULT: Final = 12
"""Bytes of a score and a row."""
KEYS_AT_ONCE: Final = 4
"""Tensors of survivors' keys and indices that live at once."""
BLOCKS: Final = 2
"""Blocks of token pairs in late interaction: one still lives when the next is made."""


def measure_evaluation(
    fake_run: FakeRetrievalRun, corpora: Sequence[ItemCounts], queries: ItemCounts, *, trained: bool
) -> dict[str, int]:
    """Bytes by part at the peak. `trained`: the optimizer's moments still exist."""
    tracker, model = fake_run.tracker, fake_run.model.eval()
    kept: list[Any] = []
    if trained:
        kept += [allocation_tracker.make_optimizer_with_state(tracker, model)]
        kept += [allocation_tracker.add_weight_averages(tracker, model, fake_run.options.copies)]
    with fake_training_step.autocast(fake_run.options), torch.no_grad():
        shape = model.encode_items(fake_run.inputs(1, queries), "query").shape[1:]
        tracker.reset_peak()
        vectors: list[Tensor] = []
        for corpus in corpora:
            with tracker.part(CORPUS):
                fused = _fake_encode(
                    fake_run, _on_device(fake_run, corpus, shape), shape, "passage"
                ).fuse()
                vectors += [fused, fused.to(DTYPES[fake_run.params.search_precision])]
        with tracker.part(QUERIES):
            encoded = _fake_encode(fake_run, _on_device(fake_run, queries, shape), shape, "query")
            whole = [encoded.fuse()]
            if set(fake_run.params.evaluate_modalities) - {"both"}:  # one more, of one modality
                whole.append(encoded.fuse("text"))
        _fake_search(fake_run, corpora, queries, (whole[0], vectors))
    del kept
    return tracker.peak.parts


def measure_feature_pass(fake_run: FakeRetrievalRun) -> dict[str, int]:
    """Bytes by part at the peak of computing the cached features, before training.

    One tower after the other, each with its batch.
    """
    tracker, peaks = fake_run.tracker, []
    with torch.device("meta"):
        towers = frozen_towers.build_random_towers()
    texts = frozen_towers.TOKENS_AT_ONCE // fake_run.tokens
    for tower, name in zip(towers, (TEXT, VISION), strict=True):
        tower.eval()
        model_from_config.materialize(tower)
        tracker.assign((*tower.parameters(), *tower.buffers()), name)
        tracker.reset_peak()
        with fake_training_step.autocast(fake_run.options), torch.no_grad():
            if name == TEXT:
                tower(torch.zeros(texts, fake_run.tokens, dtype=torch.long))
            else:
                side = fake_run.params.image_size
                tower.extract_features(torch.zeros(frozen_towers.IMAGES_AT_ONCE, 3, side, side))
        peaks.append(tracker.peak)
        del tower
    return max(peaks, key=lambda peak: peak.total).parts


def _on_device(fake_run: FakeRetrievalRun, count: ItemCounts, shape: Sequence[int]) -> ItemCounts:
    """Counts of vectors on the device at once: of those in a file, one block."""
    most = fake_run.params.corpus_memory_gib * GIB / (4 * _numel(shape))
    if max(count.items, count.texts, count.images) <= most:
        return count
    return ItemCounts(*(min(n, FUSED_AT_ONCE) for n in (count.items, count.texts, count.images)))


def _numel(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()


def _fake_encode(
    fake_run: FakeRetrievalRun, count: ItemCounts, shape: Sequence[int], side: str
) -> EncodedItems:
    """Fake encoding of a side: storage of its vectors, and one batch beside it."""
    model, storage = fake_run.model, VectorStorage(torch.device("cpu"), 0)
    if model.joint:

        def encode_again(_: str = "") -> Tensor:
            return storage.zeros(count.items, _numel(shape)).view(-1, *shape)

        whole = encode_again()
        batch = fake_run.inputs(min(count.items, fake_run.params.eval_batch_size), count)
        with fake_run.tracker.part(allocation_tracker.ACTIVATIONS):
            model.encode_items(batch, side)
        return JointlyEncodedItems(None, None, storage, whole, encode_again)
    halves = []
    for there, rows, embed in (
        (count.texts, fake_run.texts, model.embed_texts),
        (count.images, fake_run.images, model.embed_images),
    ):
        kept = ModalityVectors(storage.zeros(there + 1, *shape), torch.zeros(count.items).long())
        if there:
            _fake_embed(fake_run, rows(min(there, fake_run.params.eval_batch_size)), embed, side)
        halves.append(kept if there else None)
    return EncodedItems(halves[0], halves[1], storage)


def _fake_embed(
    fake_run: FakeRetrievalRun, rows: Tensor, embed: Callable[[Tensor, str], Tensor], side: str
) -> None:
    fake_run.tracker.assign([rows], INPUTS)
    with fake_run.tracker.part(allocation_tracker.ACTIVATIONS):
        l2_normalize(embed(rows, side))


def _fake_search(
    fake_run: FakeRetrievalRun,
    corpora: Sequence[ItemCounts],
    queries: ItemCounts,
    vectors: tuple[Tensor, list[Tensor]],
) -> None:
    """Blocks of scores of the largest exact search, beside the kept vectors."""
    if not corpora or fake_run.params.search != "exact":
        return
    query_vectors, corpus_vectors = vectors
    target, passages = fake_run.options.target, max(corpus.items for corpus in corpora)
    with fake_run.tracker.part(SCORES):
        if query_vectors.ndim == 3:
            chunk = corpus_vectors[-1][: exact.PASSAGES_AT_ONCE[target]]
            pairs = query_vectors.shape[1] * chunk.shape[0] * chunk.shape[1]
            few = BLOCKS * max(1, max_sim.SIMILARITIES_AT_ONCE // pairs)
            max_sim.score(query_vectors[: min(few, exact.PLAIN_QUERIES)], chunk)
        size = count_block_bytes(queries.items, passages, fake_run.params.search_depth, target)
        torch.zeros(size, dtype=torch.uint8)


def count_block_bytes(queries: int, passages: int, depth: int, target: str) -> int:
    """Most bytes that `exact.top_k` holds beside the vectors."""
    k, wide = min(depth, passages), min(passages, exact.PASSAGES_AT_ONCE[target])
    if not exact.uses_thresholds(k, passages):
        rows = min(queries, exact.PLAIN_QUERIES)
        before = rows * (wide + k) * KEY if queries > rows else 0  # of the last block
        return rows * wide * PACKED + before + queries * k * RESULT
    rank, room = exact.plan_survivors(k, passages)
    keys = min(queries, exact.QUERIES_HELD) * room * KEY
    block = min(queries, exact.QUERIES_AT_ONCE[target]) * wide
    survivors = block * rank // exact.SAMPLE * KEYS_AT_ONCE * KEY
    scores, mask = 4 * block, block
    return max(keys + scores + mask + survivors, (KEYS_AT_ONCE - 1) * keys)
