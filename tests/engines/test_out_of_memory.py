"""Every wording of "out of memory" is recognized, and nobody calls it a damaged file."""

import ast
import re
from pathlib import Path

import pytest
import torch

from engines import child, out_of_memory

ROOT = Path(__file__).parents[2]

SEARCH = (
    "\nSearch for `cudaErrorMemoryAllocation' in https://docs.nvidia.com/cuda/cuda-runtime-api/"
    "group__CUDART__TYPES.html for more information.\nCUDA kernel errors might be asynchronously "
    "reported at some other API call, so the stacktrace below might be incorrect."
)
NCCL = (
    "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:77, unhandled cuda error "
    "(run with NCCL_DEBUG=INFO for details), NCCL version 2.29.3\nncclUnhandledCudaError: Call to "
    "CUDA function failed.\nLast error:\n"
)
ENFORCE = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"
CUDNN = "cuDNN Frontend error: [cudnn_frontend] Error: CUDNN_STATUS_INTERNAL_ERROR_"
REPORTS = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "oom-cuda"),
    (torch.OutOfMemoryError("Allocation on device 0 would exceed allowed memory."), "oom-cuda"),
    (torch.AcceleratorError("CUDA error: out of memory" + SEARCH, 2), "oom-cuda"),
    (RuntimeError("CUDA driver error: out of memory"), "oom-cuda"),
    (RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"), "oom-cuda"),
    (RuntimeError("Triton Error [CUDA]: out of memory"), "oom-cuda"),
    (
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        "oom-cuda",
    ),
    (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED"), "oom-cuda"),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "oom-cuda"),
    (RuntimeError(CUDNN + "DEVICE_ALLOCATION_FAILED"), "oom-cuda"),
    (RuntimeError(CUDNN + "HOST_ALLOCATION_FAILED"), "oom-host"),
    (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), "oom-cuda"),
    (RuntimeError(NCCL + "Cuda failure 2 'out of memory'"), "oom-cuda"),
    (RuntimeError(NCCL + "Cuda failure 'out of memory'"), "oom-cuda"),
    (RuntimeError(NCCL + "Failed to CUDA calloc async 4 bytes"), "oom-cuda"),
    (RuntimeError(NCCL + "Failed to CUDA host alloc 4 bytes"), "oom-host"),
    (RuntimeError(NCCL + "Cuda failure 1 'invalid argument'"), "failed"),
    (RuntimeError("expandable_segments: memory mapping failed with OOM on device 0"), "oom-cuda"),
    (RuntimeError("cuModuleLoadData failed: CUDA_ERROR_OUT_OF_MEMORY"), "oom-cuda"),
    (RuntimeError(ENFORCE + ": Error code 12 (Cannot allocate memory)"), "oom-host"),
    (
        RuntimeError("unable to mmap 64 bytes: Cannot allocate memory (12)"),
        "oom-host",
    ),
    (OSError(12, "Cannot allocate memory"), "oom-host"),
    (RuntimeError("std::bad_alloc"), "oom-host"),
    (MemoryError(), "oom-host"),
    (torch.AcceleratorError("CUDA error: device-side assert triggered", 710), "failed"),
    (torch.AcceleratorError("CUDA error: no kernel image is available", 209), "failed"),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "failed"),
    (ValueError("x"), "failed"),
]


@pytest.mark.parametrize(("error", "hint"), REPORTS, ids=lambda value: str(value)[-40:])
def test_every_wording_is_recognized(error, hint):
    assert child.classify(error) == hint
    assert out_of_memory.is_device_failure(error) is (
        hint != "failed" or "CUDA error" in str(error)
    )


@pytest.mark.parametrize("free", [100 * 2**20, 4 * 2**30, None])
@pytest.mark.parametrize("library", ["CUBLAS", "CUDNN"])
def test_a_handle_that_cannot_be_made_is_want_of_memory_only_where_little_is_free(
    monkeypatch, library, free
):
    def mem_get_info():
        if free is None:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return free, 16 * 2**30

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    error = RuntimeError(f"CUDA error: {library}_STATUS_NOT_INITIALIZED when calling `create`")
    low = free is not None and free < out_of_memory.LOW_BYTES
    assert child.classify(error) == ("oom-cuda" if low else "failed")


def caught(function) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_page_locked_memory_is_the_hosts():
    """cudaHostAlloc fails in the words of the device; what asked for it is in the traceback."""
    asked = caught(lambda: object().pin_memory()).__traceback__
    error = torch.AcceleratorError("CUDA error: out of memory" + SEARCH, 2)
    assert child.classify(error) == "oom-cuda"
    assert child.classify(error.with_traceback(asked)) == "oom-host"


def test_what_an_error_came_of_counts():
    def wrapped():
        try:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        except RuntimeError as error:
            raise KeyError("backend='inductor' raised") from error

    def meanwhile():
        try:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        finally:
            raise KeyError("x")

    def hidden():
        try:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        except RuntimeError:
            raise KeyError("x") from None

    assert child.classify(caught(wrapped)) == "oom-cuda"
    assert child.classify(caught(meanwhile)) == "oom-cuda"
    assert child.classify(caught(hidden)) == "failed"


HARMLESS = {
    "emitter.py", "memory_estimator.py", "child.py", "out_of_memory.py",
    "torchkit/modeling/model_tokenizer.py",
    "vqa/models/hf_processor.py", "vqa/models/processor.py", "vqa/models/chat_template.py",
    "vqa/memory/max_lengths.py", "captioning/memory/max_lengths.py", "vqa/data/images.py",
    "torchkit/runtime/model_flops.py",  # formulas of shapes
    "torchkit/runtime/rank_nodes.py",  # a store on the network
    "torchkit/modeling/feature_cache.py",  # raises again
}  # fmt: skip
"""Files of the engines whose broad handlers surround no work of a device."""


PASSED_ON = re.compile(
    r"if out_of_memory\.(?:is_device_failure|classify_error)\(error\).*:\n    raise"
)


def broad(handler: ast.ExceptHandler) -> bool:
    names = {node.id for node in ast.walk(handler.type or ast.Name("BaseException"))
             if isinstance(node, ast.Name)}  # fmt: skip
    return bool(names & {"RuntimeError", "Exception", "BaseException"})


def test_whoever_catches_runtime_errors_lets_the_devices_through():
    """torch.OutOfMemoryError and AcceleratorError are RuntimeErrors."""
    looked = 0
    for path in (ROOT / "engines").rglob("*.py"):
        if path.relative_to(ROOT / "engines").as_posix() in HARMLESS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and broad(node):
                first = ast.unparse(node.body[0])
                assert PASSED_ON.fullmatch(first), f"{path}:{node.lineno}"
                looked += 1
    assert looked >= 5
