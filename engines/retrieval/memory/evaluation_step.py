"""Encoding and searching on fake tensors: what an evaluation holds at once, booked by part.

In the order of `evaluate`: every corpus, then the queries, then the search. Every kind of batch is
encoded once, beside the vectors that are kept; a search's blocks are computed, not rehearsed,
because it looks at its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from engines.retrieval.index import exact
from engines.retrieval.index.encoding import FUSED_AT_ONCE, GIB, Encoded, Room, Vectors
from engines.retrieval.index.indexes import DTYPES
from engines.retrieval.index.joint_encoding import JointlyEncoded
from engines.retrieval.memory import model_from_config
from engines.retrieval.memory.dataset_stats import Count
from engines.retrieval.memory.training_step import TEXT, VISION, Scene
from engines.retrieval.models import frozen_towers, max_sim
from engines.retrieval.models.encoder import unit
from engines.torchkit.memory import allocation_tracker as books
from engines.torchkit.memory import fake_training_step
from engines.torchkit.memory.fake_training_step import INPUTS

CORPUS: Final = "corpus vectors"
QUERIES: Final = "query vectors"
SCORES: Final = "scores of the search"
KEY: Final = 8
"""Bytes of a score with its row (`exact._packed`)."""
PACKED: Final = 4 + 8 + 2 * KEY
"""A score, its bits twice, and its key while it is put together."""
RESULT: Final = 12
"""A score and a row."""
KEYS_AT_ONCE: Final = 4
"""Tensors of survivors' keys and places that live at once."""
BLOCKS: Final = 2
"""Of token pairs, to see what late interaction takes: one is still there when the next is made."""


def predict(
    scene: Scene, corpora: Sequence[Count], queries: Count, *, trained: bool
) -> dict[str, int]:
    """Parts at the peak. `trained`: the optimizer's moments are still there."""
    ledger, model = scene.ledger, scene.model.eval()
    kept: list[Any] = []
    if trained:
        kept += [books.optimizer_with_state(ledger, model)]
        kept += [books.averages(ledger, model, scene.tuning.copies)]
    with fake_training_step.autocast(scene.tuning), torch.no_grad():
        shape = model.items(scene.inputs(1, queries), "query").shape[1:]
        ledger.forget_peak()
        found: list[Tensor] = []
        for corpus in corpora:
            with ledger.part(CORPUS):
                fused = _encoded(scene, _on_device(scene, corpus, shape), shape, "passage").fused()
                found += [fused, fused.to(DTYPES[scene.params.search_precision])]
        with ledger.part(QUERIES):
            asked = _encoded(scene, _on_device(scene, queries, shape), shape, "query")
            whole = [asked.fused()]
            if set(scene.params.evaluate_modalities) - {"both"}:  # one more, of one modality
                whole.append(asked.fused("text"))
        _search(scene, corpora, queries, (whole[0], found))
    del kept
    return ledger.peak.parts


def features(scene: Scene) -> dict[str, int]:
    """Parts at the peak of computing what a model of cached features is trained on, before it is.

    One tower after the other, over as many items as they take at once.
    """
    ledger, peaks = scene.ledger, []
    with torch.device("meta"):
        towers = frozen_towers.unread()
    texts = frozen_towers.TOKENS_AT_ONCE // scene.tokens
    for tower, name in zip(towers, (TEXT, VISION), strict=True):
        tower.eval()
        model_from_config.fill(tower)
        ledger.move((*tower.parameters(), *tower.buffers()), name)
        ledger.forget_peak()
        with fake_training_step.autocast(scene.tuning), torch.no_grad():
            if name == TEXT:
                tower(torch.zeros(texts, scene.tokens, dtype=torch.long))
            else:
                side = scene.params.image_size
                tower.extract_features(torch.zeros(frozen_towers.IMAGES_AT_ONCE, 3, side, side))
        peaks.append(ledger.peak)
        del tower
    return max(peaks, key=lambda peak: peak.total).parts


def _on_device(scene: Scene, count: Count, shape: Sequence[int]) -> Count:
    """Of vectors that would lie in a file, as many as are on the device at once."""
    most = scene.params.corpus_memory_gib * GIB / (4 * _numel(shape))
    if max(count.items, count.texts, count.images) <= most:
        return count
    return Count(*(min(n, FUSED_AT_ONCE) for n in (count.items, count.texts, count.images)))


def _numel(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()


def _encoded(scene: Scene, count: Count, shape: Sequence[int], side: str) -> Encoded:
    """Items of a side, with the room for their vectors and a batch that was computed beside it."""
    model, room = scene.model, Room(torch.device("cpu"), 0)
    if model.joint:

        def again(_: str = "") -> Tensor:
            return room.zeros(count.items, _numel(shape)).view(-1, *shape)

        whole = again()
        batch = scene.inputs(min(count.items, scene.params.evaluate_batch), count)
        with scene.ledger.part(books.ACTIVATIONS):
            model.items(batch, side)
        return JointlyEncoded(None, None, room, whole, again)
    halves = []
    for there, rows, embed in (
        (count.texts, scene.texts, model.embed_texts),
        (count.images, scene.images, model.embed_images),
    ):
        kept = Vectors(room.zeros(there + 1, *shape), torch.zeros(count.items).long())
        if there:
            _embed(scene, rows(min(there, scene.params.evaluate_batch)), embed, side)
        halves.append(kept if there else None)
    return Encoded(halves[0], halves[1], room)


def _embed(scene: Scene, rows: Tensor, embed: Callable[[Tensor, str], Tensor], side: str) -> None:
    scene.ledger.move([rows], INPUTS)
    with scene.ledger.part(books.ACTIVATIONS):
        unit(embed(rows, side))


def _search(
    scene: Scene, corpora: Sequence[Count], queries: Count, vectors: tuple[Tensor, list[Tensor]]
) -> None:
    """The blocks of scores of the largest exact search, beside everything that is kept."""
    if not corpora or scene.params.search != "exact":
        return
    asked, found = vectors
    target, passages = scene.tuning.target, max(corpus.items for corpus in corpora)
    with scene.ledger.part(SCORES):
        if asked.ndim == 3:
            chunk = found[-1][: exact.PASSAGES_AT_ONCE[target]]
            pairs = asked.shape[1] * chunk.shape[0] * chunk.shape[1]
            few = BLOCKS * max(1, max_sim.SIMILARITIES_AT_ONCE // pairs)
            max_sim.score(asked[: min(few, exact.PLAIN_QUERIES)], chunk)
        size = block_bytes(queries.items, passages, scene.params.search_depth, target)
        torch.zeros(size, dtype=torch.uint8)


def block_bytes(queries: int, passages: int, depth: int, target: str) -> int:
    """What `exact.top_k` holds beside the vectors, at most."""
    k, wide = min(depth, passages), min(passages, exact.PASSAGES_AT_ONCE[target])
    if not exact.scanned(k, passages):
        rows = min(queries, exact.PLAIN_QUERIES)
        before = rows * (wide + k) * KEY if queries > rows else 0  # of the last block
        return rows * wide * PACKED + before + queries * k * RESULT
    rank, room = exact.survivors(k, passages)
    keys = min(queries, exact.QUERIES_HELD) * room * KEY
    block = min(queries, exact.QUERIES_AT_ONCE[target]) * wide
    survivors = block * rank // exact.SAMPLE * KEYS_AT_ONCE * KEY
    scores, mask = 4 * block, block
    return max(keys + scores + mask + survivors, (KEYS_AT_ONCE - 1) * keys)
