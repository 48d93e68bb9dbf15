"""The assumptions of `benchmarks.estimate`, measured one by one under the same names."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import estimate
from benchmarks.gpu.report import Report

REPEATS = 20
SETS = 16
"""Input sets that take turns, so that not everything lies in the L2 cache."""


def measure(report: Report) -> None:
    """All that needs no model; host times come from the steps `profile` and `compile`."""
    target = torch.device("cuda" if report.cuda else "cpu")
    large_product(report, target)
    copies(report, target)
    small_kernels(report, target)
    memory_bound(report, target)
    attention(report, target)
    step_products(report, target)


def confirm(report: Report, name: str, value: float, low: float = 0.0, high: float = 0.0) -> None:
    """A measured value beside the assumed one, and whether it lies in the useful range."""
    assumption = estimate.ASSUMPTIONS[name]
    low, high = low or assumption.low, high or assumption.high
    if not report.cuda:
        remark = f"{assumption.unit}; nothing of an H200"
    elif low <= value <= high:
        remark = f"{assumption.unit}; confirmed: {low:.3g} to {high:.3g}"
    else:
        remark = f"{assumption.unit}; REFUTED: {low:.3g} to {high:.3g} was assumed"
    report.figure(name, value, remark)


def seconds_of(run: Callable[[int], object], target: torch.device, repeats: int = REPEATS) -> float:
    """Of one call, on the device's time line; launched from a CUDA graph, so without the host."""
    if target.type == "cpu":
        run(0)
        start = time.perf_counter()
        for number in range(3):
            run(number)
        return (time.perf_counter() - start) / 3
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for number in range(3):
            run(number)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for number in range(repeats):
            run(number)
    graph.replay()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(3):
        graph.replay()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3 / 3 / repeats


def large_product(report: Report, target: torch.device) -> None:
    """The rate of a product that fills the chip, in bf16 and in fp32."""
    for name, size, dtype in (
        ("bf16 product, large", report.size(8192, 256), torch.bfloat16),
        ("fp32 product", report.size(4096, 256), torch.float32),
    ):
        first, second = (torch.randn(size, size, device=target, dtype=dtype) for _ in range(2))
        seconds = seconds_of(lambda _, a=first, b=second: a @ b, target, 5)
        confirm(report, name, 2 * size**3 / seconds / 1e12)


def copies(report: Report, target: torch.device) -> None:
    """On the device, and to it from page-locked and from pageable memory."""
    size = report.size(4 << 30, 1 << 20)
    source = torch.empty(size, dtype=torch.uint8, device=target)
    copy = torch.empty_like(source)
    seconds = seconds_of(lambda _, a=source, b=copy: b.copy_(a), target, 3)
    confirm(report, "device copy", 2 * size / seconds / 1e12)
    del source, copy
    batch = torch.empty(report.size(19_300_000, 19_300), dtype=torch.uint8)
    for name, host in (
        ("pinned copy", batch.pin_memory() if report.cuda else batch), ("pageable copy", batch),
    ):  # fmt: skip
        rates = []
        for _ in range(5):
            wait(target)
            start = time.perf_counter()
            host.to(target, non_blocking=True, copy=True)
            wait(target)
            rates.append(len(batch) / (time.perf_counter() - start))
        confirm(report, name, sorted(rates)[2] / 1e9)


def wait(target: torch.device) -> None:
    """Until the device has done all that it was given."""
    if target.type == "cuda":
        torch.cuda.synchronize()


def small_kernels(report: Report, target: torch.device) -> None:
    """Device time of a kernel on few bytes, and the gap to the next one in a graph."""
    value = torch.zeros(1024, device=target)
    period = 1e6 * seconds_of(lambda _: value.add_(1), target, 1000)
    report.figure("period of small kernels in a graph, us", period)
    if not report.cuda:
        return
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(100):
            value.add_(1)
        wait(target)
    kinds = torch.autograd.DeviceType.CUDA
    times = [e.time_range.elapsed_us() for e in profiler.events() if e.device_type == kinds]
    kernel = sorted(times)[len(times) // 2]
    confirm(report, "smallest kernel", kernel)
    confirm(report, "gap between kernels", max(0.0, period - kernel))


def memory_bound(report: Report, target: torch.device) -> None:
    """Bytes a second of the kernels that the step has most of, at its sizes."""
    rows = report.size(3_200, 32)
    wide = [torch.randn(rows, 2_560, device=target).bfloat16() for _ in range(SETS)]
    stream = [torch.randn(rows, 640, device=target) for _ in range(SETS)]
    out = torch.empty_like(stream[0])
    kinds: dict[str, tuple[Callable[[int], Tensor], int]] = {
        "gelu": (lambda n: functional.gelu(wide[n % SETS]), 2 * 2 * rows * 2_560),
        "layer norm": (lambda n: functional.layer_norm(stream[n % SETS], (640,)), 8 * rows * 640),
        "add": (lambda n: torch.add(stream[n % SETS], stream[-1], out=out), 12 * rows * 640),
        "cast": (lambda n: stream[n % SETS].bfloat16(), 6 * rows * 640),
    }
    whole, total = 0.0, 0
    for name, (run, size) in kinds.items():
        seconds = seconds_of(run, target)
        whole, total = whole + seconds, total + size
        report.figure(f"memory-bound: {name}, TB/s", size / seconds / 1e12)
    confirm(report, "memory-bound kernel", total / whole / 1e12)


def attention(report: Report, target: torch.device) -> None:
    """Forward and backward of the vision tower's attention."""
    shape = (report.size(64, 2), 10, 50, 64)
    dtype = torch.bfloat16 if report.cuda else torch.float32
    q, k, v = (torch.randn(shape, device=target, dtype=dtype, requires_grad=True) for _ in "qkv")
    gradient = torch.randn(shape, device=target, dtype=dtype)

    def run(_: int) -> object:
        out = functional.scaled_dot_product_attention(q, k, v)
        return torch.autograd.grad(out, (q, k, v), gradient)

    flops = 7 * 2 * shape[0] * shape[1] * shape[2] ** 2 * shape[3]
    confirm(report, "attention", flops / seconds_of(run, target) / 1e12)


def step_products(report: Report, target: torch.device) -> None:
    """Every product of the counted step at its own size, times how often it occurs."""
    operations, _ = estimate.count_step()
    measured = 0.0
    dtype = torch.bfloat16 if report.cuda else torch.float32
    shapes = [(p, count) for p, count in estimate.distinct_products(operations) if p.half]
    for product, count in itertools.islice(shapes, report.size(len(shapes), 2)):
        m, n, k = product.m, product.n, product.k
        if report.small:
            m, n, k = m // 16, n // 16, k // 16
        first = torch.randn(product.batch, m, k, device=target, dtype=dtype)
        second = torch.randn(product.batch, n, k, device=target, dtype=dtype)
        if product.batch == 1:
            first, second = first[0], second[0]
        seconds = seconds_of(lambda _, a=first, b=second: a @ b.mT, target)
        measured += 1e3 * count * seconds
        expected = estimate.product_seconds(product)
        report.figure(f"{m} x {n} x {k}, us", seconds * 1e6,
                      f"{count} a step; {expected * 1e6:.1f} estimated")  # fmt: skip
    low, _, high = estimate.span("bf16 products of this step", operations)
    confirm(report, "bf16 products of this step", measured, low, high)
