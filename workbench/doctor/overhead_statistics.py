"""Overhead of supervision as statistics: difference of step times with a bootstrap interval.

Also the file of the last result on this machine, which records and reports cite.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from workbench import paths
from workbench.telemetry import environment

RESAMPLES: Final = 2000
BLOCK_STEPS: Final = 10
"""Length of the blocks of the bootstrap, because neighbouring steps are not independent."""
MAX_SHARE: Final = 0.005
"""The promised limit of supervision, as a share of a core."""


@dataclass(frozen=True, slots=True)
class StepBlock:
    """Seconds of an engine's timed steps; if supervised, also CPU time of its warden meanwhile."""

    steps: tuple[float, ...]
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class OverheadResult:
    """The result, as stored in `overhead.json` of the cache."""

    difference_seconds: float
    """Median step supervised - median step alone; `low` and `high`: its 95 % interval."""
    low: float
    high: float
    step_seconds: float
    steps_per_arm: int
    cpu_share: float
    """CPU seconds of warden and sampler / wall seconds of the watched steps."""
    cpu: str
    gpus: int
    version: str
    measured_wall: float

    @property
    def share(self) -> float:
        """The difference as a share of a step."""
        return self.difference_seconds / self.step_seconds


def compute_overhead(
    watched: Sequence[StepBlock],
    alone: Sequence[StepBlock],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> OverheadResult:
    """Median difference with its 95 % bootstrap interval (over pairs, and blocks of ten steps)."""
    pairs = list(zip(watched, alone, strict=True))
    low, high = _bootstrap_interval(pairs, random.Random(seed), resamples)
    return OverheadResult(
        difference_seconds=_median_difference(pairs),
        low=low,
        high=high,
        step_seconds=statistics.median(s for block in alone for s in block.steps),
        steps_per_arm=sum(len(block.steps) for block in alone),
        cpu_share=sum(b.cpu_seconds for b in watched) / sum(b.wall_seconds for b in watched),
        cpu=environment.read_cpu_name(),
        gpus=len(list(Path("/proc/driver/nvidia/gpus").glob("*"))),
        version=environment.package_version("workbench-mm"),
        measured_wall=time.time(),
    )


def _median_difference(pairs: Sequence[tuple[StepBlock, StepBlock]]) -> float:
    """Median over pairs of (median supervised - median alone), which cancels slow drift."""
    return statistics.median(
        statistics.median(watched.steps) - statistics.median(alone.steps)
        for watched, alone in pairs
    )


def _bootstrap_interval(
    pairs: Sequence[tuple[StepBlock, StepBlock]], generator: random.Random, resamples: int
) -> tuple[float, float]:
    differences = []
    for _ in range(resamples):
        sample = [generator.choice(pairs) for _ in pairs]
        differences.append(
            _median_difference(
                [(_resample_block(a, generator), _resample_block(b, generator)) for a, b in sample]
            )
        )
    differences.sort()
    return differences[math.floor(0.025 * resamples)], differences[math.ceil(0.975 * resamples) - 1]


def _resample_block(block: StepBlock, generator: random.Random) -> StepBlock:
    steps: list[float] = []
    length = min(BLOCK_STEPS, len(block.steps))
    while len(steps) < len(block.steps):
        start = generator.randrange(len(block.steps) - length + 1)
        steps += block.steps[start : start + length]
    return StepBlock(tuple(steps[: len(block.steps)]))


def describe_result(cost: OverheadResult) -> str:
    """The result as a sentence."""
    low, high = (value / cost.step_seconds for value in (cost.low, cost.high))
    verdict = "within" if cost.cpu_share <= MAX_SHARE else "ABOVE"
    return (
        f"watching costs {cost.cpu_share:.2%} of a core ({verdict} the promised "
        f"{MAX_SHARE:.1%}); steps of {cost.step_seconds * 1e3:.1f} ms take {cost.share:+.2%} "
        f"[{low:+.2%}, {high:+.2%}] longer, {cost.steps_per_arm} steps with and without, in turn"
    )


def write_result(cost: OverheadResult, cache_root: Path) -> Path:
    """Write `overhead.json` atomically; returns its path."""
    paths.make_private(cache_root)
    path, fresh = cache_root / "overhead.json", cache_root / f".overhead.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(cost), indent=1) + "\n")
    fresh.replace(path)
    return path


def read_result(cache_root: Path) -> OverheadResult | None:
    """The last result on this machine; None: none can be read."""
    try:
        return OverheadResult(
            **json.loads((cache_root / "overhead.json").read_text(encoding="utf-8"))
        )
    except (OSError, ValueError, TypeError):
        return None
