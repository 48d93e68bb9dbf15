"""Whether GPU, driver and torch's build can compute a plan's runs, before a suite starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engines import cuda_support
from engines.protocol import RunSpec
from workbench.memory_estimate import torch_build
from workbench.memory_estimate.gpus import GpuModel

PRECISIONS: Final = ("precision", "search_precision")


def find_problems(specs: Sequence[RunSpec], device: object) -> list[str]:
    """Why the runs cannot compute on a GPU, one sentence each; empty list: they can, or unknown."""
    if not isinstance(device, GpuModel):
        return []
    build = torch_build.cuda_version(torch_build.torch_folder())
    return [*_build_problems(device, build), *_precision_problems(specs, device)]


def _build_problems(gpu: GpuModel, build: str) -> list[str]:
    """Problems of driver and kernels; the driver is checked only for a GPU of this machine."""
    if not build:
        remedy = "install a build for CUDA, or give --cpu"
        return [f"torch was built for CPUs only and cannot use {gpu.name}; {remedy}"]
    if gpu.present:
        problem = cuda_support.driver_problem(build, gpu.driver, gpu.capability, gpu.driver_cuda)
        if problem:
            return [f"{problem}; or give --cpu"]
    if gpu.capability is None:
        return []
    problem = cuda_support.card_problem(build, gpu.name, gpu.capability, gpu.driver)
    return [f"{problem}; or give --cpu"] if problem else []


def _precision_problems(specs: Sequence[RunSpec], gpu: GpuModel) -> list[str]:
    if gpu.capability is None or gpu.capability >= cuda_support.BF16:
        return []
    return [
        f"run {spec.run_id}: {cuda_support.bf16_problem(setting, gpu.name)}"
        for spec in specs
        for setting in PRECISIONS
        if spec.params.get(setting) == "bf16"
        if setting == "precision" or spec.params.get("search", "exact") == "exact"
    ]
