"""Classification of out-of-memory errors, of a device or of the host, by their messages.

torch has a class for one of them only. Libraries that allocate by themselves (cuBLAS, cuDNN, NCCL,
Triton, bitsandbytes, the CUDA driver) have other messages; some end the process with a line on
stderr. Imports no torch, so that the workbench can use it.

Sources of the messages: torch 2.15 (c10/cuda, ATen/cuda/Exceptions.h), cuDNN 9 (cudnn_graph.h; its
ALLOC_FAILED is version 8's), NCCL 2 (alloc.h, checks.h), Triton 3 (driver.c), bitsandbytes 0.50
(CUDA_CHECK_RETURN).
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from typing import Final, Literal

OomKind = Literal["", "oom-cuda", "oom-host"]

_HOST: Final = re.compile(
    r"DefaultCPUAllocator|std::bad_alloc|Cannot allocate memory|HOST_ALLOCATION_FAILED"
    r"|Failed to (?:CUDA host alloc|malloc) \d+ bytes"
)
_DEVICE: Final = re.compile(
    r"(?:CUDA|HIP)(?: (?:driver|runtime))?(?: error:)? out of memory"
    r"|\[(?:CUDA|HIP)\]: out of memory"
    r"|Cuda failure (?:\d+ )?'out of memory'"
    r"|Error out of memory at line \d+ in file"
    r"|Failed to CUDA calloc(?: async)? \d+ bytes"
    r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"
    r"|CU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_(?:ALLOC_FAILED|INSUFFICIENT_RESOURCES)"
    r"|CUFFT_ALLOC_FAILED|CURAND_STATUS_ALLOCATION_FAILED|DEVICE_ALLOCATION_FAILED"
    r"|memory mapping failed with OOM on device"
)
_HANDLE: Final = re.compile(r"CU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_NOT_INITIALIZED")
"""A library could not make its handle: for lack of memory, or for other reasons."""

LOW_BYTES: Final = 512 * 2**20
"""With less than this free on the device, a failed handle counts as out of memory: cuBLAS takes
32 MiB of workspace on sm_90 and its kernels' code some 100 MiB."""

PINNING: Final = "pin_memory"
"""In a line of code that fails by cudaHostAlloc, whose error torch words like the device's."""


def classify_error(error: BaseException) -> OomKind:
    """Kind of out-of-memory error of an exception or of one in its chain; empty: none."""
    return next(filter(None, map(_classify_one, _chain(error))), "")


def classify_text(text: str) -> OomKind:
    """Kind of out-of-memory error by the last matching line of a text; empty: none."""
    for line in reversed(text.splitlines()):
        if _HOST.search(line):
            return "oom-host"
        if _DEVICE.search(line):
            return "oom-cuda"
    return ""


def is_device_failure(error: BaseException) -> bool:
    """Whether the machine failed, not the data: out of memory, or an error of CUDA.

    For handlers of RuntimeError that report a damaged file: torch's device errors are of that
    class.
    """
    names = {kind.__name__ for each in _chain(error) for kind in type(each).__mro__}
    return bool(classify_error(error)) or "AcceleratorError" in names


def _classify_one(error: BaseException) -> OomKind:
    text, error_class = str(error), type(error)
    if error_class.__name__ == "OutOfMemoryError" and error_class.__module__.startswith("torch"):
        return "oom-cuda"
    if isinstance(error, MemoryError):
        return "oom-host"
    if _HANDLE.search(text):
        return "oom-cuda" if _is_memory_low() else ""
    kind = classify_text(text)
    return "oom-host" if kind == "oom-cuda" and _is_pinning(error) else kind


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes or contexts, back to the first."""
    seen_ids: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen_ids:
        seen_ids.add(id(current))
        yield current
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)


def _is_pinning(error: BaseException) -> bool:
    """Whether the innermost frame allocates page-locked host memory."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and PINNING in (frames[-1].line or "")


def _is_memory_low() -> bool:
    """Whether the device has less than LOW_BYTES free, where torch is loaded."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    try:
        free, _ = torch.cuda.mem_get_info()
    except Exception:  # after an error of the device any call may fail, in whatever class
        return False
    return bool(free < LOW_BYTES)
