"""Estimate of a weekly training step and the oven epoch on an H200, from counted operations.

    python -m benchmarks.estimate [--write]

No GPU is asked. The step is recorded on fake tensors at its true sizes (`step_ops`), so the tables
follow the code; `--write` puts them into RESULTS.md. Every assumption is measured by the step
`assumptions` of benchmarks/gpu.sh under the same name, which confirms or refutes it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final
from unittest import mock

from benchmarks import step_budget, weekly
from benchmarks.step_count import forward_on_cuda
from benchmarks.step_ops import Operation, Product, fused, record

RESULTS: Final = Path(__file__).parent / "RESULTS.md"
MARKS: Final = ("<!-- estimate: python -m benchmarks.estimate --write -->", "<!-- end -->")
STEPS: Final = -(-weekly.OVEN // 64)
GOAL_SECONDS: Final = 60.0
MULTIPROCESSORS: Final = 132
TILES: Final = ((256, 128, 1.0), (128, 256, 1.0), (128, 128, 0.85), (128, 64, 0.65), (64, 64, 0.4))
"""Rows and columns of a product's tiles, and the share of the full rate that they reach."""
SPLITS: Final = (1, 2, 4, 8)
"""Ways to divide K among blocks, as cuBLAS does for few tiles."""
FARTHEST: Final = 8
HALVINGS: Final = 20
"""Largest factor of an assumption that `goal_value` looks at, and steps of its search."""


PRODUCTS_MS: Final = "bf16 products of this step"
"""The assumption that is itself a sum."""


@dataclass(frozen=True)
class Assumption:
    """A rate, where it comes from, and the range in which the epoch's estimate stays useful."""

    value: float
    unit: str
    basis: str
    low: float
    high: float


ASSUMPTIONS: Final = {
    "bf16 product, large": Assumption(
        780.0, "TFLOP/s", "8192 x 8192 x 8192 of random numbers, torch 2.11, one H200: 769 to 798",
        700, 830),
    PRODUCTS_MS: Assumption(
        0.0, "ms", "tiles over 132 multiprocessors at the rate above, 3 us a launch", 0, 0),
    "fp32 product": Assumption(
        50.0, "TFLOP/s", "67 by the data sheet (ieee); of the loss alone", 30, 67),
    "attention": Assumption(
        250.0, "TFLOP/s", "flash attention on short sequences: a third of a large product",
        100, 400),
    "device copy": Assumption(
        4.3, "TB/s", "8.6 GB in 2.0 ms, torch 2.11, one H200, bytes read and written", 3.8, 4.6),
    "memory-bound kernel": Assumption(
        3.0, "TB/s", "70 % of a copy; tensors of a few MB lie in the L2 cache and are faster",
        2.0, 5.0),
    "smallest kernel": Assumption(2.2, "us", "device time of a kernel on few bytes", 1.5, 3.5),
    "gap between kernels": Assumption(
        0.8, "us", "inside a CUDA graph; also where the host is ahead", 0.4, 1.5),
    "host, eager": Assumption(
        7.5, "us", "an operator with autograd and autocast: 118 ms of CPU time for 3,850 of them "
        "on a core 3 to 4 times slower", 5, 10),
    "host, compiled": Assumption(6.5, "us", "a launch out of inductor's code", 4, 9),
    "host, graph": Assumption(0.5, "ms", "replaying a step's graphs, and what is outside of them",
                              0.2, 1.0),
    "pinned copy": Assumption(50.0, "GB/s", "PCIe 5 x16, page-locked, in one piece", 35, 56),
    "pageable copy": Assumption(8.0, "GB/s", "through the driver's staging buffer", 4, 14),
}  # fmt: skip


def rate(name: str) -> float:
    """The value of an assumption."""
    return ASSUMPTIONS[name].value


# -- one operation -----------------------------------------------------------------------------


def product_seconds(product: Product, launch: float = 3e-6) -> float:
    """The best of all tile sizes and splits of K: whole waves of tiles over the chip."""
    peak = rate("bf16 product, large" if product.half else "fp32 product") * 1e12
    choices = []
    for rows, columns, share in TILES:
        tiles = math.ceil(product.m / rows) * math.ceil(product.n / columns) * product.batch
        for split in SPLITS:
            waves = math.ceil(tiles * split / MULTIPROCESSORS)
            depth = math.ceil(product.k / split)
            wave_seconds = 2 * rows * columns * depth / (peak / MULTIPROCESSORS * share)
            choices.append(waves * wave_seconds + (split > 1) * rate("smallest kernel") * 1e-6)
    size = 2 if product.half else 4
    values = product.m * product.k + product.k * product.n + product.m * product.n
    return launch + max(min(choices), size * product.batch * values / (rate("device copy") * 1e12))


