"""GPUs, driver and NVML, read by a child process, because a call into a driver may never return."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, Final

from engines import cuda_support
from results.records.schema import GpuInfo
from results.text import formats
from workbench.doctor import probe_process
from workbench.doctor.finding import Finding, note, ok, problem
from workbench.memory_estimate import torch_build
from workbench.processes import gpu_selection

REMEDIES: Final = {
    "version mismatch": "reboot, or reload the nvidia modules: the driver was "
    "updated while its old kernel module runs on",
    "Driver Not Loaded": "load the nvidia module (`modprobe nvidia`), or reboot",
    "Unknown Error": "in a container, start it again: `systemctl daemon-reload` on the host "
    "takes its GPUs away",
    "Insufficient Permissions": "let the user into the group that owns /dev/nvidia*",
    "GPU is lost": "reset the GPU or reboot; it has fallen off the bus",
    "pynvml": "uninstall `pynvml`, and install `nvidia-ml-py`",
}  # fmt: skip


def start_sampler() -> subprocess.Popen[bytes]:
    """Start the telemetry sampler for one reading."""
    return probe_process.start_child("workbench.telemetry.sampler", "--once")


def driver_findings(
    child: subprocess.Popen[bytes], seconds: float = gpu_selection.DRIVER_SECONDS_WITH_NODES
) -> Iterator[Finding]:
    """Findings from the sampler's output, or one about its missing answer after `seconds`."""
    lines = probe_process.read_answer(child, seconds)
    if lines is None:
        text = f"the driver has not answered within {seconds:g} s"
        yield problem("GPU", text, "look at `dmesg` for Xid messages; a reboot helps")
        return
    if not lines:
        yield problem("GPU", f"the sampler ended with {child.returncode}", "reinstall nvidia-ml-py")
    elif "absent" in lines[0]:
        yield absence_finding(str(lines[0]["absent"]))
    else:
        yield from gpu_findings(lines[0].get("facts", {}), lines[1:])


def absence_finding(reason: str) -> Finding:
    """A note if NVML is not installed here, a problem if the driver refuses."""
    if "not on this machine" in reason:
        return note("GPU", f"none: {reason}", "runs use the CPU; in a container use `--gpus all`")
    remedy = next((text for key, text in REMEDIES.items() if key in reason), "see `nvidia-smi`")
    return problem("GPU", reason, remedy)


def gpu_findings(facts: Mapping[str, Any], readings: list[dict[str, Any]]) -> Iterator[Finding]:
    """Findings about driver and NVML, each GPU, the visible GPUs, and torch's build."""
    text = f"driver {facts.get('driver')}, NVML {facts.get('library')}"
    if facts.get("stub"):
        yield note("NVML", f"{text} is a stand-in", "every record will be marked nvml_stub")
    else:
        yield ok("NVML", text)
    gpus = facts.get("gpus", [])
    gpu_readings = readings[0].get("gpus", []) if readings else []
    for gpu, reading in zip(gpus, gpu_readings, strict=False):
        yield gpu_finding(gpu, reading)
    if not gpus:
        yield problem("GPU", "the driver names none", "look at `nvidia-smi -L`")
    else:
        yield visibility_finding(facts, os.environ)
        yield from torch_problems(facts, torch_build.cuda_version(torch_build.torch_folder()))


def torch_problems(facts: Mapping[str, Any], build: str) -> Iterator[Finding]:
    """Why torch, built for the CUDA version `build`, cannot use these GPUs."""
    if not build:
        text = "torch was built for CPUs only and cannot use the GPU"
        yield problem("torch", text, "install a build of torch for CUDA")
        return
    driver, gpus = str(facts.get("driver") or ""), facts.get("gpus", [])
    capabilities = [tuple(gpu.get("capability") or ()) for gpu in gpus]
    newest = max((capability for capability in capabilities if len(capability) == 2), default=None)
    supported = facts.get("cuda")
    if text := cuda_support.driver_problem(
        build, driver, newest, tuple(supported) if supported else None
    ):
        yield _problem_from_sentence("torch", text)
    for gpu, capability in zip(gpus, capabilities, strict=True):
        if len(capability) == 2:
            name = str(gpu.get("name") or "the GPU")
            if text := cuda_support.card_problem(build, name, capability, driver):
                yield _problem_from_sentence(f"GPU {gpu.get('index')}", text)


def visibility_finding(facts: Mapping[str, Any], variables: Mapping[str, str]) -> Finding:
    """The GPUs that CUDA shows to an engine started from this shell, or why they are unknown."""
    gpus = [GpuInfo.model_validate(row) for row in facts.get("gpus", [])]
    visible_gpus = gpu_selection.resolve_visible((), variables, gpus)
    names = ", ".join(
        f"GPU {gpu.index} ({gpu.uuid or 'without UUID'})" for gpu in visible_gpus.gpus
    )
    if not visible_gpus.gpus:
        remedy = f"unset {gpu_selection.VISIBLE}, or name one of {len(gpus)} GPUs in it by its UUID"
        return note("GPUs of a run", visible_gpus.reason, remedy)
    if not visible_gpus.certain:
        remedy = f"set {gpu_selection.VISIBLE} to a UUID"
        return note(
            "GPUs of a run", f"{visible_gpus.reason}; one of {names}, all are locked", remedy
        )
    return ok("GPUs of a run", names)


def _problem_from_sentence(name: str, sentence: str) -> Finding:
    text, _, remedy = sentence.partition("; ")
    return problem(name, text, remedy)


def gpu_finding(gpu: Mapping[str, Any], reading: Mapping[str, Any]) -> Finding:
    """A GPU's name, memory in use, processes, and values that NVML does not report."""
    name = f"GPU {gpu.get('index')}"
    text = str(gpu.get("name") or "without a name")
    text += f", {gpu['uuid']}" if gpu.get("uuid") else ""
    text += f", a MIG slice of {gpu['parent_uuid']}" if gpu.get("parent_uuid") else ""
    used, total = reading.get("used"), reading.get("total")
    reasons = {key: str(reason) for key, reason in (reading.get("reasons") or {}).items()}
    if used is None or total is None:
        reason = reasons.get("used", "memory is not known")
        remedy = next((text for key, text in REMEDIES.items() if key in reason), "see `nvidia-smi`")
        return problem(name, f"{text}: {reason}", remedy)
    text += f", {formats.size(used)} of {formats.size(total)} in use"
    processes = reading.get("processes") or []
    if reasons:
        text += "; " + ", ".join(
            f"{key}: n/a ({reason})" for key, reason in sorted(reasons.items())
        )
    if processes:
        return note(
            name, f"{text}; {len(processes)} processes compute on it", "wait for them to end"
        )
    return ok(name, text)
