"""Asynchronous copies of batches to the device and of results back.

On a GPU a batch is copied on a stream of its own while the step before it is computed, and the
compute stream waits for that copy alone. Copies overlap only from pinned memory. On a CPU
nothing is copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, partial
from typing import Any, Final, Generic, Self, TypeVar, cast

import numpy.typing as npt
import torch
from torch import Tensor, cuda

from engines import param_sections
from engines.torchkit.data.data_loader import DEPTH, PendingBatch, make_ahead

Batch = TypeVar("Batch")
Key = TypeVar("Key")

AHEAD: Final = 1
"""Batches copied before they are needed. One is enough: a copy of 19 MB (64 pictures of
224 px, twice) takes 0.4 ms, and the step beside it 10 ms and more."""

IN_FLIGHT: Final = 4
"""Batches that were submitted and the GPU may not have begun. A batch's memory is free
only when the GPU is done with it, so a host that runs far ahead (CUDA graphs) is held back here."""


def map_tensors(batch: Batch, function: Callable[[Tensor], Any]) -> Batch:
    """The batch with the function applied to every tensor in it.

    A batch is a tensor, or a dataclass, mapping, tuple or list of batches; all else stays.
    """
    result: Any = batch
    if isinstance(batch, Tensor):
        result = function(batch)
    elif is_dataclass(batch) and not isinstance(batch, type):
        parts = {f.name: map_tensors(getattr(batch, f.name), function) for f in fields(batch)}
        result = replace(batch, **parts)
    elif isinstance(batch, Mapping):
        result = {name: map_tensors(part, function) for name, part in batch.items()}
    elif isinstance(batch, tuple | list):
        mapped = [map_tensors(part, function) for part in batch]
        named = hasattr(batch, "_fields")
        result = type(batch)(*mapped) if named else type(batch)(mapped)
    return cast("Batch", result)


def pin_memory(batch: Batch) -> Batch:
    """The batch copied into pinned memory."""
    return map_tensors(batch, Tensor.pin_memory)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device; asynchronous from pinned memory."""
    if device.type == "cpu":
        return batch
    return map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


@cache
def copy_stream(device: torch.device) -> Any:
    """The one stream of copies to a GPU: the allocator separates memory by stream."""
    return cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch


@cache
def _evaluation_pool(num_workers: int) -> ThreadPoolExecutor:
    """Thread pool of all evaluations of a process: a processor of transformers is copied for each
    thread that uses it, which takes longer than a block of questions."""
    return ThreadPoolExecutor(num_workers, thread_name_prefix="evaluation")


@dataclass
class _CopiedBatch(Generic[Batch]):
    batch: Batch
    ready: Any
    """CUDA event at the end of the copy."""


class Prefetcher(Generic[Batch]):
    """Copies batches to the device in order: `wait`, `next_batch`, then `copy_ahead`.

    The host waits for a batch in `wait`; the compute stream waits for its copy in `next_batch`.
    """

    def __init__(
        self,
        pending: Iterator[PendingBatch[Batch]],
        transfer: Callable[[Batch], Batch],
        device: torch.device,
    ) -> None:
        """`transfer` brings a batch to the device, not blocking; it runs on the side stream."""
        self._pending = pending
        self._transfer = transfer
        self._device = device
        self._next: PendingBatch[Batch] | None = None
        self._host: Batch | None = None
        self._copied: deque[_CopiedBatch[Batch]] = deque()
        self._begun: deque[Any] = deque()
        self._side: Any = None
        if device.type == "cuda":
            self._side = copy_stream(device)
            self._side.wait_stream(cuda.current_stream(device))

    def wait(self) -> bool:
        """Wait for the next batch and start its copy; False when there are no more."""
        if self._copied:
            return True
        following = self._peek()
        if following is None:
            return False
        self._next = None
        if self._side is None:
            self._host = following.result()
        else:
            self._copy(following.result())
        return True

    def next_batch(self) -> Batch:
        """The batch of the last `wait`, on the device; later kernels wait for its copy."""
        if self._side is None:
            host = cast("Batch", self._host)
            self._host = None
            return self._transfer(host)
        compute, copied = cuda.current_stream(self._device), self._copied.popleft()
        compute.wait_event(copied.ready)
        # The memory is the side stream's: without this its next copy could overwrite a batch that
        # the compute stream still reads.
        map_tensors(copied.batch, lambda tensor: tensor.record_stream(compute))
        self._begun.append(compute.record_event(cuda.Event(blocking=True)))  # type: ignore[no-untyped-call]  # torch
        if len(self._begun) > IN_FLIGHT:
            self._begun.popleft().synchronize()
        return copied.batch

    def copy_ahead(self) -> None:
        """Start copies of batches that are ready, AHEAD at most; does not wait for the loader."""
        while self._side is not None and len(self._copied) < AHEAD:
            following = self._peek()
            if following is None or not following.done():
                return
            self._next = None
            self._copy(following.result())

    def _peek(self) -> PendingBatch[Batch] | None:
        if self._next is None:
            self._next = next(self._pending, None)
        return self._next

    def _copy(self, host: Batch) -> None:
        with cuda.stream(self._side):
            batch = self._transfer(host)
            self._copied.append(_CopiedBatch(batch, self._side.record_event()))


