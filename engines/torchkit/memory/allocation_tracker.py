"""Allocation tracker of a fake run: bytes of all live tensors by part, and their peaks.

A fake run executes the real modules on fake tensors (shapes and types, no numbers); the tracker
counts every storage from its creation to its release, under the part of the step that made it.

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

from engines.torchkit.training.optimization import adamw

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
    """Weak reference to the storage, whose release closes the entry."""


@dataclass(frozen=True)
class Peak:
    """Peak of the bytes that lived at once, and their parts."""

    total: int = 0
    parts: dict[str, int] = field(default_factory=dict)


class AllocationTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Tracks the storages of all tensors made or used while it is active.

    `rounding`: bytes to which the device's allocator rounds a block up.
    """

    def __init__(self, rounding: int = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.peak = Peak()
        self.peaks: dict[str, Peak] = {}
        """Peak at the allocations of each part, or of each part in a named stage (`part, stage`).
        """
        self.stage = ""
        """Name of what runs now; a stage has peaks of its own."""
        self.total = 0
        self.parts: Counter[str] = Counter()
        self._entries: dict[int, _Entry] = {}
        self._rounding = rounding
        self._part = ACTIVATIONS

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operation and track its outputs."""
        outputs = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor):
                self._track(leaf)
        return outputs

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Context whose new storages belong to this part."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    def assign(self, tensors: Iterable[Tensor], part: str) -> None:
        """Assign tensors to a part; untracked ones are tracked there."""
        for tensor in tensors:
            entry = self._entries.get(tensor.untyped_storage()._cdata)
            if entry is None:
                with self.part(part):
                    self._track(tensor)
            else:
                self.parts[entry.part] -= entry.size
                self.parts[part] += entry.size
                entry.part = part

    def reset_peak(self) -> None:
        """Reset the peaks to the live bytes, and the stage to none."""
        self.stage = ""
        self.peak = Peak(self.total, dict(+self.parts))
        self.peaks = {"": self.peak}

    def _track(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._entries or not size:
            return
        size = -(-size // self._rounding) * self._rounding
        watch = weakref.ref(storage, lambda _: self._close(key))
        self._entries[key] = _Entry(size, self._part, watch)
        self.parts[self._part] += size
        self.total += size
        moment = f"{self._part}, {self.stage}" if self.stage else self._part
        previous = self.peaks.get(moment)
        if previous is None or self.total > previous.total:
            self.peaks[moment] = peak = Peak(self.total, dict(+self.parts))
            if self.total > self.peak.total:
                self.peak = peak

    def _close(self, key: int) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.total -= entry.size
            self.parts[entry.part] -= entry.size


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Context of fake tensors, which have shapes and types and no numbers.

    On a fake CPU, whatever the target device: autocast has rules for it, and none for meta.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def track_model(tracker: AllocationTracker, model: nn.Module, part_of: Any) -> None:
    """Track parameters and buffers under `part_of(name)`, and gradients when they are made."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        tracker.assign([tensor], part_of(name))
    track_gradients(tracker, model.parameters())


def track_gradients(tracker: AllocationTracker, parameters: Iterable[nn.Parameter]) -> None:
    """Track the gradients of these parameters when they are made."""
    for parameter in parameters:
        if parameter.requires_grad:
            hook: Any = parameter.register_post_accumulate_grad_hook
            hook(lambda p: tracker.assign([p.grad], GRADIENTS) if p.grad is not None else None)


def make_optimizer_with_state(
    tracker: AllocationTracker, model: nn.Module
) -> torch.optim.Optimizer:
    """AdamW as it is after its first step: both moments of every trained parameter exist."""
    optimizer = adamw(model, 1e-4, 0.0, (0.9, 0.999), fused=True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            state = optimizer.state[parameter]
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
            tracker.assign(state.values(), OPTIMIZER)
    return optimizer


def add_accumulated_gradients(tracker: AllocationTracker, model: nn.Module) -> None:
    """Give the parameters gradients, as after an earlier micro-batch of accumulation."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
            tracker.assign([parameter.grad], GRADIENTS)


def add_weight_averages(tracker: AllocationTracker, model: nn.Module, copies: int) -> list[Tensor]:
    """Copies of the trained parameters, one each for EMA and SWA; to be kept by the caller."""
    trained = [p for p in model.parameters() if p.requires_grad] * copies
    shadows = [torch.zeros_like(parameter) for parameter in trained]
    tracker.assign(shadows, "EMA and SWA")
    return shadows
