"""The memory ledger: what a step would allocate, counted tensor by tensor, without any weights.

A rehearsal runs the real modules on fake tensors (shapes and types, no numbers) and books every
storage when it is born and when it dies, under the part of the step that made it. Apart from
`forecast`, which is about time, and from `stand_ins`, which replaces what cannot be faked.

torch's own MemTracker does this for models that train whole; it refuses frozen parameters (2.15),
and QLoRA is frozen parameters above all.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engines.torchkit.training.optimizers import adamw

CUDA_ROUNDING: Final = 512
"""torch's caching allocator hands out blocks in multiples of this (CUDACachingAllocator.cpp)."""

ACTIVATIONS: Final = "activations"
BACKWARD: Final = "backward temporaries"
GRADIENTS: Final = "gradients"
OPTIMIZER: Final = "optimizer"


@dataclass
class _Entry:
    size: int
    part: str
    watch: Any
    """Weak reference to the storage: its death closes the entry."""


@dataclass(frozen=True)
class Peak:
    """The most bytes that lived at once, and whose they were."""

    total: int = 0
    parts: dict[str, int] = field(default_factory=dict)


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Books the storages of all tensors made or used while it is active.

    `rounding`: bytes to which the device's allocator rounds a block up.
    """

    def __init__(self, rounding: int = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.peak = Peak()
        self.peaks: dict[str, Peak] = {}
        """By the part that was at work: the most that lived when it made something."""
        self.total = 0
        self.parts: Counter[str] = Counter()
        self._entries: dict[int, _Entry] = {}
        self._rounding = rounding
        self._part = ACTIVATIONS

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operation and book what it made."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._book(leaf)
        return made

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is born in this context belongs to this part."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    def move(self, tensors: Iterable[Tensor], part: str) -> None:
        """These tensors belong to another part from now on; unknown ones are booked there."""
        for tensor in tensors:
            entry = self._entries.get(tensor.untyped_storage()._cdata)
            if entry is None:
                with self.part(part):
                    self._book(tensor)
            else:
                self.parts[entry.part] -= entry.size
                self.parts[part] += entry.size
                entry.part = part

    def forget_peak(self) -> None:
        """The peak starts anew from what lives now."""
        self.peak = Peak(self.total, dict(+self.parts))
        self.peaks = {"": self.peak}

    def _book(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._entries or not size:
            return
        size = -(-size // self._rounding) * self._rounding
        watch = weakref.ref(storage, lambda _: self._close(key))
        self._entries[key] = _Entry(size, self._part, watch)
        self.parts[self._part] += size
        self.total += size
        known = self.peaks.get(self._part)
        if known is None or self.total > known.total:
            self.peaks[self._part] = now = Peak(self.total, dict(+self.parts))
            if self.total > self.peak.total:
                self.peak = now

    def _close(self, key: int) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.total -= entry.size
            self.parts[entry.part] -= entry.size


@contextmanager
def faked() -> Iterator[None]:
    """Tensors made in this context have shapes and types, and no numbers.

    On a fake CPU, whatever the device that is meant: autocast has rules for it, and none for meta.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def book_model(ledger: Ledger, model: nn.Module, part_of: Any) -> None:
    """Book parameters and buffers under `part_of(name)`, and their gradients when they come."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        ledger.move([tensor], part_of(name))
    book_gradients(ledger, model.parameters())


def book_gradients(ledger: Ledger, parameters: Iterable[nn.Parameter]) -> None:
    """Book the gradients of these parameters when they come."""
    for parameter in parameters:
        if parameter.requires_grad:
            hook: Any = parameter.register_post_accumulate_grad_hook
            hook(lambda p: ledger.move([p.grad], GRADIENTS) if p.grad is not None else None)


def optimizer_with_state(ledger: Ledger, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW as it is after its first step: both moments of every trained parameter exist."""
    optimizer = adamw(model, 1e-4, 0.0, (0.9, 0.999), fused=True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            state = optimizer.state[parameter]
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
            ledger.move(state.values(), OPTIMIZER)
    return optimizer


def gradients(ledger: Ledger, model: nn.Module) -> None:
    """Gradients of an earlier micro-batch, as accumulation finds them."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
            ledger.move([parameter.grad], GRADIENTS)


def averages(ledger: Ledger, model: nn.Module, copies: int) -> list[Tensor]:
    """Shadows of the trained parameters: one copy for EMA, one for SWA."""
    trained = [p for p in model.parameters() if p.requires_grad] * copies
    made = [torch.zeros_like(parameter) for parameter in trained]
    ledger.move(made, "EMA and SWA")
    return made