def device_seconds(operation: Operation) -> float:
    """Of one operation on the device."""
    if operation.products:
        return sum(product_seconds(product) for product in operation.products)
    moved = operation.bytes / (rate("memory-bound kernel") * 1e12)
    computed = operation.attention_flops / (rate("attention") * 1e12)
    least = operation.launches * rate("smallest kernel") * 1e-6
    return max(moved, computed, least)


# -- one step ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """Milliseconds of a step."""

    name: str
    launches: int
    products: float
    attention: float
    memory: float
    gaps: float
    host: float
    copies: float
    """That nothing hides."""

    @property
    def device(self) -> float:
        """On the device."""
        return self.products + self.attention + self.memory + self.gaps

    @property
    def step(self) -> float:
        """The slower of host and device, and copies."""
        return max(self.device, self.host) + self.copies

    @property
    def epoch(self) -> float:
        """Seconds of the oven epoch."""
        return self.step * STEPS / 1e3


def sum_step(name: str, operations: Sequence[Operation], host: float, copies: float) -> Estimate:
    """The sums of a step; `host` and `copies` in milliseconds."""

    def seconds(chosen: Iterable[Operation]) -> float:
        return 1e3 * sum(map(device_seconds, chosen))

    launches = sum(operation.launches for operation in operations)
    return Estimate(
        name, launches,
        products=seconds(op for op in operations if op.products),
        attention=seconds(op for op in operations if op.attention_flops),
        memory=seconds(op for op in operations if not op.products and not op.attention_flops),
        gaps=launches * rate("gap between kernels") / 1e3,
        host=host, copies=copies,
    )  # fmt: skip


def estimate_step(operations: Sequence[Operation], copied: int) -> list[Estimate]:
    """A step of the preset as settings would change it. `copied`: bytes to the device in a step."""
    compiled = fused(list(operations))
    fewer = sum(op.launches for op in compiled)
    pageable = copied / rate("pageable copy") / 1e6
    autocast = count_step(mixed_precision="autocast")[0]
    return [
        sum_step("autocast, pageable copies", autocast, eager_host(autocast), pageable),
        sum_step("the preset, pageable copies", operations, eager_host(operations), pageable),
        sum_step("pinned, on a side stream", operations, eager_host(operations), 0.0),
        sum_step("compile, pinned", compiled, fewer * rate("host, compiled") / 1e3, 0.0),
        fastest_step(compiled),
    ]  # fmt: skip


def fastest_step(compiled: Sequence[Operation]) -> Estimate:
    """A step with all settings. `compiled`: what a compiler makes of its operations."""
    return sum_step("compile, CUDA graphs, pinned", compiled, rate("host, graph"), 0.0)


def eager_host(operations: Sequence[Operation]) -> float:
    """Milliseconds of the host without compilation."""
    return sum(op.launches for op in operations) * rate("host, eager") / 1e3


# -- tables ------------------------------------------------------------------------------------


def distinct_products(operations: Iterable[Operation]) -> list[tuple[Product, int]]:
    """All products of a step with their number, the longest in sum first."""
    counted = Counter(product for op in operations for product in op.products)
    return sorted(counted.items(), key=lambda item: -item[1] * product_seconds(item[0]))


def products_ms(operations: Iterable[Operation]) -> float:
    """Milliseconds of all 16-bit products of a step."""
    half = (p for op in operations for p in op.products if p.half)
    return 1e3 * sum(map(product_seconds, half))


def kinds_table(operations: Sequence[Operation]) -> list[str]:
    """Memory-bound operations by part and name, those that take longest in sum."""
    totals: dict[str, tuple[int, float, float]] = {}
    for op in operations:
        if not op.products and not op.attention_flops:
            name = f"{op.part}: {op.name.removeprefix('aten.')}"
            launches, size, took = totals.get(name, (0, 0.0, 0.0))
            more = 1e3 * device_seconds(op)
            totals[name] = (launches + op.launches, size + op.bytes / 1e9, took + more)
    slowest = sorted(totals.items(), key=lambda item: -item[1][2])[:10]
    lines = ["", "| memory-bound, eager | launches | GB | ms |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {n} | {size:.2f} | {took:.2f} |" for name, (n, size, took) in slowest]
    return lines


def span(name: str, operations: Sequence[Operation]) -> tuple[float, float, float]:
    """Lower end, value and upper end of an assumption."""
    assumption = ASSUMPTIONS[name]
    if name != PRODUCTS_MS:
        return assumption.low, assumption.value, assumption.high
    value = products_ms(operations)
    return 0.8 * value, value, 1.25 * value


def epoch_at(name: str, value: float, compiled: Sequence[Operation]) -> float:
    """Seconds of the epoch with all settings, were this assumption another."""
    if name == PRODUCTS_MS:
        fastest = fastest_step(compiled)
        more = value - products_ms(compiled)
        return replace(fastest, products=fastest.products + more).epoch
    with mock.patch.dict(ASSUMPTIONS, {name: replace(ASSUMPTIONS[name], value=value)}):
        return fastest_step(compiled).epoch


