"""Several processes that train one model: who is who, what they tell each other, and gathering.

All collectives of the project are here, so that an engine and the loop stay as they are for one
process: a `Team` of one does nothing. Every rank sees the same global batch order and takes its
share of each micro-batch; vectors are gathered before the loss, so N ranks with batch B compute
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
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore, Work
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves

from engines.emitter import Emitter, EngineError
from engines.torchkit.data.data_loader import share

MAX_CPU_RANKS: Final = 8
"""Ranks without a GPU are for trying things out and for tests."""

TIMEOUT: Final = timedelta(minutes=30)
"""Longest wait of one collective; a checkpoint of the leader must fit into it."""

POLL_SECONDS: Final = 0.05

_PREPARED: Final = "prepared"


class Team:
    """The ranks of one run, seen from one of them. Without arguments: a process on its own."""

    def __init__(self, rank: int = 0, size: int = 1, store: Store | None = None) -> None:
        self.rank = rank
        self.size = size
        self._store = store
        self._votes: list[Vote] = []
        self._wrapped: DistributedDataParallel | None = None

    @property
    def leads(self) -> bool:
        """Rank 0: it speaks, writes and evaluates."""
        return self.rank == 0

    @contextmanager
    def leader_first(self, emit: Emitter) -> Iterator[None]:
        """The leader goes through the block first: it fills the caches, the others read them.

        Raises:
            Stopped: asked to stop while waiting.
        """
        if self._store is not None and not self.leads:
            while not self._store.check([_PREPARED]):
                emit.check_stop()
                time.sleep(POLL_SECONDS)
        yield
        self.pass_on()

    def pass_on(self) -> None:
        """The leader lets the others go: what they would have to compute lies in the caches."""
        if self._store is not None and self.leads:
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
        unused = example is None or bool(unreached(model, example))
        with warnings.catch_warnings():  # torch 2.15 has a new name for what older ones call this
            warnings.simplefilter("ignore", FutureWarning)
            self._wrapped = DistributedDataParallel(
                model,
                broadcast_buffers=False,
                find_unused_parameters=unused,
                gradient_as_bucket_view=True,
            )
        return self._wrapped

    def averaging(self, last: bool) -> AbstractContextManager[None]:
        """A micro-batch's forward and backward pass: gradients are averaged after the `last` only.

        Before it they are added up on each rank, so a step exchanges them once and not once a
        micro-batch. Sums are taken in another order than one exchange each would: by less than
        k * 2**-24 of the sum of magnitudes for k micro-batches, in float32.
        """
        if last or self._wrapped is None:
            return nullcontext()
        return cast("AbstractContextManager[None]", self._wrapped.no_sync())

    def gather(self, vectors: Tensor, total: int) -> Tensor:
        """The vectors of all ranks in the order of the global micro-batch: [total, ...].

        Gradients flow to the rank that a row came from. `vectors` holds this rank's `share` of
        `total` rows (or a stand-in row that is cut off here, where the share is empty); other
        dimensions are equal on all ranks.
        """
        if self.size == 1:
            return vectors
        first, last = share(total, self.rank, self.size)
        most = -(-total // self.size)
        own = vectors[: last - first]
        padded = torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])])
        everything: Tensor = _Gather.apply(padded, self.rank, self.size)
        if total == most * self.size:
            return everything
        counts = [b - a for a, b in (share(total, rank, self.size) for rank in range(self.size))]
        parts = [everything[r * most : r * most + count] for r, count in enumerate(counts)]
        return torch.cat(parts)

    def vote(self) -> Vote:
        """A question that is asked at every step."""
        self._votes.append(Vote(self.size))
        return self._votes[-1]

    def follow(self, wish: bool) -> bool:
        """What the leader wishes, on all ranks; the others wait until it has made up its mind."""
        if self.size == 1:
            return wish
        said = torch.tensor([int(wish)], dtype=torch.int32)
        dist.broadcast(said, src=0)
        return bool(said.item())

    def collect(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of all ranks, equal in shape: the leader's under their name, others' `name.rank`.

        Small ones (states of generators): they travel through the CPU.
        """
        found = dict(state)
        if self.size > 1:
            for name, tensor in state.items():
                parts = [torch.empty_like(tensor, device="cpu") for _ in range(self.size)]
                dist.all_gather(parts, tensor.cpu())
                found |= {own_name(name, rank): part for rank, part in enumerate(parts)}
        return found

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This rank's part of what `collect` has made; the leader's where there is none."""
        names = [name for name in tensors if "." not in name]
        return {name: tensors.get(own_name(name, self.rank), tensors[name]) for name in names}

    def leave(self) -> None:
        """End the common work; afterwards every rank is on its own."""
        if self.size > 1:
            for vote in self._votes:
                vote.answer()
            dist.barrier()
            dist.destroy_process_group()


def unreached(model: nn.Module, example: Callable[[], Any]) -> list[str]:
    """Names of the trained parameters that no gradient comes to from what `example` returns.

    Looks at the graph and computes no gradient. Generators and running statistics stay as they are.
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


class Vote:
    """Whether any rank wishes something, one call late among several ranks.

    All ranks get the same answer at the same step, so none is left waiting for one that stopped.
    The exchange runs beside the next step; waiting at once would cost a round trip a step.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._wish = torch.zeros(1, dtype=torch.int32)
        self._asked: Work | None = None

    def __call__(self, wish: bool) -> bool:
        """Say what this rank wishes; whether any did, at the last call among several ranks."""
        if self._size == 1:
            return wish
        answer = self.answer()
        self._wish = torch.tensor([int(wish)], dtype=torch.int32)
        self._asked = dist.all_reduce(self._wish, dist.ReduceOp.MAX, async_op=True)
        return answer

    def answer(self) -> bool:
        """What came of the last call; waits for the slowest rank."""
        if self._asked is None:
            return False
        self._asked.wait()
        self._asked = None
        return bool(self._wish.item())


def own_name(name: str, rank: int) -> str:
    """Name of a rank's tensor among those of all ranks."""
    return f"{name}.{rank}" if rank else name


class _Gather(torch.autograd.Function):
    """Equal shapes of all ranks, one after the other.

    Every rank computes the same loss from the same gathered rows, so the gradient of a rank's rows
    is known to it without asking; times the ranks, because averaging over ranks follows.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, rank: int, size: int) -> Tensor:
        ctx.place = (rank, size, len(own))
        parts = [torch.empty_like(own) for _ in range(size)]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        rank, size, rows = ctx.place
        return grads[0][rank * rows : (rank + 1) * rows] * size, None, None


def join() -> Team:
    """The team that the environment of this process says (torchrun's variables), or one alone."""
    if "WORKBENCH_RANKS" not in os.environ:
        return Team()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # The agent listens on the loopback only; so shall whatever the backends open.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    port = int(os.environ["MASTER_PORT"])
    store = TCPStore(os.environ["MASTER_ADDR"], port, is_master=False, timeout=TIMEOUT)
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend,
        store=PrefixStore("group", store),
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    return Team(rank, size, store)


def check_ranks(size: int, devices: Sequence[int]) -> None:
    """Refuse more ranks than there are places for them.

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
