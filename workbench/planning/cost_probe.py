"""Cost probes in a plan: checks of its keys, and the `Probe` of a run's spec.

The spec also carries this machine's variation between runs, which a probe of some seconds cannot
measure: it comes from the errors of earlier forecasts in the log root.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from engines.protocol import Probe, RunSpec, Task
from results.records import cost_forecasts, store
from results.records.schema import RunRecord
from workbench.processes import gpu_selection


def _parse_share(value: Any) -> Any:
    """`±2%`, `2 %` and 0.02 as 0.02; any other value is returned as it is."""
    if not isinstance(value, str):
        return value
    plain = value.strip().removeprefix("±").removeprefix("+-").strip()
    try:
        number = float(plain.removesuffix("%"))
    except ValueError:
        return value
    return number / 100 if plain.endswith("%") else number


def _validate_share(value: Any) -> float:
    number = _parse_share(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 1:
        raise ValueError("a share between 0 and 1 is wanted, such as 2% or 0.02")
    return float(number)


Share = Annotated[float, BeforeValidator(_validate_share), WithJsonSchema({"type": "string"})]
"""A number between 0 and 1; may be written as `2%` or `±2%`."""

StepCount = Annotated[int, Field(ge=1, le=1_000_000)]


def supports_cost_probe(tasks: Sequence[Task]) -> bool:
    """Whether an engine with these tasks can run a cost probe."""
    return "train" in tasks and "probe" in tasks


def find_problem(
    steps: int | None, max_uncertainty: float | None, task: Task, tasks: Sequence[Task]
) -> str:
    """Why `cost_probe` (steps) or `max_uncertainty` does not fit task or engine; empty: it does."""
    if steps is None and max_uncertainty is None:
        return ""
    if not supports_cost_probe(tasks):
        return "cost_probe: this engine trains nothing, so there is no epoch to forecast"
    if steps is None and task != "probe":
        return "max_uncertainty: only a cost probe stops early; give cost_probe (--cost-probe) too"
    if task not in ("train", "probe"):
        return (
            f"cost_probe: task '{task}' trains nothing, so there is no epoch to forecast; "
            "leave out the task or --cost-probe"
        )
    return ""


def build_probe(
    steps: int | None, max_uncertainty: float | None, task: Task, tasks: Sequence[Task]
) -> Probe | None:
    """The probe of a run's spec; None: the run is no cost probe."""
    if not supports_cost_probe(tasks) or (steps is None and task != "probe"):
        return None
    options = {} if steps is None else {"steps": steps}
    return Probe(**options, max_uncertainty=max_uncertainty)


def calibrate_probes(specs: Sequence[RunSpec], log_root: Path) -> list[RunSpec]:
    """The specs, with the measured error of earlier forecasts in the probes among them.

    With fewer than three forecasts that were tested on this machine the specs stay as they are, and
    the engine assumes a default for its device.
    """
    if not any(spec.probe for spec in specs):
        return list(specs)
    try:
        records = store.last_attempts(store.read_records(log_root / "results.jsonl").all())
    except (OSError, store.NewerSchemaError):
        records = []
    return [_calibrate_spec(spec, records) if spec.probe else spec for spec in specs]


def _calibrate_spec(spec: RunSpec, records: Sequence[RunRecord]) -> RunSpec:
    gpu = gpu_selection.sees_gpu(spec.devices, os.environ, cpu=spec.cpu)
    variation = cost_forecasts.estimate_speed_variation(records, platform.node(), gpu=gpu)
    if variation is None or spec.probe is None:
        return spec
    update = {
        "unseen": variation.share,
        "unseen_from": f"for what {variation.count} earlier forecasts here missed",
    }
    return spec.model_copy(update={"probe": spec.probe.model_copy(update=update)})