@dataclass(frozen=True)
class InputPipeline:
    """Settings of a run's input pipeline, and batches by them."""

    device: torch.device
    num_workers: int = 0
    """Threads that prepare batches ahead."""
    pin: bool = False
    """Whether batches go through pinned memory."""

    @classmethod
    def from_settings(
        cls, runtime: param_sections.Runtime, device: torch.device, ranks: int = 1
    ) -> Self:
        """From the section `Runtime`; `auto` is resolved by the device."""
        gpu = device.type == "cuda"
        return cls(
            device,
            param_sections.effective_workers(runtime.num_workers, gpu=gpu, ranks=ranks),
            param_sections.effective_pin_memory(runtime.pin_memory, gpu=gpu),
        )

    @property
    def facts(self) -> dict[str, str]:
        """The effective settings, for a plan and a record."""
        return {"num_workers": str(self.num_workers), "pin_memory": str(self.pin).lower()}

    def batches(
        self, keys: Iterable[Key], gather: Callable[[Key], Batch]
    ) -> Iterator[tuple[Key, Batch]]:
        """Each key and its batch on the device: gathered, pinned and copied ahead."""
        pending_keys: deque[Key] = deque()

        def makers() -> Iterator[Callable[[], Batch]]:
            for key in keys:
                pending_keys.append(key)
                yield partial(self._make_on_host, gather, key)

        pool = _evaluation_pool(self.num_workers) if self.num_workers else None
        pending = make_ahead(makers(), pool, DEPTH * self.num_workers)
        feed = Prefetcher(pending, partial(to_device, device=self.device), self.device)
        while feed.wait():
            batch = feed.next_batch()
            feed.copy_ahead()
            yield pending_keys.popleft(), batch

    def _make_on_host(self, gather: Callable[[Key], Batch], key: Key) -> Batch:
        batch = gather(key)
        return pin_memory(batch) if self.pin else batch


def to_arrays(results: Iterable[tuple[Key, Tensor]]) -> Iterator[tuple[Key, npt.NDArray[Any]]]:
    """Each result as a numpy array; on a GPU its copy overlaps with the next result."""
    copying: tuple[Key, Tensor, Any] | None = None
    for key, result in results:
        if result.device.type != "cuda":
            yield key, result.numpy()
            continue
        host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        host.copy_(result, non_blocking=True)
        event = cuda.current_stream(result.device).record_event(cuda.Event(blocking=True))  # type: ignore[no-untyped-call]  # torch
        if copying is not None:
            yield _finish_copy(*copying)
        copying = key, host, event
    if copying is not None:
        yield _finish_copy(*copying)


def _finish_copy(key: Key, host: Tensor, event: Any) -> tuple[Key, npt.NDArray[Any]]:
    event.synchronize()
    return key, host.numpy()
