"""What a forecast comes to on a GPU: bytes beside the tensors, the sum, and whether it fits.

Pure. What no ledger can see is stated here as constants, each with where it was read.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from engines.memory_query import MAPPED, STEP, Need, Phase
from workbench.memory_estimate.gpus import GIB, Gpu

CONTEXT_BYTES: Final = GIB // 2
"""CUDA context, driver, kernels. Memory in use less torch's own was 0.49 GiB in four of seven
out-of-memory messages (A100, A100-40, 4090, L40), 0.13 to 0.23 in three (T4, L4, A4000)."""

WORKSPACE_BYTES: Final = {True: 32 << 20, False: 8_519_680}
"""cuBLAS workspace, by Hopper or later: what torch asks for (`:4096:2:16:8`, 32 MiB on Hopper)."""

SLACK: Final = 0.06
"""Reserved by torch but not allocated, as a share of what is: 2.0, 4.9, 6.0, 6.9 and 10.1 % in five
of those messages; this is their median. It is what rounding and fragmentation cost."""


class Host(NamedTuple):
    """The memory of a machine that computes on its CPU."""

    memory_bytes: int
    """What is to be had: of this machine what is free or can be freed, not what it has."""
    name: str = "this host"


class Verdict(NamedTuple):
    """One phase of a run against one GPU, or the host. Bytes."""

    phase: Phase
    parts: dict[str, int]
    total: int
    available: int

    @property
    def fits(self) -> bool:
        """Whether everything has room."""
        return self.total <= self.available

    @property
    def missing(self) -> int:
        """Bytes that are lacking; negative: that are left."""
        return self.total - self.available


def judge(need: Need, phase: Phase, place: Gpu | Host) -> Verdict:
    """The parts of a phase with what comes on top of its tensors, and the sum."""
    parts = dict(need.phases[phase])
    if isinstance(place, Host):
        parts |= {name: size for name, size in need.host.items() if name != STEP}
        return Verdict(phase, parts, sum(parts.values()), place.memory_bytes)
    tensors = sum(parts.values())
    parts["cuBLAS workspace"] = WORKSPACE_BYTES[(place.capability or (0, 0)) >= (9, 0)]
    parts["allocator slack, 6 %"] = int(SLACK * tensors)
    parts["CUDA context"] = CONTEXT_BYTES
    return Verdict(phase, parts, sum(parts.values()), place.memory_bytes)


def worst(need: Need, place: Gpu | Host) -> Verdict:
    """The phase that needs most."""
    return judge(need, need.deciding(), place)


def hopeless(need: Need, place: Gpu | Host) -> bool:
    """Whether it clearly does not fit: of files that are mapped a host may drop every page."""
    found = worst(need, place)
    spared = found.parts.get(MAPPED, 0) if isinstance(place, Host) else 0
    return found.missing > spared


def sentence(found: Verdict, place: Gpu | Host) -> str:
    """`fits on A10G: 12.3 of 22.2 GiB …`, or by how much it does not."""
    asked, has = found.total / GIB, found.available / GIB
    when = {"train": "in training", "predict": "in prediction"}[found.phase]
    if found.fits:
        left = -found.missing / GIB
        return f"fits on {place.name}: {asked:.1f} of {has:.1f} GiB {when}, {left:.1f} left"
    lacking = found.missing / GIB
    return (
        f"does not fit on {place.name}: {asked:.1f} of {has:.1f} GiB {when}, {lacking:.1f} too much"
    )
