"""Fit check: total bytes of a memory estimate on a GPU or a host, and whether they fit.

Memory that the estimate of tensors does not include is stated here as constants, each with its
source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from engines.memory_query import MAPPED, STEP, MemoryEstimate, Phase
from workbench.memory_estimate.gpus import GIB, GpuModel

CONTEXT_BYTES: Final = GIB // 2
"""CUDA context, driver, kernels. Memory in use less torch's own was 0.49 GiB in four of seven
out-of-memory messages (A100, A100-40, 4090, L40), 0.13 to 0.23 in three (T4, L4, A4000)."""

WORKSPACE_BYTES: Final = {True: 32 << 20, False: 8_519_680}
"""cuBLAS workspace, by Hopper or later: what torch asks for (`:4096:2:16:8`, 32 MiB on Hopper)."""

ALLOCATOR_SLACK: Final = 0.06
"""Memory reserved by torch but not allocated, as a share of the allocated: 2.0, 4.9, 6.0, 6.9 and
10.1 % in five of those messages; this is their median. Cause: rounding and fragmentation."""


class HostMemory(NamedTuple):
    """The memory of a machine that computes on its CPU, in bytes."""

    memory_bytes: int
    """Available memory: of this machine what is free or can be freed, not the installed memory."""
    name: str = "this host"


class PhaseFit(NamedTuple):
    """Memory of one phase of a run on a GPU or a host, in bytes."""

    phase: Phase
    parts: dict[str, int]
    total: int
    available: int

    @property
    def fits(self) -> bool:
        """Whether the total is at most what is available."""
        return self.total <= self.available

    @property
    def missing(self) -> int:
        """Total less available bytes; negative: bytes that remain free."""
        return self.total - self.available


def check_fit(estimate: MemoryEstimate, phase: Phase, device: GpuModel | HostMemory) -> PhaseFit:
    """The parts of a phase on a device, overheads included, and their sum."""
    parts = add_overheads(estimate, estimate.phases[phase], device)
    return PhaseFit(phase, parts, sum(parts.values()), device.memory_bytes)


def add_overheads(
    estimate: MemoryEstimate, tensors: Mapping[str, int], device: GpuModel | HostMemory
) -> dict[str, int]:
    """Bytes by part: tensors, then what a GPU or a host needs beside them."""
    parts = dict(tensors)
    if isinstance(device, HostMemory):
        return parts | {name: size for name, size in estimate.host.items() if name != STEP}
    parts["cuBLAS workspace"] = WORKSPACE_BYTES[(device.capability or (0, 0)) >= (9, 0)]
    parts["allocator slack, 6 %"] = int(ALLOCATOR_SLACK * sum(tensors.values()))
    parts["CUDA context"] = CONTEXT_BYTES
    return parts


def peak_phase(estimate: MemoryEstimate, device: GpuModel | HostMemory) -> PhaseFit:
    """The phase that needs most memory."""
    return check_fit(estimate, estimate.peak_phase(), device)


def cannot_fit(estimate: MemoryEstimate, device: GpuModel | HostMemory) -> bool:
    """Whether the run exceeds the memory even if a host drops every page of its mapped files."""
    peak = peak_phase(estimate, device)
    reclaimable = peak.parts.get(MAPPED, 0) if isinstance(device, HostMemory) else 0
    return peak.missing > reclaimable


def describe_fit(phase_fit: PhaseFit, device: GpuModel | HostMemory) -> str:
    """`fits on A10G: 12.3 of 22.2 GiB …`, or `does not fit …` with the GiB that are missing."""
    needed, available = phase_fit.total / GIB, phase_fit.available / GIB
    when = {"train": "in training", "predict": "in prediction"}[phase_fit.phase]
    if phase_fit.fits:
        remaining = -phase_fit.missing / GIB
        return (
            f"fits on {device.name}: {needed:.1f} of {available:.1f} GiB {when}, "
            f"{remaining:.1f} left"
        )
    excess = phase_fit.missing / GIB
    return (
        f"does not fit on {device.name}: {needed:.1f} of {available:.1f} GiB {when}, "
        f"{excess:.1f} too much"
    )
