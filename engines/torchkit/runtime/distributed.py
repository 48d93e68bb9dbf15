"""Data parallel training: the process group of a run, its collectives, and DDP.

All collectives of the project are here; in a `ProcessGroup` of size 1 they do nothing, so engines
and the loop need no case for one process. Every rank has the same global batch order and takes its
share of each micro-batch. Vectors are gathered before the loss, so N ranks with batch B compute
what one process with batch N x B computes.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Final, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves

from engines.emitter import Emitter, EngineError
from engines.torchkit.data.data_loader import rank_share

MAX_CPU_RANKS: Final = 8
"""Limit of ranks without a GPU, which are meant for trials and tests."""

TIMEOUT: Final = timedelta(minutes=30)
"""Longest wait of one collective; writing a checkpoint on rank 0 must fit into it."""

POLL_SECONDS: Final = 0.05

_PREPARED: Final = "prepared"


class ProcessGroup:
    """Process group of a run, seen from one rank. Without arguments: a single process."""

    def __init__(
        self, rank: int = 0, size: int = 1, store: Store | None = None, local_size: int = 0
    ) -> None:
        """`local_size`: ranks on this machine; 0: all."""
        self.rank = rank
        self.size = size
        self.local_size = local_size or size
        self._store = store
        self._reduces: list[AsyncAnyReduce] = []
        self._wrapped: DistributedDataParallel | None = None

    @property
    def local_rank(self) -> int:
        """Number of the rank among those on this machine, and of its GPU."""
        return self.rank % self.local_size

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is rank 0, which reports, writes and evaluates."""
        return self.rank == 0

    @contextmanager
    def rank_zero_first(self, emit: Emitter) -> Iterator[None]:
        """Run the block on rank 0 first, which fills the caches; the other ranks read them.

        Raises:
            Stopped: asked to stop while waiting.
        """
        if self._store is not None and not self.is_rank_zero:
            while not self._store.check([_PREPARED]):
                emit.check_stop()
                time.sleep(POLL_SECONDS)
        yield
        self.release_other_ranks()

    def release_other_ranks(self) -> None:
        """Release the ranks that wait in `rank_zero_first`: the caches are filled."""
        if self._store is not None and self.is_rank_zero:
            self._store.set(_PREPARED, "1")

    def wrap(
        self, model: nn.Module, example: Callable[[], Any] | None = None
    ) -> Callable[..., Any]:
        """The model as it is called in training: its backward pass averages gradients over ranks.

        Parameters keep their names in `model` itself. `example` calls the model on some records;
        None: batches use different parameters, since a rank's share may lack a modality. Then, or
        where the example leaves some without gradient (blocks above the chosen layers), unused ones
        are looked for in every step: a walk through the graph, and one more all-reduce. Otherwise
        they are not, and torch raises in the next step if one had no gradient after all.
        """
        if self.size == 1:
            return model
        self._wrapped = None  # of the stage before, whose hooks end with it
        unused = example is None or bool(parameters_without_gradient(model, example))
        with warnings.catch_warnings():  # torch 2.15 has a new name for what older ones call this
            warnings.simplefilter("ignore", FutureWarning)
            self._wrapped = DistributedDataParallel(
                model,
                broadcast_buffers=False,
                find_unused_parameters=unused,
                gradient_as_bucket_view=True,
            )
        return self._wrapped

    def gradient_averaging(self, last: bool) -> AbstractContextManager[None]:
        """Context of a micro-batch: gradients are averaged over ranks after the `last` only.

        Before, they are accumulated on each rank (DDP's `no_sync`), so that a step exchanges them
        once and not once a micro-batch. The order of the sums differs from one exchange each, by
        less than k * 2**-24 of the sum of magnitudes for k micro-batches, in float32.
        """
        if last or self._wrapped is None:
            return nullcontext()
        return cast("AbstractContextManager[None]", self._wrapped.no_sync())

    def gather(self, vectors: Tensor, total: int) -> Tensor:
        """The vectors of all ranks in the order of the global micro-batch: [total, ...].

        Gradients flow to the rank that a row came from. `vectors` holds this rank's `rank_share` of
        `total` rows (or a stand-in row that is cut off here, where the share is empty); other
        dimensions are equal on all ranks.
        """
        if self.size == 1:
            return vectors
        first, last = rank_share(total, self.rank, self.size)
        most = -(-total // self.size)
        local = vectors[: last - first]
        padded = torch.cat([local, local.new_zeros(most - len(local), *local.shape[1:])])
        everything: Tensor = _Gather.apply(padded, self.rank, self.size)
        if total == most * self.size:
            return everything
        counts = [
            b - a for a, b in (rank_share(total, rank, self.size) for rank in range(self.size))
        ]
        parts = [everything[r * most : r * most + count] for r, count in enumerate(counts)]
        return torch.cat(parts)

    def any_reduce(self) -> AsyncAnyReduce:
        """A new `AsyncAnyReduce`, to be called at every step."""
        self._reduces.append(AsyncAnyReduce(self.size))
        return self._reduces[-1]

    def broadcast_decision(self, decision: bool) -> bool:
        """Broadcast rank 0's decision to all ranks; blocks until rank 0 has decided."""
        if self.size == 1:
            return decision
        message = torch.tensor([int(decision)], dtype=torch.int32)
        dist.broadcast(message, src=0)
        return bool(message.item())

    def gather_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All-gather named tensors of equal shape: rank 0's as `name`, the others' as `name.rank`.

        For small ones (states of generators), since they go through the CPU.
        """
        tensors = dict(state)
        if self.size > 1:
            for name, tensor in state.items():
                parts = [torch.empty_like(tensor, device="cpu") for _ in range(self.size)]
                dist.all_gather(parts, tensor.cpu())
                tensors |= {rank_key(name, rank): part for rank, part in enumerate(parts)}
        return tensors

    def local_state(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This rank's tensors of a `gather_state`; rank 0's where it has none."""
        names = [name for name in tensors if "." not in name]
        return {name: tensors.get(rank_key(name, self.rank), tensors[name]) for name in names}

    def wait(self) -> None:
        """Wait until all ranks have come here."""
        if self.size > 1:
            dist.barrier()

    def destroy(self) -> None:
        """Wait for all ranks and destroy the process group."""
        if self.size > 1:
            for vote in self._reduces:
                vote.result()
            dist.barrier()
            dist.destroy_process_group()


def parameters_without_gradient(model: nn.Module, example: Callable[[], Any]) -> list[str]:
    """Names of the trained parameters that the graph of `example()` does not reach.

    Walks the graph and computes no gradient. Generators and running statistics stay as they are.
    """
    training = model.training
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    model.eval()
    try:
        with torch.random.fork_rng(devices):
            outputs = example()
    finally:
        model.train(training)
    nodes = [x.grad_fn for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.grad_fn]
    reached, passed = set(), set(nodes)
    while nodes:
        node = nodes.pop()
        reached.add(id(getattr(node, "variable", None)))  # AccumulateGrad has the parameter
        fresh = {following for following, _ in node.next_functions if following} - passed
        passed |= fresh
        nodes += fresh
    return [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in reached]


class AsyncAnyReduce:
    """Asynchronous any-reduce of a flag: the result is one call late among several ranks.

    All ranks get the same result at the same step, so none waits for one that stopped. The
    all-reduce overlaps with the next step; waiting at once would cost a round trip a step.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._work: dist.Work | None = None

    def __call__(self, flag: bool) -> bool:
        """Submit this rank's flag; returns whether any rank set it (at the previous call)."""
        if self._size == 1:
            return flag
        answer = self.result()
        self._flag = torch.tensor([int(flag)], dtype=torch.int32)
        self._work = dist.all_reduce(self._flag, dist.ReduceOp.MAX, async_op=True)
        return answer

    def result(self) -> bool:
        """Result of the last call; waits for the slowest rank."""
        if self._work is None:
            return False
        self._work.wait()
        self._work = None
        return bool(self._flag.item())


def rank_key(name: str, rank: int) -> str:
    """Key of a rank's tensor in a `gather_state`."""
    return f"{name}.{rank}" if rank else name


class _Gather(torch.autograd.Function):
    """Differentiable all-gather of tensors of equal shape, concatenated by rank.

    Every rank computes the same loss from the same rows, so the backward pass needs no exchange: it
    slices the rank's rows, times the number of ranks, because DDP averages over them.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, rank: int, size: int) -> Tensor:
        ctx.place = (rank, size, len(local))
        parts = [torch.empty_like(local) for _ in range(size)]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        rank, size, rows = ctx.place
        return grads[0][rank * rows : (rank + 1) * rows] * size, None, None


def join_process_group() -> ProcessGroup:
    """Join the process group of torchrun's environment variables; size 1 without ranks."""
    if "WORKBENCH_RANKS" not in os.environ:
        return ProcessGroup()
    names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    rank, size, local_size = (int(os.environ[name]) for name in names)
    # The store listens on one interface, of one machine the loopback; so shall the backends.
    if interface := os.environ["WORKBENCH_INTERFACE"]:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    port = int(os.environ["MASTER_PORT"])
    store = TCPStore(os.environ["MASTER_ADDR"], port, is_master=False, timeout=TIMEOUT)
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(rank % local_size)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend,
        store=PrefixStore("group", store),
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    return ProcessGroup(rank, size, store, local_size)


def check_ranks(size: int, devices: Sequence[int | str]) -> None:
    """Check that there is a GPU for each of a machine's ranks (or, on the CPU, that they are few).

    Raises:
        EngineError: fewer GPUs are visible than ranks asked for, or too many ranks on the CPU.
    """
    visible = torch.cuda.device_count()
    if visible == 0 and not devices:
        if size > MAX_CPU_RANKS:
            raise EngineError(
                f"nproc_per_node = {size}: without a GPU at most {MAX_CPU_RANKS} processes train"
            )
    elif size > visible:
        raise EngineError(
            f"nproc_per_node = {size}: torch sees {visible} GPU{'' if visible == 1 else 's'}, and "
            "every process needs one; lower it, or name more `devices`"
        )