def goal_value(name: str, compiled: Sequence[Operation]) -> float | None:
    """Value of an assumption at which the epoch takes the goal's seconds, all others as they are.

    None: there is none within a factor of `FARTHEST`.
    """
    middle = span(name, compiled)[1]
    ends = [middle / FARTHEST, middle * FARTHEST]
    over, under = sorted(ends, key=lambda end: epoch_at(name, end, compiled), reverse=True)
    if not epoch_at(name, under, compiled) <= GOAL_SECONDS < epoch_at(name, over, compiled):
        return None
    for _ in range(HALVINGS):
        half = math.sqrt(over * under)
        if epoch_at(name, half, compiled) > GOAL_SECONDS:
            over = half
        else:
            under = half
    return under


def tables(operations: Sequence[Operation], copied: int) -> str:
    """Everything as Markdown."""
    flops = sum(p.flops for op in operations for p in op.products)
    attention = sum(op.attention_flops for op in operations)
    moved = sum(op.bytes for op in operations if not op.products and not op.attention_flops)
    lines = [
        f"{weekly.OVEN:,} pairs, batch 64: {STEPS:,} steps; {GOAL_SECONDS:.0f} s of epoch are "
        f"{1e3 * GOAL_SECONDS / STEPS:.1f} ms a step. Counted: {flops / 1e12:.2f} TFLOP in "
        f"products, {attention / 1e12:.3f} in attention, {moved / 1e9:.2f} GB through memory-bound "
        f"kernels, {copied / 1e6:.1f} MB copied to the device.", "",
        "| one setting more in each row; ms a step | launches | products | attention "
        "| memory-bound | gaps | device | host "
        "| copies | step | epoch, s |",
        "|---|" + "---:|" * 10,
    ]  # fmt: skip
    lines += [
        f"| {e.name} | {e.launches:,} | {e.products:.1f} | {e.attention:.1f} | {e.memory:.1f} "
        f"| {e.gaps:.1f} | {e.device:.1f} | {e.host:.1f} | {e.copies:.1f} | {e.step:.1f} "
        f"| {e.epoch:.0f} |"
        for e in estimate_step(operations, copied)
    ]
    lines += ["", "| product M x N x K | a step | us each | ms | of the full rate |",
              "|---|---:|---:|---:|---:|"]  # fmt: skip
    for product, count in distinct_products(operations)[:12]:
        seconds = product_seconds(product)
        share = product.flops / seconds / (rate("bf16 product, large") * 1e12)
        kind = "" if product.half else ", fp32"
        many = f"{product.batch} x " if product.batch > 1 else ""
        shape = f"{many}{product.m} x {product.n} x {product.k}{kind}"
        micro, milli = seconds * 1e6, count * seconds * 1e3
        lines.append(f"| {shape} | {count} | {micro:.1f} | {milli:.2f} | {share:.0%} |")
    lines += kinds_table(operations)
    return "\n".join([*lines, *assumptions_table(fused(list(operations)))]) + "\n"


def assumptions_table(compiled: Sequence[Operation]) -> list[str]:
    """The assumptions, and what each alone does to the epoch with all settings."""
    lines = [
        "", "| assumption | value | useful range | the last row's epoch at its ends, s "
        f"| {GOAL_SECONDS:.0f} s at | basis |", "|---|---:|---:|---:|---:|---|",
    ]  # fmt: skip
    for name, assumption in ASSUMPTIONS.items():
        low, value, high = span(name, compiled)
        ends = " and ".join(f"{epoch_at(name, end, compiled):.0f}" for end in (low, high))
        goal = goal_value(name, compiled)
        needed = "–" if goal is None else f"{goal:.4g}"
        lines.append(
            f"| {name} | {value:.3g} {assumption.unit} | {low:.3g} to {high:.3g} | {ends} "
            f"| {needed} | {assumption.basis} |"
        )
    return lines


@cache
def count_step(**settings: str) -> tuple[list[Operation], int]:
    """Operations of the weekly step, and the bytes that it copies to the device.

    `settings`: changes to the preset.
    """
    case = step_budget.retrieval(**settings)
    copied = sum(counts.bytes_to_device for counts in forward_on_cuda(case).values())
    return record(case), copied


def fill_results(text: str, tables_text: str) -> str:
    """RESULTS.md with the tables between their marks.

    Raises:
        ValueError: the marks are not there.
    """
    first, last = (text.index(mark) for mark in MARKS)
    return f"{text[: first + len(MARKS[0])]}\n\n{tables_text}\n{text[last:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    args = parser.parse_args()
    text = tables(*count_step())
    print(text)
    if args.write:
        RESULTS.write_text(fill_results(RESULTS.read_text("utf-8"), text), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
