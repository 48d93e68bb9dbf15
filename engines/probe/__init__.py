"""Probe engine (synthetic): times a fixed computation of the standard library. No torch, no data.

Measures the speed and steadiness of one core of the machine, and is the smallest complete engine.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from engines import messages
from engines.emitter import Emitter
from engines.messages import PhaseName
from engines.protocol import RunSpec, Task

SUMMARY: Final = "A machine probe: times a fixed stdlib computation"
TASKS: Final[tuple[Task, ...]] = ("probe",)
RANK_TASKS: Final[tuple[Task, ...]] = ()
NEEDS: Final[tuple[str, ...]] = ()
FORM: Final = ""
OOM_SETTINGS: Final[Mapping[PhaseName, str]] = {}
ARCHITECTURE_PARAMS: Final[tuple[str, ...]] = ()

BLOCK_BYTES: Final = 1 << 20
"""Hashed once a round. 1 MiB outlives the first-level caches and takes about a millisecond."""


class Params(BaseModel):
    """Settings of the probe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(20, ge=1, le=1_000_000, description="Timed steps")
    rounds: int = Field(8, ge=1, le=100_000, description="SHA-256 rounds of 1 MiB in a step")
    warmup_steps: int = Field(2, ge=0, description="Steps at the start left out of the timing")
    delay_seconds: float = Field(
        0.0, ge=0, le=3600, description="Idle seconds after each step, outside the timing"
    )


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:  # noqa: ARG001 - same for all engines
    """Hash a fixed block, step by step, and report the durations."""
    params = Params.model_validate(spec.params)
    total = params.steps + params.warmup_steps
    emit.send(
        messages.Plan(
            steps=total,
            samples=total * params.rounds,
            warmup_steps=params.warmup_steps,
            effective_batch=params.rounds,
            micro_batch=params.rounds,
        )
    )
    emit.phase("train")
    durations: list[float] = []
    first: float | None = None
    for step in range(1, total + 1):
        emit.check_stop()
        seconds = _step(params.rounds)
        first = emit.now() if first is None else first
        warmup = step <= params.warmup_steps
        if not warmup:
            durations.append(seconds)
        emit.send(_window(step, params.rounds, seconds, warmup=warmup, share=step / total))
        time.sleep(params.delay_seconds)
    _report(emit, params, durations, first)


def _step(rounds: int) -> float:
    block = bytes(BLOCK_BYTES)
    start = time.perf_counter()
    for _ in range(rounds):
        hashlib.sha256(block).digest()
    return time.perf_counter() - start


def _window(
    step: int, samples: int, seconds: float, *, warmup: bool, share: float
) -> messages.Step:
    return messages.Step(
        step=step,
        count=1,
        samples=samples,
        epoch=share,
        warmup=warmup,
        seconds=seconds,
        step_seconds=(seconds,),
        loss=math.exp(-share),  # a known curve: whoever draws or folds it can be checked
        lr=0.0,
    )


def _report(emit: Emitter, params: Params, durations: list[float], first: float | None) -> None:
    median = statistics.median(durations)
    emit.send(
        messages.Timing(
            time_to_first_step=first,
            epoch_wall_seconds=sum(durations),
            epoch_steps=len(durations),
            warmup_steps=params.warmup_steps,
            step_median=median,
            step_p95=sorted(durations)[min(len(durations) - 1, int(0.95 * len(durations)))],
            samples_per_second=params.rounds * len(durations) / sum(durations),
            samples_per_second_median=params.rounds / median,
            epoch_stall_seconds=0.0,
            data_stall_share=0.0,
            reasons=dict.fromkeys(("data_wait_share", "epoch_loss"), "the probe loads no data"),
        )
    )
    emit.send(
        messages.Metric(
            name="sha256_mib_per_second",
            value=params.rounds * len(durations) / sum(durations),
            split="machine",
            n=len(durations),
        )
    )
