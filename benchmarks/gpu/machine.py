"""Facts of the machine, and whether `workbench doctor` finds the same."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.tiny_runs import TinyRuns

ROOT = Path(__file__).resolve().parents[2]
SMI = (
    "name", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.max.sm",
    "clocks.mem", "power.draw", "power.limit", "temperature.gpu", "pstate", "persistence_mode",
)  # fmt: skip
HELD_BYTES = 256 << 20


def environment(report: Report) -> None:
    """Versions, clocks, and whether torch, NVML and the sampler mean the same GPU."""
    report.figure("torch", torch.__version__, f"CUDA {torch.version.cuda}")
    packages(report)
    smi(report)
    if not report.cuda:
        report.figure("GPU", "n/a", "torch sees no CUDA device")
        sampler(report)
        return
    properties = torch.cuda.get_device_properties(0)
    major, minor = torch.cuda.get_device_capability(0)
    architectures = torch.cuda.get_arch_list()
    report.figure("capability", f"{major}.{minor}", " ".join(architectures))
    served = any(re.fullmatch(rf"(sm|compute)_{major}\d+[a-z]*", name) for name in architectures)
    report.check("torch has kernels for it", served)
    free, total = torch.cuda.mem_get_info(0)
    report.figure(
        "memory free, of", [free, total], f"{free / 2**30:.2f} of {total / 2**30:.2f} GiB"
    )
    report.figure("multiprocessors", properties.multi_processor_count)
    sampler(report, str(properties.uuid).removeprefix("GPU-"))


def packages(report: Report) -> None:
    """Versions of what the project depends on, and what is missing."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    versions, missing = {}, []
    for requirement in (*project["dependencies"], "pytest", "pytest-timeout"):
        name = re.split(r"[<>=\[ ]", requirement)[0]
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    report.figure("packages", " ".join(f"{n}={v}" for n, v in versions.items()))
    needless = {"textual", "textual-image", "bitsandbytes", "resvg-py"}
    report.check("no package is missing", not set(missing) - needless, f"missing: {missing}")


def smi(report: Report) -> None:
    """Clocks, power and temperature before anything is computed."""
    if shutil.which("nvidia-smi") is None:
        report.figure("nvidia-smi", "n/a", "not on the PATH")
        return
    query = ["nvidia-smi", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    for line in done.stdout.splitlines():
        values = dict(zip(SMI, (cell.strip() for cell in line.split(",")), strict=False))
        report.figure("nvidia-smi", values["name"], str(values))
    details = subprocess.run(
        ["nvidia-smi", "-q", "-d", "CLOCK,POWER,PERFORMANCE"], capture_output=True, text=True,
        check=False, timeout=20,
    )  # fmt: skip
    print(details.stdout)  # to log.txt


def sampler(report: Report, uuid: str = "") -> None:
    """One reading of the product's sampler, beside torch's UUID and memory that is held here."""
    held = torch.empty(HELD_BYTES, dtype=torch.uint8, device="cuda") if uuid else None
    command = [sys.executable, "-m", "workbench.telemetry.sampler", "--once"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    del held
    if not lines or "absent" in lines[0]:
        report.figure("sampler", "n/a", str(lines or done.stderr)[:300])
        report.check("NVML is there where a GPU is", not uuid)
        return
    facts, reading = lines[0]["facts"], lines[-1]
    report.figure("NVML", facts["driver"], f"{facts['library']}; stub: {facts['stub']}")
    report.check("its library is no stub", not facts["stub"] or not uuid)
    for gpu in facts["gpus"]:
        report.figure(f"NVML GPU {gpu['index']}", gpu["name"], str(gpu))
    if uuid:
        indexes = [g["index"] for g in facts["gpus"] if g["uuid"].removeprefix("GPU-") == uuid]
        report.check("torch's GPU 0 is one of NVML's", bool(indexes), f"index {indexes}")
        visible_processes(report, reading["gpus"][indexes[0]] if indexes else {})


def visible_processes(report: Report, gpu: dict[str, Any]) -> None:
    """Whether NVML tells the memory of a process of this container."""
    processes = gpu.get("processes") or []
    amounts = [used for _, used in processes if used]
    report.figure("processes by NVML", processes, gpu.get("processes_reason", ""))
    is_visible = any(used >= HELD_BYTES for used in amounts)
    remark = "" if is_visible else "per-process VRAM is n/a in records of this machine"
    report.figure("memory of this process is visible", is_visible, remark)


def doctor(report: Report) -> None:
    """What `workbench doctor` finds; a problem about the GPU is a failure."""
    logs = report.scratch / "doctor"
    command = [sys.executable, "-m", "workbench", "doctor", "--json", "--log-root", str(logs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    report.check("doctor answers", bool(findings), done.stderr[-300:])
    for finding in findings:
        if finding["standing"] != "ok" or "gpu" in finding["name"].lower():
            report.figure(f"doctor: {finding['name']}", finding["standing"], finding["text"])
    bad = [f["name"] for f in findings if f["standing"] == "problem" and "gpu" in f["name"].lower()]
    report.check("no problem with the GPU", not bad or not report.cuda, ", ".join(bad))


def cpu_switch(report: Report) -> None:
    """`workbench run --cpu` computes on the CPU, whatever torch could see."""
    record = TinyRuns(report.scratch / "cpu").run("--cpu", max_steps=4)
    report.check("--cpu runs on the CPU", record["environment"]["device"] == "cpu",
                 record["environment"]["device"])  # fmt: skip
    used = record["memory"].get("vram_device_peak") or {}
    report.figure("its device VRAM", used.get("value"), used.get("reason", ""))
