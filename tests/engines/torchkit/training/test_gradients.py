"""Ranks exchange gradients once a step, and look for missing ones only where there are any."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

from engines.emitter import Emitter
from engines.retrieval.data.pairs import NONE, ItemRows, TrainingPairs, has_uniform_modalities
from engines.torchkit.runtime import distributed
from engines.torchkit.runtime.distributed import ProcessGroup, parameters_without_gradient
from engines.torchkit.training import loop
from engines.torchkit.training.step_timing import HostStopwatch, StepTimer, TimingSummary
from tests.engines.torchkit.training.test_loop import job, points


class Blocks(nn.Module):
    """Three blocks of which the first two are read, as by chosen layers."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, blocks=2):
        for block in self.blocks[:blocks]:
            x = self.drop(block(x))
        return {"vectors": checkpoint(self.norm, x, use_reentrant=False)}


def test_parameters_that_no_gradient_reaches_are_named():
    model, x = Blocks(), torch.randn(5, 4)
    assert parameters_without_gradient(model, lambda: model(x)) == [
        "blocks.2.weight",
        "blocks.2.bias",
    ]
    assert parameters_without_gradient(model, lambda: model(x, blocks=3)) == []


def test_looking_for_them_changes_nothing():
    model, x = Blocks(), torch.randn(5, 4)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    parameters_without_gradient(model, lambda: model(x))
    assert torch.equal(torch.rand(3), expected)
    assert model.training
    assert int(model.norm.num_batches_tracked) == 0
    assert all(p.grad is None for p in model.parameters())


@pytest.fixture
def solo_group(tmp_path):
    """A process group of this process alone, over gloo."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(("blocks", "finds"), [(3, False), (2, True)])
def test_unused_parameters_are_looked_for_where_there_are_any(solo_group, blocks, finds):
    model, x = Blocks(), torch.randn(5, 4)
    wrapped = ProcessGroup(size=2).wrap(model, lambda: model(x, blocks=blocks))
    assert wrapped.find_unused_parameters is finds
    assert ProcessGroup(size=2).wrap(model).find_unused_parameters is True
    assert ProcessGroup().wrap(model) is model


@contextmanager
def counted(calls):
    """Counts the buckets that DDP exchanges."""

    def hook(_state, bucket):
        calls.append(bucket.buffer().numel())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    inner = distributed.DistributedDataParallel

    class Counted(inner):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.register_comm_hook(None, hook)

    distributed.DistributedDataParallel = Counted
    try:
        yield
    finally:
        distributed.DistributedDataParallel = inner


def test_a_step_of_several_micro_batches_exchanges_its_gradients_once(solo_group):
    """And sums them to what one rank without an exchange has; 7 batches of 50 make 3 steps."""
    exchanges = []
    alone, x = job(gradient_accumulation_steps=3), points()
    training = job(gradient_accumulation_steps=3)
    with counted(exchanges):
        process_group = ProcessGroup(size=2)
        wrapped = process_group.wrap(training.model, lambda: training.model(x[0][:2]))
    training.process_group.gradient_averaging = process_group.gradient_averaging

    def forward(batch):
        loss = nn.functional.mse_loss(wrapped(batch[0]), batch[1])
        return loop.LossOutput(loss, {}, len(batch[0]))

    training.forward = forward
    for each in (alone, training):
        torch.manual_seed(11)
        per_epoch = each.loader.order.steps_per_epoch
        loop.train(
            each, StepTimer(HostStopwatch(), 0, per_epoch), TimingSummary(per_epoch, 0), Emitter()
        )
    assert len(exchanges) == training.steps
    for first, second in zip(alone.model.parameters(), training.model.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-7)


def side(texts, images) -> ItemRows:
    return ItemRows(np.asarray(texts), np.asarray(images))


@pytest.mark.parametrize(("queries", "passages", "same"), [
    (side([0, 1], [0, 1]), side([2, 3], [2, 3]), True),
    (side([0, 1], [0, 1]), side([2, 3], [NONE, NONE]), True),
    (side([0, 1], [0, NONE]), side([2, 3], [2, 3]), False),
    (side([0, 1], [0, 1]), side([NONE, 3], [2, 3]), False),
])  # fmt: skip
def test_modalities_are_uniform_where_a_side_has_all_or_none(queries, passages, same):
    pool = TrainingPairs(queries, passages, np.arange(2), np.arange(3))
    assert has_uniform_modalities(pool) is same
