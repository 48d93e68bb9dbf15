"""Whole runs that are killed: whether the GPU's memory comes back, and what the record says."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.tiny_runs import TinyRuns
from workbench.processes import tree
from workbench.suites import suite, suite_reader, warden_file

PATIENCE = 60.0
RETURN_SECONDS = 10.0
"""In which memory must be given back."""
SPARE_BYTES = 64 << 20
"""By which the device's memory in use may differ before and after."""
ENDLESS = {"epochs": 1000, "max_steps": 100_000, "checkpoint_every": 20, "num_workers": 2}


def kill(report: Report) -> None:
    """SIGKILL to the engine in the middle of a step, then to the supervisor of another run."""
    if report.cuda:
        torch.cuda.empty_cache()
    tiny = TinyRuns(report.scratch / "kill")
    for victim, cause in (("engine", "killed"), ("supervisor", "supervisor-lost")):
        kill_one(report, tiny, victim, cause)
    whole = tiny.run(max_steps=30)
    report.check("a run after both completes", whole["exit"]["cause"] == "completed")
    report.figure("it computed on", whole["environment"]["device"])
    report_vram(report, whole)


def kill_one(report: Report, tiny: TinyRuns, victim: str, cause: str) -> None:
    """One run that trains until its engine or its supervisor is killed."""
    before = used_bytes() if report.cuda else 0
    records = len(tiny.records())
    process = subprocess.Popen(
        tiny.command(**ENDLESS), env=tiny.environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        folder, engine = training(tiny)
        during = used_bytes() if report.cuda else 0
        supervisor = warden_file.read_warden(folder)
        target = engine if victim == "engine" else supervisor.pid if supervisor else 0
        os.kill(target, signal.SIGKILL)
        ended = time.monotonic()
        gone = wait(lambda: not alive(engine), RETURN_SECONDS)
        report.check(f"{victim} killed: the engine is gone", gone,
                     f"{time.monotonic() - ended:.2f} s")  # fmt: skip
        if report.cuda:
            report.figure(f"{victim} killed: VRAM of the run, bytes", during - before)
            back = wait(lambda: used_bytes() - before < SPARE_BYTES, RETURN_SECONDS)
            report.check(f"{victim} killed: VRAM is given back", back,
                         f"{time.monotonic() - ended:.2f} s")  # fmt: skip
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
    if victim == "engine":  # the supervisor's record is written by `resume`
        answer = [record["exit"]["cause"] for record in tiny.records()[records:]]
        report.check(f"{victim} killed: the record says {cause}", answer == [cause], str(answer))


def training(tiny: TinyRuns) -> tuple[Path, int]:
    """Folder of the newest suite and pid of its engine, once it is in training.

    Raises:
        TimeoutError: it never is.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(0.1)
        folders = suite.list_suites(tiny.logs) if tiny.logs.exists() else []
        for folder in folders:
            supervisor = warden_file.read_warden(folder)
            if supervisor is None or not warden_file.is_alive(supervisor):
                continue
            current = suite_reader.SuiteReader(folder).poll().current
            if current is not None and current.state.step >= 5 and current.state.pid:
                return folder, current.state.pid
    raise TimeoutError(f"no run trains within {PATIENCE:.0f} s")


def report_vram(report: Report, record: dict[str, object]) -> None:
    """The record's VRAM: of torch, of the process, of the device, and how they differ."""
    memory = record["memory"]
    assert isinstance(memory, dict)
    values = {name: reading.get("value") for name, reading in memory.items()}
    for name in ("vram_allocated_peak", "vram_reserved_peak", "vram_process_peak",
                 "vram_device_peak"):  # fmt: skip
        report.figure(name, values[name], memory[name].get("reason", ""))
    process, reserved = values["vram_process_peak"], values["vram_reserved_peak"]
    if process and reserved:
        report.figure("process less reserved, bytes", process - reserved, "0.5 GiB is assumed")


def used_bytes() -> int:
    """In use on GPU 0, as the driver says."""
    free, total = torch.cuda.mem_get_info()
    return total - free


def alive(pid: int) -> bool:
    """Whether the process runs."""
    process = tree.read_process(pid)
    return process is not None and not process.dead


def wait(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether it holds within so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
