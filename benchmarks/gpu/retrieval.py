"""The weekly report's training step: its cost, where its time goes, what a setting is worth."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import estimate, step_ops, weekly
from benchmarks.gpu import assumptions
from benchmarks.gpu.report import Report, Skip
from engines import model_catalog
from engines.memory_query import MemoryQuery
from engines.retrieval.memory import estimate as memory_estimate
from workbench.memory_estimate.fit_check import CONTEXT_BYTES, WORKSPACE_BYTES

FULL = weekly.Sizes(pairs=12_801, passages=1_000)
"""200 batches of 64 and one of a single pair, as 339,137 = 64 * 5,299 + 1; 2.1 GB of pictures."""
SMALL = weekly.Sizes(pairs=17, passages=10, image_size=64, thin=8)
ON_CPU = {"precision": "fp32", "num_workers": 1, "threads": 1, "batch": 8}
"""Changes to the preset at the small size: bf16 is emulated on most CPUs."""
STEPS = 60
PROFILED = 20
MILLISECONDS_GOAL = 11.3
"""A step of an epoch of 60 s: 60 s / 5,300."""


def sizes(report: Report) -> weekly.Sizes:
    """Of this run of the script."""
    return SMALL if report.small else FULL


@contextmanager
def bench(report: Report) -> Iterator[weekly.Bench]:
    """The pairs; the image cache is written by the first step that needs it."""
    chosen, path = sizes(report), report.scratch / "rows.u8"
    if path.exists() and path.stat().st_size == chosen.cache_bytes:
        array = weekly.open_images(path, chosen)
    else:
        array, seconds = weekly.make_images(path, chosen)
        speed = chosen.cache_bytes / seconds / 1e9
        report.figure("image cache written, s", seconds, f"{speed:.2f} GB/s")
    yield weekly.Bench(chosen, array, report.scratch)


def changes(report: Report, **more: Any) -> dict[str, Any]:
    """To the preset's settings."""
    return (ON_CPU if report.small else {}) | more


def report_epoch(report: Report, name: str, figures: dict[str, Any]) -> None:
    """The figures of one training."""
    report.figure(f"{name}: step median, ms", figures["step_median"] * 1e3,
                  f"{figures['steps']} steps; goal {MILLISECONDS_GOAL}")  # fmt: skip
    for key in ("step_p95", "last_step"):
        report.figure(f"{name}: {key}, ms", figures[key] * 1e3)
    for key in ("data_wait_share", "samples_per_second", "loss", "vram_allocated"):
        report.figure(f"{name}: {key}", figures[key])


def weekly_step(report: Report) -> None:
    """An epoch of the preset as it is; its last step has one pair."""
    with bench(report) as measured:
        figures = measured.train(changes(report))
        report_epoch(report, "preset", figures)
        report.check("the loss is finite", math.isfinite(figures["loss"]))
        seconds = measured.step_seconds(changes(report), report.size(STEPS, 2))
        median = statistics.median(seconds)
        report.figure("preset: step over batches on the device, ms", median * 1e3,
                      f"the epoch's is {figures['step_median'] / median:.2f} of it")  # fmt: skip


def profile_step(report: Report) -> None:
    """Kernels a step, time on the device and time that the host needs to launch."""
    steps = report.size(PROFILED, 2)
    with bench(report) as measured, measured.resident(changes(report)) as step:
        for number in range(report.size(10, 1)):
            step(number)
        launched, whole = host_seconds(measured, step, steps)
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * report.cuda
        with profile(activities=kinds) as profiler:
            for number in range(steps):
                step(number)
            measured.wait()
    report.figure("time of a step by itself, ms", whole * 1e3)
    counted = sum(operation.launches for operation in estimate.count_step()[0])
    report.figure("kernels a step, counted without a GPU", counted)
    report.figure("host time to launch a step, ms", launched * 1e3)
    assumptions.confirm(report, "host, eager", launched / counted * 1e6)
    report_kernels(report, profiler, steps, counted)


def host_seconds(
    measured: weekly.Bench, step: Callable[[int], None], steps: int
) -> tuple[float, float]:
    """Medians of the seconds until a step is launched, and until it is done.

    Each step begins with an idle device: its queue holds some 1,000 launches, and a host that is
    further ahead waits for room in it.
    """
    launched, whole = [], []
    for number in range(steps):
        measured.wait()
        start = time.perf_counter()
        step(number)
        launched.append(time.perf_counter() - start)
        measured.wait()
        whole.append(time.perf_counter() - start)
    return statistics.median(launched), statistics.median(whole)


def report_kernels(report: Report, profiler: Any, steps: int, counted: int) -> None:
    """Counts and device seconds of what the profiler saw, beside the counted budget."""
    events = profiler.events()
    operators = [e for e in events if e.name.startswith("aten::") and e.cpu_parent is None]
    report.figure("operators a step, outermost", round(len(operators) / steps))
    if not report.cuda:
        return
    kernels = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    launches = sum("memcpy" not in e.name.lower() for e in kernels) / steps
    busy = sum(event.time_range.elapsed_us() for event in kernels)
    report.figure("device time a step, ms", busy / steps / 1e3, "sum over kernels and copies")
    report.figure("kernels a step", launches, f"{launches / counted:.3f} of the count")
    report.check("the count is right within a quarter", 0.8 <= launches / counted <= 1.25)
    by_name: dict[str, float] = {}
    for event in kernels:
        by_name[event.name] = by_name.get(event.name, 0.0) + event.time_range.elapsed_us()
    for name, microseconds in sorted(by_name.items(), key=lambda item: -item[1])[:10]:
        report.figure("device us a step", microseconds / steps, name[:120])


