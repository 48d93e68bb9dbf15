"""The device of a plan's runs: whether it can compute them, and whether their memory fits it.

Runs that differ only in seed, fold or repeat have the same query, which is computed once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from datasets_mm import catalog
from engines import cuda_support, model_catalog
from engines.memory_query import OTHERS, MemoryEstimate, MemoryQuery
from engines.protocol import Device, RunSpec
from workbench.memory_estimate import estimator_process, fit_check, gpus, policy, torch_build
from workbench.memory_estimate.fit_check import HostMemory
from workbench.memory_estimate.gpus import GpuModel, LocalGpu
from workbench.planning.plan import PlanError
from workbench.processes import gpu_selection, host_memory
from workbench.telemetry.gpus import is_library_present

ESTIMABLE_ENGINES: Final = ("captioning", "retrieval", "vqa")
"""Engines with a memory estimate (`engines.<name>.memory.estimate`)."""
SIZE_NEUTRAL_SETTINGS: Final = (
    "seed", "fold", "data_root", "image_root", "epochs", "max_steps", "lr",
)  # fmt: skip
"""Settings that change no tensor's size: left out of the query, so that runs share it."""
PRECISIONS: Final = ("precision", "search_precision")


class UnknownDevice(NamedTuple):
    """The device of a run is not known, so its memory cannot be estimated."""

    reason: str


TargetDevice = GpuModel | HostMemory | UnknownDevice


def locate_device(name: str, devices: Sequence[Device], *, cpu: bool) -> TargetDevice:
    """The device of a plan's runs: the GPU named by `name`, or what this machine has for them.

    Raises:
        PlanError: no GPU of that name is known, or one of `devices` is not here or not visible.
    """
    if name:
        try:
            return gpus.find_gpu(name)
        except gpus.UnknownGpuError as error:
            raise PlanError([str(error)]) from None
    host = HostMemory(host_memory.read_memory().available)
    if cpu or not is_library_present() or (not devices and gpu_selection.hides_all(os.environ)):
        return host
    answer = gpus.query_nvml()
    all_gpus = gpus.list_gpus(answer)
    if not all_gpus:
        return UnknownDevice("the driver does not say which GPUs are here")
    if problems := gpu_selection.find_device_problems(devices, os.environ, all_gpus):
        raise PlanError(problems)
    visible = gpu_selection.resolve_visible(devices, os.environ, all_gpus)
    kinds = {(info.name, info.memory_bytes) for info in visible.gpus}
    if not kinds or (not visible.certain and len(kinds) > 1):
        return UnknownDevice(visible.reason)
    gpu = gpus.gpu_from_nvml(visible.gpus[0], answer)
    if not gpu.memory_bytes or not gpu.capability:
        unknown_fact = "compute capability" if gpu.memory_bytes else "memory"
        return UnknownDevice(f"NVML does not tell the {unknown_fact} of {gpu.name or 'the GPU'}")
    return gpu


def build_query(spec: RunSpec, device: GpuModel | HostMemory, **changes: Any) -> MemoryQuery:
    """The memory query of a run. `changes`: settings that replace its own; `model`: its model."""
    model = changes.pop("model", spec.base_model or spec.model)
    params = {key: value for key, value in spec.params.items() if key not in SIZE_NEUTRAL_SETTINGS}
    target = (
        {"capability": device.capability} if isinstance(device, GpuModel) else {"target": "cpu"}
    )
    return MemoryQuery(
        engine=spec.engine, model=model, params={**params, **changes},
        trains=spec.task in ("train", "probe"), subsets=built_subset_folders(spec), **target,
    )  # fmt: skip


def built_subset_folders(spec: RunSpec) -> tuple[str, ...]:
    """Folders of the built subsets that a run reads, its training subset first.

    Empty if the training subset is not built, since another would take its place.
    """
    subset_names, root = set(catalog.names()), Path(spec.cache_root)
    if spec.subset not in subset_names:
        return ()
    summary, evaluate_on = catalog.summary(spec.subset, root), spec.params.get("evaluate_on")
    others = [spec.params.get(key, "") for key in ("validate_on", "infer_on")]
    names = (*(summary.evaluate_on if evaluate_on is None else evaluate_on), *others)
    folders = [
        summary.folder,
        *(catalog.summary(n, root).folder for n in names if n in subset_names),
    ]
    if summary.folder is None:
        return ()
    return tuple(dict.fromkeys(str(folder) for folder in folders if folder))


