"""Device of a run: choice, threads, seeds, determinism, identity and memory peaks.

Equal threads and seed give bitwise equal losses on a CPU.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from torch import nn

from engines import cuda_support, gpu_readings, messages, out_of_memory
from engines.emitter import Emitter, EngineError
from engines.messages import PhaseName
from engines.process_memory import read_rss_peak
from engines.protocol import RunSpec
from engines.torchkit.runtime import matmul_precision

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
REUSED_BLOCK: Final = 256 << 20
"""Largest block that is kept: above the tensors of a step, below the weights of a large model."""
KEPT_BYTES: Final = 1 << 30
"""Most of the end of the heap that is kept."""
ALLOCATOR_SETTINGS: Final = (
    "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES",
    "LD_PRELOAD",
)  # fmt: skip
"""Variables that configure glibc's allocator or replace it."""

NO_GPU = "torch sees no CUDA device in this process"
KERNEL_MODULE = Path("/sys/module/nvidia/version")
WSL_DRIVER = Path("/usr/lib/wsl/lib/libcuda.so.1")
HIDDEN = ("", "-1", "NoDevFiles")
"""First entries of CUDA_VISIBLE_DEVICES that hide every GPU."""


def choose_device(
    devices: Sequence[int | str], rank: int = 0, *, cpu: bool = False
) -> torch.device:
    """The first visible GPU (of several ranks: the GPU with the rank's index), else the CPU.

    `cpu`: the CPU in any case, also where this process was started without the warden, which hides
    the GPUs.

    Raises:
        EngineError: GPUs were asked for and torch sees none, or one is here that torch cannot use.
    """
    if cpu:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", rank)
    if devices:
        names = ", ".join(map(str, devices))
        raise EngineError(
            f"devices = [{names}], but {NO_GPU}{_no_gpu_reason()}; give --cpu for the CPU"
        )
    if gpu_present() and not gpus_hidden():
        raise EngineError(f"a GPU is here, but {NO_GPU}{_no_gpu_reason()}; give --cpu for the CPU")
    return torch.device("cpu")


def gpu_present(nodes: Path = Path("/dev")) -> bool:
    """Whether the kernel has an NVIDIA GPU, independent of torch."""
    return any(nodes.glob("nvidia[0-9]*")) or ((nodes / "dxg").exists() and WSL_DRIVER.exists())


def gpus_hidden() -> bool:
    """Whether CUDA_VISIBLE_DEVICES hides all GPUs, as is done to compute on the CPU."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return shown is not None and shown.split(",")[0].strip() in HIDDEN


def _no_gpu_reason() -> str:
    """torch's message why it has no GPU, and a remedy where the driver is too old."""
    words = ""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch for CPUs only
        if out_of_memory.is_device_failure(error):
            raise
        words = str(error).partition(". ")[0].rstrip(".")
    problem = cuda_support.driver_problem(torch.version.cuda or "", driver_version())
    details = f" ({words})" if words else ""
    return (
        f"{details}: {problem}" if problem else f"{details}; `workbench doctor` looks for the cause"
    )


def driver_version() -> str:
    """Version of the loaded NVIDIA kernel module; empty: none here (or on the host of WSL)."""
    try:
        return KERNEL_MODULE.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def refuse_unsupported(device: torch.device) -> None:
    """Raise EngineError where this build of torch has no kernels for the device."""
    if device.type != "cuda":
        return
    capability = torch.cuda.get_device_capability(device)
    if not cuda_support.has_kernels(capability, torch.cuda.get_arch_list()):
        name, build = torch.cuda.get_device_name(device), f"torch {torch.__version__}"
        raise EngineError(f"{cuda_support.no_kernels(name, capability, build)}; or give --cpu")


