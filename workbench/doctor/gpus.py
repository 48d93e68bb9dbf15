"""GPUs, driver and NVIDIA's library, asked by a child: a call into a driver may never return."""

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


def ask() -> subprocess.Popen[bytes]:
    """Start the sampler for one reading."""
    return probe_process.ask("workbench.telemetry.sampler", "--once")


def examine(asked: subprocess.Popen[bytes], seconds: float | None = None) -> Iterator[Finding]:
    """What the child said, or that it said nothing in time."""
    seconds = gpu_selection.answer_seconds() if seconds is None else seconds
    said = probe_process.answer(asked, seconds)
    if said is None:
        text = f"the driver has not answered within {seconds:g} s"
        yield problem("GPU", text, "look at `dmesg` for Xid messages; a reboot helps")
        return
    if not said:
        yield problem("GPU", f"the sampler ended with {asked.returncode}", "reinstall nvidia-ml-py")
    elif "absent" in said[0]:
        yield absent(str(said[0]["absent"]))
    else:
        yield from present(said[0].get("facts", {}), said[1:])


def absent(reason: str) -> Finding:
    """No library is no fault, a driver that refuses is one."""
    if "not on this machine" in reason:
        return note("GPU", f"none: {reason}", "runs use the CPU; in a container use `--gpus all`")
    remedy = next((text for key, text in REMEDIES.items() if key in reason), "see `nvidia-smi`")
    return problem("GPU", reason, remedy)


def present(facts: Mapping[str, Any], readings: list[dict[str, Any]]) -> Iterator[Finding]:
    """Driver and library, then one line a GPU, then whether torch can use them."""
    text = f"driver {facts.get('driver')}, NVML {facts.get('library')}"
    if facts.get("stub"):
        yield note("NVML", f"{text} is a stand-in", "every record will be marked nvml_stub")
    else:
        yield ok("NVML", text)
    gpus = facts.get("gpus", [])
    raw = readings[0].get("gpus", []) if readings else []
    for gpu, reading in zip(gpus, raw, strict=False):
        yield one(gpu, reading)
    if not gpus:
        yield problem("GPU", "the driver names none", "look at `nvidia-smi -L`")
    else:
        yield visible(facts, os.environ)
        yield from unusable(facts, torch_build.cuda(torch_build.folder()))


def unusable(facts: Mapping[str, Any], build: str) -> Iterator[Finding]:
    """Why torch, built for the CUDA version `build`, cannot use these GPUs."""
    if not build:
        text = "torch was built for CPUs only and cannot use the GPU"
        yield problem("torch", text, "install a build of torch for CUDA")
        return
    driver, gpus = str(facts.get("driver") or ""), facts.get("gpus", [])
    abilities = [tuple(gpu.get("capability") or ()) for gpu in gpus]
    newest = max((one for one in abilities if len(one) == 2), default=None)
    supported = facts.get("cuda")
    if text := cuda_support.driver_problem(
        build, driver, newest, tuple(supported) if supported else None
    ):
        yield _split("torch", text)
    for gpu, capability in zip(gpus, abilities, strict=True):
        if len(capability) == 2:
            name = str(gpu.get("name") or "the GPU")
            if text := cuda_support.card_problem(build, name, capability, driver):
                yield _split(f"GPU {gpu.get('index')}", text)


def visible(facts: Mapping[str, Any], variables: Mapping[str, str]) -> Finding:
    """The GPUs that CUDA shows to an engine started from this shell, or why nobody can tell."""
    listed = [GpuInfo.model_validate(row) for row in facts.get("gpus", [])]
    shown = gpu_selection.resolve((), variables, listed)
    names = ", ".join(f"GPU {gpu.index} ({gpu.uuid or 'without UUID'})" for gpu in shown.gpus)
    if not shown.gpus:
        remedy = (
            f"unset {gpu_selection.VISIBLE}, or name one of {len(listed)} GPUs in it by its UUID"
        )
        return note("GPUs of a run", shown.reason, remedy)
    if not shown.certain:
        remedy = f"set {gpu_selection.VISIBLE} to a UUID"
        return note("GPUs of a run", f"{shown.reason}; one of {names}, all are locked", remedy)
    return ok("GPUs of a run", names)


def _split(name: str, sentence: str) -> Finding:
    text, _, remedy = sentence.partition("; ")
    return problem(name, text, remedy)


def one(gpu: Mapping[str, Any], reading: Mapping[str, Any]) -> Finding:
    """A GPU: what it is, what it does, what it would not say."""
    name = f"GPU {gpu.get('index')}"
    text = str(gpu.get("name") or "without a name")
    used, total = reading.get("used"), reading.get("total")
    reasons = {key: str(why) for key, why in (reading.get("reasons") or {}).items()}
    if used is None or total is None:
        why = reasons.get("used", "memory is not known")
        remedy = next((text for key, text in REMEDIES.items() if key in why), "see `nvidia-smi`")
        return problem(name, f"{text}: {why}", remedy)
    text += f", {formats.size(used)} of {formats.size(total)} in use"
    others = reading.get("processes") or []
    if reasons:
        text += "; " + ", ".join(f"{key}: n/a ({why})" for key, why in sorted(reasons.items()))
    if others:
        return note(name, f"{text}; {len(others)} processes compute on it", "wait for them to end")
    return ok(name, text)
