"""Costing runs in a plan: what was asked, whether it can be, and what the engine is told.

The engine is also told how much this machine wanders, which no probe of some seconds can see: the
log root knows how far earlier forecasts were off.

Apart from the plan, which has fields for every kind of run; the rules of this one are its own.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from engines.protocol import Probe, RunSpec, Task
from results.records import cost_forecasts, query, store
from results.records.schema import RunRecord
from workbench.processes import gpu_selection


def _as_share(value: Any) -> Any:
    """`±2%`, `2 %` and 0.02 as 0.02; anything else is left for the check that follows."""
    if not isinstance(value, str):
        return value
    plain = value.strip().removeprefix("±").removeprefix("+-").strip()
    try:
        number = float(plain.removesuffix("%"))
    except ValueError:
        return value
    return number / 100 if plain.endswith("%") else number


def _is_share(value: Any) -> float:
    number = _as_share(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 1:
        raise ValueError("a share between 0 and 1 is wanted, such as ±2% or 0.02")
    return float(number)


Share = Annotated[float, BeforeValidator(_is_share), WithJsonSchema({"type": "string"})]
"""A part of one; people may write it as `±2%`."""

Steps = Annotated[int, Field(ge=1, le=1_000_000)]


def trains(tasks: Sequence[Task]) -> bool:
    """Whether an engine of these tasks can make costing runs."""
    return "train" in tasks and "probe" in tasks


def problem(steps: int | None, until: float | None, task: Task, tasks: Sequence[Task]) -> str:
    """Why an engine of these `tasks` cannot do what was asked; empty: it can."""
    if steps is None and until is None:
        return ""
    if not trains(tasks):
        return "cost_probe: this engine trains nothing, so there is no epoch to forecast"
    if steps is None and task != "probe":
        return "until: only a costing run stops early; give cost_probe (--cost-probe) too"
    if task not in ("train", "probe"):
        return (
            f"cost_probe: task '{task}' trains nothing, so there is no epoch to forecast; "
            "leave out the task or --cost-probe"
        )
    return ""


def probe(
    steps: int | None, until: float | None, task: Task, tasks: Sequence[Task]
) -> Probe | None:
    """What the engine is told; None for every other kind of run."""
    if not trains(tasks) or (steps is None and task != "probe"):
        return None
    asked = {} if steps is None else {"steps": steps}
    return Probe(**asked, until=until)


def calibrated(specs: Sequence[RunSpec], log_root: Path) -> list[RunSpec]:
    """The specs, their costing runs told what the forecasts of this log root have missed so far.

    Without three forecasts that were tested on this machine they stay as they are, and the engine
    assumes the usual for its device.
    """
    if not any(spec.probe for spec in specs):
        return list(specs)
    try:
        records = query.last_attempts(store.read(log_root / "results.jsonl").all())
    except (OSError, store.NewerSchema):
        records = []
    return [_told(spec, records) if spec.probe else spec for spec in specs]


def _told(spec: RunSpec, records: Sequence[RunRecord]) -> RunSpec:
    gpu = gpu_selection.sees_gpu(spec.devices, os.environ, cpu=spec.cpu)
    found = cost_forecasts.wander(records, platform.node(), gpu=gpu)
    if found is None or spec.probe is None:
        return spec
    known = {
        "unseen": found.share,
        "unseen_from": f"for what {found.count} earlier forecasts here missed",
    }
    return spec.model_copy(update={"probe": spec.probe.model_copy(update=known)})
