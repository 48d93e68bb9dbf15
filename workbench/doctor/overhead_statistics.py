"""What watching costs, as a number: from blocks of steps to a difference with its interval. Pure.

And where the last result on this machine is kept, so that a record or a report can cite it.
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
"""Neighbouring steps are not independent: they are drawn again in runs of ten."""
LIMIT_SHARE: Final = 0.005
"""What watching may cost at most."""


@dataclass(frozen=True, slots=True)
class Block:
    """One engine's timed steps; of a watched one also what its warden used meanwhile."""

    steps: tuple[float, ...]
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """The result, as it is kept in `overhead.json` of the cache."""

    difference_seconds: float
    """Median step watched - median step alone."""
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


def cost_of(
    watched: Sequence[Block], alone: Sequence[Block], seed: int = 0, resamples: int = RESAMPLES
) -> Cost:
    """Median difference with its 95 % bootstrap interval (over pairs, and runs of ten steps)."""
    pairs = list(zip(watched, alone, strict=True))
    low, high = _interval(pairs, random.Random(seed), resamples)
    return Cost(
        difference_seconds=_difference(pairs),
        low=low,
        high=high,
        step_seconds=statistics.median(s for block in alone for s in block.steps),
        steps_per_arm=sum(len(block.steps) for block in alone),
        cpu_share=sum(b.cpu_seconds for b in watched) / sum(b.wall_seconds for b in watched),
        cpu=environment.cpu_name(),
        gpus=len(list(Path("/proc/driver/nvidia/gpus").glob("*"))),
        version=environment.version("workbench-mm"),
        measured_wall=time.time(),
    )


def _difference(pairs: Sequence[tuple[Block, Block]]) -> float:
    """Median over pairs of (median watched - median alone): what drifts is in both of a pair."""
    return statistics.median(
        statistics.median(one.steps) - statistics.median(two.steps) for one, two in pairs
    )


def _interval(
    pairs: Sequence[tuple[Block, Block]], chance: random.Random, resamples: int
) -> tuple[float, float]:
    drawn = []
    for _ in range(resamples):
        again = [chance.choice(pairs) for _ in pairs]
        drawn.append(_difference([(_again(a, chance), _again(b, chance)) for a, b in again]))
    drawn.sort()
    return drawn[math.floor(0.025 * resamples)], drawn[math.ceil(0.975 * resamples) - 1]


def _again(block: Block, chance: random.Random) -> Block:
    steps: list[float] = []
    length = min(BLOCK_STEPS, len(block.steps))
    while len(steps) < len(block.steps):
        start = chance.randrange(len(block.steps) - length + 1)
        steps += block.steps[start : start + length]
    return Block(tuple(steps[: len(block.steps)]))


def sentence(cost: Cost) -> str:
    """The result for a person."""
    low, high = (value / cost.step_seconds for value in (cost.low, cost.high))
    verdict = "within" if cost.cpu_share <= LIMIT_SHARE else "ABOVE"
    return (
        f"watching costs {cost.cpu_share:.2%} of a core ({verdict} the promised "
        f"{LIMIT_SHARE:.1%}); steps of {cost.step_seconds * 1e3:.1f} ms take {cost.share:+.2%} "
        f"[{low:+.2%}, {high:+.2%}] longer, {cost.steps_per_arm} steps with and without, in turn"
    )


def keep(cost: Cost, cache_root: Path) -> Path:
    """Write `overhead.json`, whole or not at all."""
    paths.make_private(cache_root)
    path, fresh = cache_root / "overhead.json", cache_root / f".overhead.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(cost), indent=1) + "\n")
    fresh.replace(path)
    return path


def kept(cache_root: Path) -> Cost | None:
    """The last result on this machine, or None."""
    try:
        return Cost(**json.loads((cache_root / "overhead.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
