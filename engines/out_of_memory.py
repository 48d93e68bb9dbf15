"""Which errors mean that memory ran out, of a device or of the host, told from their words.

torch has a class for one of them only. Libraries that allocate by themselves (cuBLAS, cuDNN, NCCL,
Triton, bitsandbytes, the CUDA driver) word it their own way, some end the process and leave a line
on stderr. Light: knows no torch, so that the workbench can ask too.

Sources of the words: torch 2.15 (c10/cuda, ATen/cuda/Exceptions.h), cuDNN 9 (cudnn_graph.h; its
ALLOC_FAILED is version 8's), NCCL 2 (alloc.h, checks.h), Triton 3 (driver.c), bitsandbytes 0.50
(CUDA_CHECK_RETURN).
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from typing import Final, Literal

Kind = Literal["", "oom-cuda", "oom-host"]

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
"""A library that could not make its handle: for want of memory, or for a dozen other reasons."""

LOW_BYTES: Final = 512 * 2**20
"""Less than this free on the device, and a handle that cannot be made means want of memory: cuBLAS
takes 32 MiB of workspace on sm_90 and its kernels' code some 100 MiB."""

PINNING: Final = "pin_memory"
"""In a line of code whose failure is one of cudaHostAlloc, which torch words as the device's."""


def kind(error: BaseException) -> Kind:
    """What an exception, or one that it came of, says about memory."""
    return next(filter(None, map(_of_one, _chain(error))), "")


def kind_of_text(text: str) -> Kind:
    """What words say about memory; of several lines the last one that speaks of it counts."""
    for line in reversed(text.splitlines()):
        if _HOST.search(line):
            return "oom-host"
        if _DEVICE.search(line):
            return "oom-cuda"
    return ""


def of_device(error: BaseException) -> bool:
    """Whether the machine failed, and not the data: memory ran out, or CUDA reports an error.

    For whoever catches RuntimeError to say that a file is damaged: torch's errors of the device are
    of that class.
    """
    names = {kind.__name__ for each in _chain(error) for kind in type(each).__mro__}
    return bool(kind(error)) or "AcceleratorError" in names


def _of_one(error: BaseException) -> Kind:
    text, kind = str(error), type(error)
    if kind.__name__ == "OutOfMemoryError" and kind.__module__.startswith("torch"):
        return "oom-cuda"
    if isinstance(error, MemoryError):
        return "oom-host"
    if _HANDLE.search(text):
        return "oom-cuda" if _low() else ""
    spoken = kind_of_text(text)
    return "oom-host" if spoken == "oom-cuda" and _pinning(error) else spoken


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from, back to the first."""
    passed: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in passed:
        passed.add(id(following))
        yield following
        hidden = following.__suppress_context__
        following = following.__cause__ or (None if hidden else following.__context__)


def _pinning(error: BaseException) -> bool:
    """Whether the innermost line of ours asked for page-locked host memory."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and PINNING in (frames[-1].line or "")


def _low() -> bool:
    """Whether the device has little memory free, where torch is loaded and can tell."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    try:
        free, _ = torch.cuda.mem_get_info()
    except Exception:  # after an error of the device any call may fail, in whatever class
        return False
    return bool(free < LOW_BYTES)
