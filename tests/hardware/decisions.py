"""What the product decides on a machine of the catalog, by its own functions."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engines import param_sections
from engines.emitter import EngineError
from engines.gpu_readings import EngineGpu
from engines.protocol import RunSpec
from engines.torchkit.runtime import device
from engines.torchkit.runtime.precision import Precision
from results.records.schema import GpuInfo
from tests.hardware import fakes
from tests.hardware.machines import MIB, Machine
from workbench.doctor import gpus as doctor
from workbench.doctor import machine as doctor_machine
from workbench.memory_estimate import gpus, memory_check, policy, torch_build
from workbench.memory_estimate.gpus import GIB, GpuModel
from workbench.processes import device_locks, engine_process, gpu_selection
from workbench.telemetry import gpus as telemetry
from workbench.telemetry import nvml, sampler

OWN_PID = 1
REFUSED, NONE = "refused", "–"


@dataclass(frozen=True)
class Decisions:
    """Of a plain run: nothing chosen on the command line, the machine's own environment."""

    before: tuple[str, ...]
    """Sentences of `run`, before anything starts."""
    refusal: str
    """The engine's sentence; empty: it runs."""
    device: str
    precision: str
    products: str
    """Type of products with 4-bit weights."""
    explicit_bf16: str
    forecast: str
    lock: str
    figures: str
    """NVML's figures of the run's GPU."""
    process_memory: str
    loading: str
    """Loader threads and page-locked memory by `auto`."""
    batches: str
    """Micro-batch and predictions at once of a VQA plan that names none."""
    doctor: tuple[str, ...]
    """Findings that are not ok: `name: text`."""


def decide(patch: pytest.MonkeyPatch, machine: Machine) -> Decisions:
    """All decisions on the machine; `patch` is to be undone afterwards."""
    see(patch, machine)
    spec = _spec()
    where = memory_check.locate_device("", (), cpu=False)
    answer = gpus.query_nvml()
    listed = tuple(gpus.list_gpus(answer))
    before = tuple(memory_check.find_gpu_problems([spec], where))
    figures, process_memory = _telemetry(machine, listed)
    lock = _lock(spec, machine, listed)
    findings = _doctor(patch, machine)
    batches = _batches(where)
    for name, value in engine_process.engine_environment(machine.environment, spec, "t", 1).items():
        if name.startswith("CUDA_"):
            patch.setenv(name, value)
    target, refusal = _engine()
    found = Precision("auto", target)
    made = Decisions(
        before=before, refusal=refusal, device=_name(target), precision=found.name,
        products=_short(found.product_dtype), explicit_bf16=_explicit_bf16(target),
        forecast=_place(where), lock=lock, figures=figures, process_memory=process_memory,
        batches=batches, loading=_loading(patch, machine, target), doctor=findings,
    )  # fmt: skip
    if not refusal:
        return made
    unmade = ("precision", "products", "explicit_bf16", "forecast", "batches", "loading")
    return replace(made, device=REFUSED, **dict.fromkeys(unmade, NONE))


def see(patch: pytest.MonkeyPatch, machine: Machine) -> None:
    """The machine as workbench and engine see it; the sampler answers from this process."""
    fakes.see(patch, machine)
    patch.setattr(gpus, "query_nvml", lambda: nvml.Nvml.open().facts() if machine.gpus else {})
    patch.setattr(memory_check, "is_library_present", lambda: bool(machine.gpus))
    patch.setattr(torch_build, "cuda_version", lambda _: machine.torch.cuda)
    patch.setattr(gpu_selection, "gpu_may_exist", lambda *_: bool(machine.gpus))


def _spec() -> RunSpec:
    return RunSpec(
        suite="", run_id="01", engine="retrieval", subset="", model="", cache_root="",
        params={"precision": "auto"},
    )  # fmt: skip


def _engine() -> tuple[torch.device, str]:
    try:
        target = device.choose_device(())
        device.refuse_unsupported(target)
    except EngineError as error:
        return torch.device("cpu"), str(error)
    return target, ""