def memory(report: Report) -> None:
    """The forecast beside torch's allocator, and that beside NVML."""
    chosen = sizes(report)
    params = weekly.settings(weekly.Sizes(image_size=224), {})
    entry = model_catalog.load("tinyclip-61m")
    capability = torch.cuda.get_device_capability() if report.cuda else (9, 0)
    want = MemoryQuery(
        engine="retrieval", model=entry.name, params=params.model_dump(mode="json"), trains=True,
        target="cuda", text_tokens=0, capability=capability,
    )  # fmt: skip
    forecast = sum(memory_estimate.estimate_entry(want, entry, params).phases["train"].values())
    report.figure("forecast of the training's tensors, bytes", forecast)
    if not report.cuda:
        return
    device_before = device_bytes()
    with bench(report) as measured:
        figures = measured.train({}, STEPS)
        device_after = device_bytes()
    allocated, reserved = figures["vram_allocated"], figures["vram_reserved"]
    forecast += WORKSPACE_BYTES[capability >= (9, 0)]
    ratio = forecast / allocated
    report.figure("allocated at most, bytes", allocated, f"forecast / allocated {ratio:.3f}")
    if chosen == FULL:
        report.check("the forecast is within a tenth", 0.9 <= ratio <= 1.1, f"{ratio:.3f}")
    report.figure("reserved / allocated", reserved / allocated, "6 % is assumed")
    report.figure("device by NVML, bytes", device_after, f"{device_before} before")
    context = device_after - torch.cuda.memory_reserved()
    report.figure("device less reserved, bytes", context, f"{CONTEXT_BYTES} is assumed")


def device_bytes() -> int:
    """In use on the device, as the driver says."""
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return total - free


def switches(report: Report) -> None:
    """Each speed setting alone, through the loop of a run; compilation has its own step."""
    with bench(report) as measured:
        for name, switch in weekly.speed_switches().items():
            if switch.get("compile"):
                continue
            try:
                figures = measured.train(changes(report, **switch), report.size(STEPS, 2))
            except Exception as error:
                first = (str(error).splitlines() or [""])[0][:200]
                report.check(name, holds=False, remark=f"{type(error).__name__}: {first}")
                continue
            report_switch(report, name, figures)


def report_switch(report: Report, name: str, figures: dict[str, Any]) -> None:
    """One line of a setting."""
    remark = f"data_wait {figures['data_wait_share']:.2%}, loss {figures['loss']:.4f}"
    report.figure(f"{name}: step median, ms", figures["step_median"] * 1e3, remark)


def compiled(report: Report) -> None:
    """Settings that compile, over an epoch whose last batch is short."""
    with bench(report) as measured:
        for name, switch in weekly.speed_switches().items():
            if switch.get("compile"):
                figures = measured.train(changes(report, **switch))
                report_switch(report, name, figures)
                report_host(report, measured, switch)
                report.figure(f"{name}: seconds in all", figures["seconds"], "with compilation")
                slow = figures["last_step"] > 10 * figures["step_median"]
                report.check(f"{name}: the short last batch compiles nothing", not slow,
                             f"{figures['last_step'] * 1e3:.1f} ms")  # fmt: skip


def report_host(report: Report, measured: weekly.Bench, switch: dict[str, Any]) -> None:
    """Host time of a compiled step, a launch; of one in graphs, in all."""
    with measured.resident(changes(report, **switch)) as step:
        for number in range(16):
            step(number)
        launched, _ = host_seconds(measured, step, PROFILED)
    if switch.get("cuda_graphs"):
        assumptions.confirm(report, "host, graph", launched * 1e3)
    else:
        fewer = sum(op.launches for op in step_ops.fused(estimate.count_step()[0]))
        assumptions.confirm(report, "host, compiled", launched / fewer * 1e6)


def oven_epoch(report: Report) -> None:
    """As much of the whole epoch as the time allows: 30,000 pairs, as estimated from it."""
    chosen = weekly.Sizes(pairs=30_017, passages=2_000)
    fastest = list(weekly.speed_switches().values())[-1]
    path = report.scratch / "oven.u8"
    (report.scratch / "rows.u8").unlink(missing_ok=True)
    array, seconds = weekly.make_images(path, chosen)
    report.figure("image cache written, s", seconds)
    measured = weekly.Bench(chosen, array, report.scratch)
    if not fastest:
        raise Skip("there is no speed setting")
    figures = measured.train(fastest)
    report_epoch(report, "30,017 pairs", figures)
    epoch = figures["step_median"] * 5_300
    report.figure("oven epoch by its median step, s", epoch, "339,137 pairs; goal 60")
    report.figure("within 60 s", epoch <= 60.0)
