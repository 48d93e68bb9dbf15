"""The operations of a counted step one by one: products with their sizes, and bytes of the others.

`step_count` runs the engine's own step on fake tensors; here each operation is kept instead of
added up. What an operation would take on a GPU is the business of `estimate`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import step_count
from benchmarks.step_count import Case, Meter, is_kernel, launches_of, tensors

PRODUCTS = {"aten.mm": (0, 1), "aten.addmm": (1, 2), "aten.bmm": (0, 1), "aten.baddbmm": (1, 2)}
"""Places of both factors among the arguments."""
BARRIERS = (
    "aten.embedding",
    "aten.index",
    "aten.topk",
    "aten.sort",
    "aten._fused",
    "aten._foreach",
)
"""Operations that a compiler does not fuse with their neighbours."""

OVERWRITES = (
    "aten.copy_", "aten.zero_", "aten.fill_", "aten._foreach_copy_", "aten._foreach_zero_",
)  # fmt: skip
"""Operations that write their first argument without reading it."""
OPTIMIZERS = ("aten._fused_adam_", "aten._fused_adamw_")
"""Operations that read gradients, their second argument, and write them only to unscale them."""

GATHERS = ("aten.embedding", "aten.index", "aten.index_select", "aten.gather")
"""Operations that read rows of a table."""
REDUCTIONS = (
    "aten.sum", "aten.native_layer_norm", "aten.native_layer_norm_backward", "aten.mean",
    "aten._softmax", "aten._log_softmax", "aten.linalg_vector_norm",
)  # fmt: skip
"""Fusible operations that need a launch of their own beside the others of a group."""


@dataclass(frozen=True)
class Product:
    """A matrix product [M, K] x [K, N], `batch` of them."""

    m: int
    n: int
    k: int
    batch: int = 1
    half: bool = True
    """Of 16-bit numbers."""

    @property
    def flops(self) -> int:
        """Operations."""
        return 2 * self.m * self.n * self.k * self.batch


@dataclass(frozen=True)
class Operation:
    """One operation of a step. `reads`, `writes`: numbers of storages, with their bytes."""

    name: str
    part: str
    launches: int
    reads: dict[int, int]
    writes: dict[int, int]
    products: tuple[Product, ...] = ()
    attention_flops: int = 0

    @property
    def bytes(self) -> int:
        """Read and written once each."""
        return sum(self.reads.values()) + sum(self.writes.values())

    @property
    def fusible(self) -> bool:
        """Whether a compiler merges it with its neighbours."""
        return not (self.products or self.attention_flops or self.name.startswith(BARRIERS))


class Recorder(Meter):
    """Keeps the operations of the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._alive: list[Any] = []
        """Storages: while they live, no two have one address."""
        self._numbers: dict[int, int] = {}

    def open(self) -> None:
        """Only the last window is kept."""
        super().open()
        self.operations = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count the operation, and keep it."""
        result = super().__torch_dispatch__(func, types, args, kwargs)
        name = str(func).rpartition(".")[0]
        inputs, outputs = tensors((args, kwargs or {})), tensors(result)
        if self.part in self.parts and is_kernel(func, name, inputs, outputs):
            inputs = tensors((args[1:] if name in OVERWRITES else args, kwargs or {}))
            self._keep(func, name, args, inputs, outputs)
        return result

    def _keep(
        self, func: Any, name: str, args: tuple[Any, ...], inputs: list[Tensor],
        outputs: list[Tensor],
    ) -> None:  # fmt: skip
        spared = {id(t) for t in tensors(args[1])} if name in OPTIMIZERS else set()
        written = [t for t in (*outputs, *_mutated(func, args)) if id(t) not in spared]
        reads, writes = self._sizes(inputs), self._sizes(written)
        if name in GATHERS:  # not the whole table
            reads = {number: min(size, sum(writes.values())) for number, size in reads.items()}
        self.operations.append(
            Operation(
                name, self.part, launches_of(name, args), reads, writes,
                tuple(products(name, args, outputs)), attention_flops(name, args),
            )
        )  # fmt: skip

    def _sizes(self, of: Iterable[Tensor]) -> dict[int, int]:
        sizes: dict[int, int] = {}
        for tensor in of:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._numbers:
                self._numbers[storage._cdata] = len(self._numbers)
                self._alive.append(storage)
            number = self._numbers[storage._cdata]
            size = tensor.numel() * tensor.element_size()
            sizes[number] = max(sizes.get(number, 0), min(size, storage.nbytes()))
        return sizes


def _mutated(func: Any, args: tuple[Any, ...]) -> list[Tensor]:
    """Arguments that the operation writes."""
    pairs = zip(func._schema.arguments, args, strict=False)
    return [
        t for a, value in pairs if a.alias_info and a.alias_info.is_write for t in tensors(value)
    ]


def record(case: Case) -> list[Operation]:
    """Operations of a step that is not the first."""
    recorder = Recorder()
    step_count.whole_step(case, recorder)
    return recorder.operations


def products(name: str, args: tuple[Any, ...], outputs: list[Tensor]) -> Iterable[Product]:
    """The matrix products that an operation is."""
    if name in PRODUCTS:
        first, second = (args[position] for position in PRODUCTS[name])
        batch = first.shape[0] if first.ndim == 3 else 1
        yield Product(first.shape[-2], second.shape[-1], first.shape[-1], batch, _half(first))
    elif name == "aten.convolution":
        yield _convolution(args[0], args[1], outputs[0])
    elif name == "aten.convolution_backward":
        forward = _convolution(args[1], args[2], args[0])
        wants_input, wants_weight = args[-1][:2]
        m, n, k = forward.m, forward.n, forward.k
        if wants_input:
            yield Product(m, k, n, 1, forward.half)
        if wants_weight:
            yield Product(n, k, m, 1, forward.half)


def _convolution(inputs: Tensor, weight: Tensor, output: Tensor) -> Product:
    places = output.numel() // output.shape[1]
    return Product(places, weight.shape[0], math.prod(weight.shape[1:]), 1, _half(inputs))


def _half(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.bfloat16, torch.float16)


def attention_flops(name: str, args: tuple[Any, ...]) -> int:
    """Of torch's fused attention: two products forward, five backward."""
    if not name.startswith("aten._scaled_dot_product"):
        return 0
    backward = "backward" in name
    query, key = args[1 if backward else 0], args[2 if backward else 1]
    batch, heads, length, width = query.shape
    return (5 if backward else 2) * 2 * batch * heads * length * key.shape[2] * width