def _name(target: torch.device) -> str:
    return "CPU" if target.type == "cpu" else torch.cuda.get_device_name(target)


def _short(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]


def _explicit_bf16(target: torch.device) -> str:
    try:
        lacks = Precision("bf16", target).emulation_notice()
    except EngineError:
        return REFUSED
    return "slow, with a notice" if lacks else "runs"


def _place(where: memory_check.TargetDevice) -> str:
    if isinstance(where, GpuModel):
        return f"{where.memory_bytes / GIB:.1f} GiB of {where.name}"
    return (
        f"n/a ({where.reason})" if isinstance(where, memory_check.UnknownDevice) else "host memory"
    )


def _lock(spec: RunSpec, machine: Machine, listed: tuple[GpuInfo, ...]) -> str:
    names = device_locks.device_names(spec, machine.environment, listed)
    if names == {device_locks.CPU}:
        return "the CPU"
    count = len(names)
    things = "slice" if any(gpu.parent_uuid for gpu in listed) else "GPU"
    if count < len(listed):
        return f"{count} of {len(listed)} {things}s"
    return f"all {count} {things}s" if count > 2 else f"both {things}s" if count == 2 else "the GPU"


def _telemetry(machine: Machine, listed: tuple[GpuInfo, ...]) -> tuple[str, str]:
    """Whether NVML gives figures of the GPU that the engine names, and of the run's processes."""
    if not machine.gpus:
        return "no GPU", "no GPU"
    variables = engine_process.engine_environment(machine.environment, _spec(), "t", 1)
    shown = fakes.visible(machine, variables)[0]
    named = EngineGpu(uuid=shown.uuid.partition("-")[2])
    visible = gpu_selection.resolve_visible((), machine.environment, listed)
    rows = gpu_selection.match_engine_gpus([named], visible, listed)
    if not rows.indexes:
        return f"n/a ({rows.reason})", f"n/a ({rows.reason})"
    raw = sampler.Tiers(nvml.Nvml.open(), 1.0, 1.0).read(0.0)["gpus"][min(rows.indexes)]
    sizes = {"named": GIB, "unsized": None}
    own = [(OWN_PID, sizes[machine.processes])] if machine.processes in sizes else []
    gpu = telemetry.build_gpu({**raw, "processes": own}, {OWN_PID}, reserved=True)
    lacking = [name for name in ("used", "utilisation", "power", "clock") if name in gpu.reasons]
    figures = f"without {', '.join(lacking)}" if lacking else "all"
    held = "yes" if gpu.process is not None else f"n/a ({gpu.reasons['process']})"
    return figures, held


def _batches(where: memory_check.TargetDevice) -> str:
    if not isinstance(where, GpuModel):
        return "as the model's entry says"
    row = policy.select_preset(where.memory_bytes)
    return f"{row.batch} and {row.eval_batch_size}"


def _loading(patch: pytest.MonkeyPatch, machine: Machine, target: torch.device) -> str:
    gpu, cores = target.type == "cuda", set(range(machine.cpu.cores))
    patch.setattr(param_sections.os, "sched_getaffinity", lambda _: cores)
    workers = param_sections.effective_workers("auto", gpu=gpu)
    pinned = param_sections.effective_pin_memory("auto", gpu=gpu)
    return f"{workers} threads, page-locked" if pinned else f"{workers} threads"


def _doctor(patch: pytest.MonkeyPatch, machine: Machine) -> tuple[str, ...]:
    free = machine.shm_mib * MIB
    patch.setattr(fakes, "_processes", lambda _: [])  # nobody else computes there
    patch.setattr(doctor_machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    findings = [doctor_machine.shared_memory_finding(Path("/dev/shm"), len(machine.gpus))]
    if machine.gpus:
        opened = nvml.Nvml.open()
        tiers = sampler.Tiers(opened, 1.0, 1.0)
        findings += doctor.gpu_findings(opened.facts(), [json.loads(json.dumps(tiers.read(0.0)))])
    rows = [f"{one.name}: {one.text}" for one in findings if one.standing != "ok"]
    return tuple(rows)