def configure_torch(threads: int, *, tf32: bool, ranks: int = 1) -> None:
    """Set torch's thread count (0: torch's own choice) and the precision of fp32 products.

    torch chooses all cores; several ranks share them, or they would wait for each other.
    """
    if threads or ranks > 1:
        torch.set_num_threads(threads or max(1, torch.get_num_threads() // ranks))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if threads != 1 else "false")
    matmul_precision.allow_tf32(tf32)


def set_convolution_benchmark(*, fixed: bool) -> None:
    """Set cuDNN's benchmark mode, which times the algorithms for each shape of a convolution.

    On where shapes are `fixed`: each new one costs some hundred milliseconds. Off where kernels
    must be deterministic, since timing may choose other ones in every process.
    """
    torch.backends.cudnn.benchmark = fixed and not torch.are_deterministic_algorithms_enabled()


def reuse_freed_memory() -> bool:
    """Let glibc keep freed memory for the next step; returns whether it does.

    Otherwise glibc maps each tensor above 32 MB anew and gives the end of its heap back, so the
    kernel zeroes the same pages again in every step: 13,000 to 32,000 page faults and 35 to 100 ms
    of a 500 ms step (CLIP of two layers, batch 64, one thread), now none; the peak of memory grew
    by 2 %. Blocks above REUSED_BLOCK are still given back. Settings of the environment win.
    """
    if any(name in os.environ for name in ALLOCATOR_SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library has no such switch
        return False
    settings = (M_MMAP_THRESHOLD, REUSED_BLOCK), (M_TRIM_THRESHOLD, KEPT_BYTES)
    return all(mallopt(*setting) for setting in settings)


def use_deterministic_kernels() -> None:
    """Use deterministic kernels where torch has them; slower on a GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS first starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def seed_generators(number: int) -> None:
    """Seed torch's generators of all devices."""
    torch.manual_seed(number)


def send_hello(emit: Emitter, spec: RunSpec, device: torch.device, ranks: int = 1) -> None:
    """Send `Hello` with device, versions and GPUs; rank 0 sends it for all `ranks`.

    Raises:
        EngineError: this build of torch has no kernels for the GPU.
    """
    refuse_unsupported(device)
    name = "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),  # not imported yet, and perhaps never
    }
    if device.type == "cuda":
        check_allocator(emit, device)
        versions["cuda_allocator"] = allocator_settings()
        versions["cuda"] = torch.version.cuda or "unknown"
        versions["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]  # torch
    emit.send(
        messages.Hello(
            engine=spec.engine,
            pid=os.getpid(),
            device=name,
            threads=torch.get_num_threads(),
            versions=versions,
            gpus=identify_gpus(device, ranks),
        )
    )


def allocator_settings() -> str:
    """Configuration of torch's CUDA allocator from the environment; `default`: none."""
    names = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")  # in torch's order
    return next((os.environ[name] for name in names if os.environ.get(name)), "default")


def check_allocator(emit: Emitter, device: torch.device) -> None:
    """Make a first allocation; falls back to fixed segments where the GPU has no virtual memory.

    Virtual GPUs may lack it (vGPU without unified memory), and then every allocation fails.
    """
    try:
        torch.empty(1, device=device)
    except RuntimeError as error:
        if out_of_memory.classify_error(error) or "not supported" not in str(error):
            raise
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:False"
        torch.cuda.memory._set_allocator_settings("expandable_segments:False")
        torch.empty(1, device=device)
        emit.notice(
            "segments-fixed",
            "the GPU's memory cannot be mapped in pieces (a virtual GPU), so segments of torch's "
            "allocator do not grow; batches of many sizes may need more memory",
        )


def identify_gpus(device: torch.device, ranks: int = 1) -> tuple[gpu_readings.EngineGpu, ...]:
    """The GPUs of all ranks, by which the warden picks NVML's devices; on a CPU none.

    Rank n takes `cuda:n` (`choose_device`). Memory is cudaMemGetInfo's, a slice's with MIG. Of the
    other ranks' GPUs it is the properties', since asking there would make a CUDA context of this
    process on each of them.
    """
    if device.type != "cuda":
        return ()
    first, total = device.index or 0, torch.cuda.mem_get_info(device)[1]
    indexes = range(ranks) if ranks > 1 else (first,)
    return tuple(_identify_gpu(index, total if index == first else None) for index in indexes)


def _identify_gpu(index: int, memory_bytes: int | None) -> gpu_readings.EngineGpu:
    """One GPU by CUDA's index. A torch that lacks a property leaves it empty."""
    gpu = torch.cuda.get_device_properties(index)
    names = ("pci_domain_id", "pci_bus_id", "pci_device_id")
    numbers = [number for name in names if (number := getattr(gpu, name, None)) is not None]
    return gpu_readings.EngineGpu(
        uuid=str(getattr(gpu, "uuid", "")),
        pci_bus_id="{:08X}:{:02X}:{:02X}.0".format(*numbers) if len(numbers) == 3 else "",
        name=gpu.name,
        memory_bytes=gpu.total_memory if memory_bytes is None else memory_bytes,
        capability=(gpu.major, gpu.minor),
    )


def report_memory(emit: Emitter, phase: PhaseName, device: torch.device) -> None:
    """Send the peaks of the phase that ends, and start new ones."""
    allocated = reserved = None
    if device.type == "cuda":
        allocated = torch.cuda.max_memory_allocated(device)
        reserved = torch.cuda.max_memory_reserved(device)
        torch.cuda.reset_peak_memory_stats(device)
    emit.send(
        messages.Memory(
            phase=phase,
            vram_allocated_peak=allocated,
            vram_reserved_peak=reserved,
            rss_peak=read_rss_peak(),
            reason="" if device.type == "cuda" else NO_GPU,
        )
    )


@contextmanager
def preserved_state(model: nn.Module) -> Iterator[None]:
    """Context that restores buffers and generators afterwards, and drops gradients."""
    statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    with torch.random.fork_rng([torch.cuda.current_device()] if on_gpu else []):
        yield
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, before in statistics:
            buffer.copy_(before)
