"""A training step of the retrieval engine on fake tensors, booked by part.

The engine's own modules and functions, as a run calls them. Apart from `fit`, which says what it is
computed for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
from engines.torchkit.memory import allocation_tracker as books
from engines.torchkit.memory import fake_training_step
from engines.torchkit.memory.allocation_tracker import AllocationTracker
from engines.torchkit.memory.fake_training_step import INPUTS, LOGITS, TrainingOptions
from engines.torchkit.runtime.distributed import ProcessGroup

TEXT: Final = "text tower"
VISION: Final = "vision tower"
OTHER: Final = "fusion and scale"


@dataclass(frozen=True)
class FakeRun:
    """What is rehearsed, and where it is booked."""

    tracker: AllocationTracker
    model: DualEncoder
    params: Params
    options: TrainingOptions
    tokens: int
    """Of the longest text."""

    def track_model(self) -> None:
        """Book the model by its towers."""
        towers = (TEXT, self.model.text_tower), (VISION, self.model.vision_tower)
        part_of = {id(p): name for name, tower in towers for p in tower.parameters()}
        part_of |= {
            id(b): name for name, tower in towers for m in tower.modules() for b in m.buffers()
        }
        tensors: dict[str, Tensor] = dict(self.model.named_parameters())
        tensors |= dict(self.model.named_buffers())
        names = {name: part_of.get(id(tensor), OTHER) for name, tensor in tensors.items()}
        books.track_model(self.tracker, self.model, names.__getitem__)

    def inputs(self, size: int, side: ItemCounts) -> ItemInputs:
        """So many items as they lie on the device; every one has what its side has."""
        texts, images = (size if there else 0 for there in (side.texts, side.images))
        with self.tracker.part(INPUTS):
            return ItemInputs(
                size, self.texts(texts), torch.arange(texts), self.images(images),
                torch.arange(images),
            )  # fmt: skip

    def texts(self, count: int) -> Tensor:
        """Token ids [n, T], or the features of a frozen tower [n, W]."""
        if self.model.pixels is None:
            return torch.zeros(count, frozen_towers.TEXT_WIDTH, dtype=torch.float16)
        return torch.zeros(count, self.tokens, dtype=torch.long)

    def images(self, count: int) -> Tensor:
        """Pictures uint8 [n, S, S, 3], or the features of a frozen tower [n, W]."""
        if self.model.pixels is None:
            return torch.zeros(count, frozen_towers.IMAGE_WIDTH, dtype=torch.float16)
        side = self.params.image_size
        return torch.zeros(count, side, side, 3, dtype=torch.uint8)


class _OneRank(ProcessGroup):
    """One of several ranks: the others' vectors are there, without their gradients."""

    def gather(self, vectors: Tensor, total: int) -> Tensor:
        """[total, ...]."""
        others = vectors.new_zeros(total - len(vectors), *vectors.shape[1:])
        return torch.cat([vectors, others]) if len(others) else vectors


def measure_training(
    fake_run: FakeRun, queries: ItemCounts, passages: ItemCounts
) -> dict[str, int]:
    """Parts at the peak of a training step."""
    params, total = fake_run.params, fake_run.params.batch * fake_run.params.nproc_per_node
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
    forward = tasks.make_forward(encode, objective, _OneRank(size=params.nproc_per_node))
    with _stateless_checkpoints():
        return fake_training_step.measure_training_step(
            fake_run.tracker,
            fake_run.model,
            fake_run.options,
            lambda: forward(batch).loss,
            batch,
            replica,
        ).parts


def _tracked_loss(tracker: AllocationTracker, objective: Objective) -> Objective:
    def booked(*arguments: Tensor) -> Any:
        with tracker.part(LOGITS):
            return objective(*arguments)

    return booked


@contextmanager
def _stateless_checkpoints() -> Iterator[None]:
    """GradCache without the state of random numbers, which fake generators do not have."""
    stateless = partial(checkpoint, preserve_rng_state=False)
    with mock.patch.object(encoder, "checkpoint", stateless):
        yield