def fused(operations: list[Operation]) -> list[Operation]:
    """What a compiler makes of a step's operations: fewer launches, and less to read and write.

    Fusible operations that hand values to each other become one, with a launch more for each
    reduction; what only its own members read is never in memory. No group spans a product.
    """
    levels = _levels(operations)
    lasting = _lasting(operations, levels)
    groups = _Groups(len(operations))
    makers: dict[int, int] = {}
    for index, op in enumerate(operations):
        if op.fusible:
            for number in op.reads.keys() & makers.keys():
                groups.join(index, makers[number])
            makers |= dict.fromkeys(op.writes.keys() - lasting, index)
    members: dict[int, list[Operation]] = {}
    for index, op in enumerate(operations):
        members.setdefault(groups.root(index), []).append(op)
    return [_merged(group, lasting) for group in members.values()]


class _Groups:
    """Disjoint sets of numbers."""

    def __init__(self, size: int) -> None:
        self._above = list(range(size))

    def root(self, index: int) -> int:
        """The number that stands for its set."""
        while self._above[index] != index:
            self._above[index] = index = self._above[self._above[index]]
        return index

    def join(self, first: int, second: int) -> None:
        """Make one set of two."""
        self._above[self.root(first)] = self.root(second)


def _levels(operations: list[Operation]) -> list[int]:
    """Of each operation: the longest chain of products and the like on the way to it."""
    of_value: dict[int, int] = {}
    levels = []
    for op in operations:
        level = max((of_value.get(number, 0) for number in op.reads), default=0)
        levels.append(level)
        of_value |= dict.fromkeys(op.writes, level + (not op.fusible))
    return levels


def _lasting(operations: list[Operation], levels: list[int]) -> set[int]:
    """Values that must be in memory: read by something that cannot be one with their maker."""
    makers: dict[int, tuple[str, int]] = {}
    lasting, read = set(), set()
    for op, level in zip(operations, levels, strict=True):
        for number in op.reads:
            read.add(number)
            if not op.fusible or makers.get(number, (op.part, level)) != (op.part, level):
                lasting.add(number)
        makers |= dict.fromkeys(op.writes, (op.part, level) if op.fusible else ("", level))
    return lasting | (makers.keys() - read)


def _merged(group: list[Operation], lasting: set[int]) -> Operation:
    """One operation for several; what a member writes is not read from memory."""
    if not group[0].fusible:
        return group[0]
    written = {number for op in group for number in op.writes}
    reads, writes = {}, {}
    for op in group:
        reads |= {n: size for n, size in op.reads.items() if n not in written}
        writes |= {n: size for n, size in op.writes.items() if n in lasting}
    launches = max(1, sum(op.name in REDUCTIONS for op in group))
    return Operation(f"{len(group)} fused", group[0].part, launches, reads, writes)
