"""Whether a GPU, its driver and torch's build fit a plan's runs: known before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engines import cuda_support
from engines.protocol import RunSpec
from workbench.memory_estimate import torch_build
from workbench.memory_estimate.gpus import Gpu

PRECISIONS: Final = ("precision", "search_precision")


def problems(specs: Sequence[RunSpec], where: object) -> list[str]:
    """Why the runs cannot compute on a GPU, one sentence each; none where it is not known."""
    if not isinstance(where, Gpu):
        return []
    build = torch_build.cuda(torch_build.folder())
    return [*_of_build(where, build), *_of_precision(specs, where)]


def _of_build(gpu: Gpu, build: str) -> list[str]:
    """Driver and kernels. What holds for a GPU in this machine only is not said of a named one."""
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


def _of_precision(specs: Sequence[RunSpec], gpu: Gpu) -> list[str]:
    if gpu.capability is None or gpu.capability >= cuda_support.BF16:
        return []
    return [
        f"run {spec.run_id}: {cuda_support.bf16_problem(setting, gpu.name)}"
        for spec in specs
        for setting in PRECISIONS
        if spec.params.get(setting) == "bf16"
        if setting == "precision" or spec.params.get("search", "exact") == "exact"
    ]
