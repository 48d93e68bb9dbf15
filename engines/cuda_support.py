"""Which drivers and GPUs a CUDA build of torch runs on. Pure; imports no torch.

Sources: CUDA toolkit release notes, "Minimum required driver versions" (minor version
compatibility); pytorch/pytorch RELEASE.md and issues 172663, 178665, 190385 (architectures of each
build: Volta and older need CUDA 12.6, whose last wheels are those of torch 2.14).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

Capability = tuple[int, int]

BF16: Final[Capability] = (8, 0)
"""From this compute capability on a GPU has bf16 in hardware; older ones emulate it."""

DRIVERS: Final = {13: 580, 12: 525, 11: 450}
"""CUDA major version -> oldest driver branch that runs its programs."""


class Build(NamedTuple):
    """The wheels of torch for one CUDA version."""

    cuda: tuple[int, int]
    oldest: Capability
    """Of the GPUs that its kernels run on."""
    newest: Capability
    install: str


INSTALL: Final = (
    "pip install 'torch<{}' torchvision --index-url https://download.pytorch.org/whl/{}"
)
BUILDS: Final = (
    Build((13, 0), (7, 5), (12, 1), "pip install torch torchvision"),
    Build((12, 6), (5, 0), (9, 0), INSTALL.format("2.15", "cu126")),
    Build((12, 8), (7, 0), (12, 1), INSTALL.format("2.12", "cu128")),
)
"""The newest torch first. 12.8 lacks Volta in torch 2.11; a run checks its own build's kernels."""
_ARCHITECTURE: Final = re.compile(r"(sm|compute)_(\d+)(\d)([a-z]?)")


def version_of(text: str) -> tuple[int, int]:
    """`13.2`, or a driver's `580.95.05`, as its first two numbers; (0, 0) if it is none."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def driver_problem(
    cuda: str,
    driver: str,
    capability: Capability | None = None,
    supported: tuple[int, int] | None = None,
) -> str:
    """Why torch for this CUDA version cannot use a GPU of this driver, with remedies.

    Args:
        cuda: Version of the build, `13.2`.
        driver: Version of the driver, `580.95.05`.
        capability: Of the GPU, for the remedy.
        supported: CUDA version that the loaded libcuda says; newer than the driver's where NVIDIA's
            compatibility library stands before it.

    Returns:
        A sentence; empty: it can, or either version is unknown.
    """
    need, branch = DRIVERS.get(version_of(cuda)[0], 0), version_of(driver)[0]
    if not branch or branch >= need or (supported or (0, 0))[0] >= version_of(cuda)[0]:
        return ""
    remedy = f"update the driver to {need} or later"
    if other := _build(branch, capability):
        remedy += f", or install an older torch: {other.install}"
    return f"driver {driver} is too old for torch built for CUDA {cuda}; {remedy}"


def card_problem(cuda: str, name: str, capability: Capability, driver: str = "") -> str:
    """Why torch for this CUDA version has no kernels for a GPU, with a remedy; empty: it has.

    Also empty where the build is in no table: a run checks its kernels one by one.
    """
    version = version_of(cuda)
    older = [one for one in BUILDS if version >= one.cuda]
    build = max(older, key=lambda one: one.cuda, default=None)
    if not version[0] or build is None or build.oldest <= capability <= build.newest:
        return ""
    return no_kernels(name, capability, f"torch built for CUDA {cuda}", driver)


def no_kernels(name: str, capability: Capability, build: str, driver: str = "") -> str:
    """The sentence about a GPU that a build of torch has no kernels for."""
    other = _build(version_of(driver)[0], capability)
    remedy = f"install another torch: {other.install}" if other else "take another GPU"
    return f"{name} (capability {shown(capability)}): {build} has no kernels for it; {remedy}"


def bf16_problem(setting: str, gpu: str) -> str:
    """The sentence about a setting of bf16 on a GPU that has none in hardware."""
    auto = " or auto" if setting == "precision" else " or fp32"
    return f"{setting} = bf16: {gpu} has no bf16; use fp16{auto}, as --set {setting}=fp16"


def shown(capability: Capability) -> str:
    """`7.5`."""
    return f"{capability[0]}.{capability[1]}"


def runs(capability: Capability, architectures: Iterable[str]) -> bool:
    """Whether kernels of these architectures (`torch.cuda.get_arch_list()`) run on a GPU.

    Machine code (`sm_86`) runs on GPUs of the same major version from its minor version on, PTX
    (`compute_120`) on every later GPU (CUDA C++ programming guide, "Application Compatibility").
    With a letter behind (`sm_90a`) it runs on that very GPU only. No such names (no list, or
    AMD's): nobody can tell.
    """
    known = [found for one in architectures if (found := _ARCHITECTURE.fullmatch(one))]
    return not known or any(_runs(capability, *one.groups()) for one in known)


def _runs(capability: Capability, kind: str, major: str, minor: str, letter: str) -> bool:
    built = int(major), int(minor)
    if letter:
        return capability == built
    if kind == "compute":
        return capability >= built
    return capability[0] == built[0] and capability >= built


def _build(branch: int, capability: Capability | None) -> Build | None:
    """The newest build for a driver branch (0: any) and a GPU (None: any)."""
    for one in BUILDS:
        fits = capability is None or one.oldest <= capability <= one.newest
        if fits and (not branch or branch >= DRIVERS[one.cuda[0]]):
            return one
    return None
