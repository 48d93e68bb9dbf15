"""Fake training step of the retrieval engine: its own modules and functions, tracked by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from engines.retrieval import tasks
from engines.retrieval.data.pairs import ItemInputs, PairBatch
from engines.retrieval.loss import OBJECTIVES, Objective
from engines.retrieval.memory.dataset_stats import ItemCounts
from engines.retrieval.models import encoder, frozen_towers, master_weights
from engines.retrieval.models.encoder import DualEncoder
from engines.retrieval.params import Params
from engines.torchkit.memory import allocation_tracker, fake_training_step
from engines.torchkit.memory.allocation_tracker import AllocationTracker
from engines.torchkit.memory.fake_training_step import INPUTS, LOGITS, TrainingOptions
from engines.torchkit.runtime.distributed import ProcessGroup

TEXT: Final = "text tower"
VISION: Final = "vision tower"
OTHER: Final = "fusion and scale"
SIMULATED_CHUNKS: Final = 2
"""Of a split of GradCache."""


@dataclass(frozen=True)
class FakeRetrievalRun:
    """A fake run: model, settings and allocation tracker."""

    tracker: AllocationTracker
    model: DualEncoder
    params: Params
    options: TrainingOptions
    tokens: int
    """Tokens of the longest text."""

    def track_model(self) -> None:
        """Track the model's tensors by tower."""
        towers = (TEXT, self.model.text_tower), (VISION, self.model.vision_tower)
        part_of = {id(p): name for name, tower in towers for p in tower.parameters()}
        part_of |= {
            id(b): name for name, tower in towers for m in tower.modules() for b in m.buffers()
        }
        tensors: dict[str, Tensor] = dict(self.model.named_parameters())
        tensors |= dict(self.model.named_buffers())
        names = {name: part_of.get(id(tensor), OTHER) for name, tensor in tensors.items()}
        allocation_tracker.track_model(self.tracker, self.model, names.__getitem__)

    def inputs(self, size: int, side: ItemCounts) -> ItemInputs:
        """Inputs of `size` items on the device, each with all modalities of its side."""
        texts, images = (size if there else 0 for there in (side.texts, side.images))
        with self.tracker.part(INPUTS):
            return ItemInputs(
                size, self.texts(texts), torch.arange(texts), self.images(images),
                torch.arange(images),
            )  # fmt: skip

    def texts(self, count: int) -> Tensor:
        """Token ids [n, T], or the features of a frozen tower [n, W]."""
        if self.model.pixel_normalizer is None:
            return torch.zeros(count, frozen_towers.TEXT_WIDTH, dtype=torch.float16)
        return torch.zeros(count, self.tokens, dtype=torch.long)

    def images(self, count: int) -> Tensor:
        """Pictures uint8 [n, S, S, 3], or the features of a frozen tower [n, W]."""
        if self.model.pixel_normalizer is None:
            return torch.zeros(count, frozen_towers.IMAGE_WIDTH, dtype=torch.float16)
        side = self.params.image_size
        return torch.zeros(count, side, side, 3, dtype=torch.uint8)


class _OneRank(ProcessGroup):
    """Process group of one fake rank: gathers zeros for the other ranks' vectors."""

    def gather(self, vectors: Tensor, total: int) -> Tensor:
        """[total, ...]."""
        others = vectors.new_zeros(total - len(vectors), *vectors.shape[1:])
        return torch.cat([vectors, others]) if len(others) else vectors


def measure_training(
    fake_run: FakeRetrievalRun, queries: ItemCounts, passages: ItemCounts
) -> dict[str, int]:
    """Bytes by part at the peak of a training step."""
    params = fake_run.params
    ranks = params.nproc_per_node * params.nnodes
    total = params.batch * ranks
    queries_input, passages_input = (
        fake_run.inputs(params.batch, side) for side in (queries, passages)
    )
    with fake_run.tracker.part(INPUTS):
        batch = PairBatch(queries_input, passages_input, torch.eye(total, dtype=torch.bool))
    objective = _tracked_loss(fake_run.tracker, OBJECTIVES[params.loss])
    fake_run.model.one_pass = fake_run.options.target == "cuda"
    replica = master_weights.make_replica(fake_run.model, params, fake_run.options.precision)
    encode: Callable[..., Any] = fake_run.model
    if replica is not None:
        encode = master_weights.without_autocast(replica.model, "cpu")
    forward = tasks.make_forward(encode, objective, _OneRank(size=ranks))
    with _few_chunks():
        return fake_training_step.measure_training_step(
            fake_run.tracker,
            fake_run.model,
            fake_run.options,
            lambda: forward(batch).loss,
            batch,
            replica,
        ).parts


def _tracked_loss(tracker: AllocationTracker, objective: Objective) -> Objective:
    def tracked_objective(*arguments: Tensor) -> Any:
        with tracker.part(LOGITS):
            return objective(*arguments)

    return tracked_objective


@contextmanager
def _few_chunks() -> Iterator[None]:
    """Context of GradCache that simulates the first chunks, without the random state, which fake
    generators lack."""
    with mock.patch.object(encoder, "checkpoint", _ChunkCheckpoint()):
        yield


class _ChunkCheckpoint:
    """Stands for `checkpoint` in GradCache: of a split, the first chunks run, and the vectors of
    the others are zeros.

    Each chunk needs the same memory, and from the second one on gradients exist. A pass over all of
    them takes time by the chunk: 110 s of CPU time for 512 pairs in chunks of 16.
    """

    def __init__(self) -> None:
        self._rows = 0
        """Identity of the tensor that is split."""
        self._chunks = 0
        self._shape = torch.Size()
        self._dtype = torch.float32

    def __call__(self, function: Callable[..., Tensor], *args: Any, **settings: Any) -> Tensor:
        """Vectors of a chunk: `args` is its rows and their side, or its size and tensors."""
        first = next(arg for arg in args if isinstance(arg, Tensor))
        rows = id(first if first._base is None else first._base)
        self._chunks = self._chunks + 1 if rows == self._rows else 1
        self._rows = rows
        if self._chunks > SIMULATED_CHUNKS:
            size = len(first) if args[0] is first else args[0]
            return first.new_zeros(size, *self._shape, dtype=self._dtype)
        vectors: Tensor = checkpoint(function, *args, preserve_rng_state=False, **settings)
        self._shape, self._dtype = vectors.shape[1:], vectors.dtype
        return vectors
