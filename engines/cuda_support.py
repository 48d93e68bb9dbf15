"""Support of drivers and GPUs by CUDA builds of torch. Imports no torch.

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
"""Compute capability from which GPUs have bf16 in hardware; older ones emulate it."""

DRIVERS: Final = {13: 580, 12: 525, 11: 450}
"""CUDA major version -> oldest driver branch that runs its programs."""


class TorchBuild(NamedTuple):
    """The wheels of torch for one CUDA version."""

    cuda: tuple[int, int]
    oldest: Capability
    """Lowest capability of the GPUs that its kernels run on."""
    newest: Capability
    install: str


INSTALL: Final = (
    "pip install 'torch<{}' torchvision --index-url https://download.pytorch.org/whl/{}"
)
BUILDS: Final = (
    TorchBuild((13, 0), (7, 5), (12, 1), "pip install torch torchvision"),
    TorchBuild((12, 6), (5, 0), (9, 0), INSTALL.format("2.15", "cu126")),
    TorchBuild((12, 8), (7, 0), (12, 1), INSTALL.format("2.12", "cu128")),
)
"""The newest torch first. 12.8 lacks Volta in torch 2.11; a run checks its own build's kernels."""
_ARCHITECTURE: Final = re.compile(r"(sm|compute)_(\d+)(\d)([a-z]?)")


def parse_version(text: str) -> tuple[int, int]:
    """First two numbers of a version, `13.2` or `580.95.05`; (0, 0): not a version."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


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
        supported: CUDA version of the loaded libcuda; newer than the driver's with NVIDIA's
            compatibility library.

    Returns:
        A sentence; empty: it can, or either version is unknown.
    """
    need, branch = DRIVERS.get(parse_version(cuda)[0], 0), parse_version(driver)[0]
    if not branch or branch >= need or (supported or (0, 0))[0] >= parse_version(cuda)[0]:
        return ""
    remedy = f"update the driver to {need} or later"
    if other := _find_build(branch, capability):
        remedy += f", or install an older torch: {other.install}"
    return f"driver {driver} is too old for torch built for CUDA {cuda}; {remedy}"


def card_problem(cuda: str, name: str, capability: Capability, driver: str = "") -> str:
    """Why torch for this CUDA version has no kernels for a GPU, with a remedy; empty: it has.

    Also empty where the build is in no table: a run checks its kernels one by one.
    """
    version = parse_version(cuda)
    candidates = [build for build in BUILDS if version >= build.cuda]
    build = max(candidates, key=lambda candidate: candidate.cuda, default=None)
    if not version[0] or build is None or build.oldest <= capability <= build.newest:
        return ""
    return no_kernels(name, capability, f"torch built for CUDA {cuda}", driver)


def no_kernels(name: str, capability: Capability, build: str, driver: str = "") -> str:
    """Sentence for a GPU that a build of torch has no kernels for."""
    other = _find_build(parse_version(driver)[0], capability)
    remedy = f"install another torch: {other.install}" if other else "take another GPU"
    number = format_capability(capability)
    return f"{name} (capability {number}): {build} has no kernels for it; {remedy}"


def bf16_problem(setting: str, gpu: str) -> str:
    """Sentence for a bf16 setting on a GPU without bf16 in hardware."""
    auto = " or auto" if setting == "precision" else " or fp32"
    return f"{setting} = bf16: {gpu} has no bf16; use fp16{auto}, as --set {setting}=fp16"


def format_capability(capability: Capability) -> str:
    """A capability as `7.5`."""
    return f"{capability[0]}.{capability[1]}"


def has_kernels(capability: Capability, architectures: Iterable[str]) -> bool:
    """Whether kernels of these architectures (`torch.cuda.get_arch_list()`) run on a GPU.

    Machine code (`sm_86`) runs on GPUs of the same major version from its minor version on, PTX
    (`compute_120`) on every later GPU (CUDA C++ programming guide, "Application Compatibility").
    With a letter behind (`sm_90a`) it runs on that very GPU only. Without such names (no list, or
    AMD's) the answer is yes.
    """
    matches = [match for name in architectures if (match := _ARCHITECTURE.fullmatch(name))]
    return not matches or any(_runs_on(capability, *match.groups()) for match in matches)


def _runs_on(capability: Capability, kind: str, major: str, minor: str, letter: str) -> bool:
    built = int(major), int(minor)
    if letter:
        return capability == built
    if kind == "compute":
        return capability >= built
    return capability[0] == built[0] and capability >= built


def _find_build(branch: int, capability: Capability | None) -> TorchBuild | None:
    """The newest build for a driver branch (0: any) and a GPU (None: any)."""
    for build in BUILDS:
        fits = capability is None or build.oldest <= capability <= build.newest
        if fits and (not branch or branch >= DRIVERS[build.cuda[0]]):
            return build
    return None