def check_memory(
    specs: Sequence[RunSpec], device: GpuModel | HostMemory, cache_root: Path, *, force: bool
) -> tuple[list[RunSpec], list[str]]:
    """Specs with their memory estimates, and one line of text for each different estimate.

    Raises:
        PlanError: a run does not fit with one sample at a time either, and not `force`.
    """
    lines: dict[str, None] = {}
    problems: dict[str, None] = {}
    estimated = []
    for spec, estimate in zip(specs, _request_estimates(specs, device, cache_root), strict=True):
        if estimate is not None:
            lines[_estimate_line(spec, estimate, device)] = None
        if estimate is None or estimate.problem:
            estimated.append(spec)
            continue
        estimated.append(spec.model_copy(update={"fit": estimate_record(estimate, device)}))
        if not force and (sentence := _memory_problem(spec, estimate, device, cache_root)):
            problems[sentence] = None
    if problems:
        raise PlanError(list(problems))
    return estimated, list(lines)


def _is_estimable(spec: RunSpec) -> bool:
    return spec.engine in ESTIMABLE_ENGINES and spec.task != "ensemble"


def _request_estimates(
    specs: Sequence[RunSpec], device: GpuModel | HostMemory, cache_root: Path
) -> list[MemoryEstimate | None]:
    """The estimate of each run; None: the engine has none.

    For a small model on a CPU only a cached estimate is read: to compute it would take longer than
    the run needs to start.
    """
    estimates: dict[int, MemoryEstimate | None] = {}
    queries: dict[int, MemoryQuery] = {}
    for row, spec in enumerate(specs):
        if not _is_estimable(spec):
            continue
        if isinstance(device, HostMemory) and _trains_from_scratch(spec):
            estimates[row] = estimator_process.cached_estimate(
                build_query(spec, device), cache_root
            )
        else:
            queries[row] = build_query(spec, device)
    estimates |= zip(
        queries,
        estimator_process.request_estimates(list(queries.values()), cache_root),
        strict=True,
    )
    return [estimates.get(row) for row in range(len(specs))]


def _trains_from_scratch(spec: RunSpec) -> bool:
    """Whether the run builds its model from a configuration, without pretrained weights."""
    try:
        entry = model_catalog.load(spec.base_model or spec.model)
    except (LookupError, ValueError):
        return False
    parts = [part for part in (entry, entry.vision, entry.llm) if part is not None]
    return not any(part.hub or part.path for part in parts) and not spec.params.get("llm")


def _estimate_line(spec: RunSpec, estimate: MemoryEstimate, device: GpuModel | HostMemory) -> str:
    if estimate.problem:
        text = f"n/a ({estimate.problem})"
    else:
        text = fit_check.describe_fit(fit_check.peak_phase(estimate, device), device)
    return f"memory forecast, {spec.model}: {text}"


def estimate_record(estimate: MemoryEstimate, device: GpuModel | HostMemory) -> dict[str, Any]:
    """The estimate for the run's record, in bytes, of the measured process alone."""
    other_bytes = estimate.host.get(OTHERS, 0) if isinstance(device, HostMemory) else 0
    return {
        "gpu": device.name if isinstance(device, GpuModel) else "",
        "tensors": {phase: sum(parts.values()) for phase, parts in estimate.phases.items()},
        "total": {
            phase: fit_check.check_fit(estimate, phase, device).total - other_bytes
            for phase in estimate.phases
        },
    }


def _memory_problem(
    spec: RunSpec, estimate: MemoryEstimate, device: GpuModel | HostMemory, cache_root: Path
) -> str:
    """Why the run cannot fit, even with its minimal settings; empty: it may fit."""
    if not fit_check.cannot_fit(estimate, device):
        return ""
    for smallest in policy.minimal_settings(spec.params):
        minimum = estimator_process.request_estimates(
            [build_query(spec, device, **smallest)], cache_root
        )[0]
        if not minimum.problem:
            break
    if minimum.problem or not fit_check.cannot_fit(minimum, device):
        return ""
    peak = fit_check.peak_phase(minimum, device)
    trains = spec.task == "train"
    reductions = policy.list_reductions(
        {**spec.params, **smallest}, spec.model, peak.phase, trains=trains
    )
    descriptions = [reduction.description for reduction in reductions]
    larger = "take a larger GPU" if isinstance(device, GpuModel) else "close other programs"
    remedy = f"lower {', then '.join(descriptions)}" if descriptions else larger
    settings = " and ".join(f"{key} = {value}" for key, value in smallest.items())
    return (
        f"run {spec.run_id}: {fit_check.describe_fit(peak, device)}, even with {settings}; "
        f"{remedy}; --force starts it all the same"
    )


def find_gpu_problems(specs: Sequence[RunSpec], device: object) -> list[str]:
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
    driver = ""
    if isinstance(gpu, LocalGpu):
        driver = gpu.driver
        problem = cuda_support.driver_problem(build, driver, gpu.capability, gpu.driver_cuda)
        if problem:
            return [f"{problem}; or give --cpu"]
    if gpu.capability is None:
        return []
    problem = cuda_support.card_problem(build, gpu.name, gpu.capability, driver)
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
