"""Running out of memory, for real: how it is classified, and what the next attempt does."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.tiny_runs import TinyRuns
from engines.child import classify

CHUNKS = (1 << 30, 1 << 26, 1 << 21, 1 << 12)
"""Bytes of the allocations that fill a GPU, largest first."""
LATE = """
import torch
from engines.child import classify
try:
    torch.zeros(1, device="cuda")
except Exception as error:
    print(classify(error), type(error).__name__, str(error).splitlines()[0])
else:
    print("no error")
"""
SMALL_GPU = """
import sys
if "engines.child" in sys.orig_argv:
    import torch
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction({limit} / total)
"""
"""A sitecustomize: torch's allocator refuses what is above the limit, with its own error."""


def classification(report: Report) -> None:
    """Errors of every kind of allocation that fails, by `engines.child.classify`."""
    expect_failure(report, "host", "oom-host", lambda: torch.empty(10**15, dtype=torch.uint8))
    if not report.cuda:
        return
    too_large = {"dtype": torch.uint8, "device": "cuda"}
    expect_failure(report, "10 TB", "oom-cuda", lambda: torch.empty(10**13, **too_large))
    with full_gpu():
        expect_failure(
            report, "1 MiB, full GPU", "oom-cuda", lambda: torch.empty(1 << 20, **too_large)
        )
        expect_failure(report, "matmul, full GPU", "oom-cuda", first_product)
        # Page-locked memory is the host's; a full GPU may refuse its mapping.
        report_failure(report, "pinned 64 MiB, full GPU", lambda: torch.empty(1 << 26).pin_memory())
        done = subprocess.run(
            [sys.executable, "-c", LATE], capture_output=True, text=True, check=False, timeout=60
        )
        answer = done.stdout.strip()
        passed = answer.startswith(("oom-cuda", "no error"))
        report.check("context of a second process, full GPU", passed, answer or done.stderr[-300:])


def expect_failure(report: Report, name: str, hint: str, allocate: Callable[[], Any]) -> None:
    """The failure of an allocation, which must be classified as `hint`."""
    error = failure(allocate)
    answer = classify(error) if error else "no error"
    first = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}" if error else ""
    report.check(f"{name}: {hint}", answer == hint, f"{answer}; {first}")


def report_failure(report: Report, name: str, allocate: Callable[[], Any]) -> None:
    """The failure of an allocation that may also succeed; an unclassified one is FAILED."""
    error = failure(allocate)
    if error is None:
        report.figure(name, "allocated")
    else:
        answer = classify(error)
        remark = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        report.check(f"{name}: {answer}", answer.startswith("oom"), remark)


def failure(allocate: Callable[[], Any]) -> BaseException | None:
    """The exception that it raises."""
    try:
        allocate()
    except Exception as error:
        return error
    return None


def first_product() -> torch.Tensor:
    """A matrix product, for which cuBLAS wants a workspace."""
    ones = torch.ones(64, 64, device="cuda")
    return ones @ ones


@contextmanager
def full_gpu() -> Iterator[None]:
    """All of the GPU's memory is taken, down to a few pages."""
    held = []
    for size in CHUNKS:
        with contextlib.suppress(torch.OutOfMemoryError):
            while True:
                held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
    try:
        yield
    finally:
        held.clear()
        torch.cuda.empty_cache()


def ladder(report: Report) -> None:
    """A run whose GPU is too small: the next attempt is a fresh process with smaller chunks."""
    tiny = TinyRuns(report.scratch / "ladder")
    limit = report.size(512, 512) << 20
    (tiny.folder / "sitecustomize.py").write_text(SMALL_GPU.format(limit=limit))
    last = tiny.run("--force", batch=60, image_size=512, epochs=6, checkpoint_every=1)
    records = tiny.records()
    causes = [record["exit"]["cause"] for record in records]
    report.figure("attempts", causes, f"limit {limit >> 20} MiB")
    report.check("the first runs out of memory", causes[0] == "oom-cuda")
    report.check("a smaller one completes", last["exit"]["cause"] == "completed")
    facts = [record.get("facts", {}).get("grad_cache", "whole batch") for record in records]
    report.figure("computed at once", facts)
