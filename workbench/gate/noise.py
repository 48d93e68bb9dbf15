"""Noise of a machine: how much two equal sides differ, kept until machine or versions change."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from datasets_mm.atomic_files import locked, write_atomic
from results.comparison.costs import COSTS
from results.comparison.groups import RunGroup
from results.records.schema import RunRecord

MOST_RATIOS: Final = 200
"""Kept for a cost; older ones are dropped."""
LIBRARIES: Final = ("torch", "transformers", "workbench-mm")


def noise_file(cache_root: Path, record: RunRecord) -> Path:
    """Where the noise of runs like `record` is kept: by hardware, driver, versions and settings."""
    identity, environment = record.identity, record.environment
    facts: dict[str, Any] = {
        "cpu": environment.cpu, "cores": environment.cores, "device": environment.device,
        "gpus": [[gpu.name, gpu.uuid] for gpu in environment.run_gpus],
        "driver": environment.driver,
        "versions": {name: environment.versions.get(name) for name in LIBRARIES},
        "run": [identity.engine, identity.task, identity.subset, identity.model, identity.params],
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    return cache_root / "gate" / f"{digest[:16]}.json"


def read_ratios(path: Path) -> dict[str, list[float]]:
    """Logs of the ratio of each pair of equal sides, by cost; empty: none were measured."""
    try:
        stored = json.loads(path.read_text("utf-8"))
        return {name: [float(value) for value in stored[name]] for name in COSTS if name in stored}
    except (OSError, ValueError, TypeError):
        return {}


def add_ratios(path: Path, a: RunGroup, b: RunGroup) -> dict[str, list[float]]:
    """Keep what pairs of equal sides differed by; returns all that are kept."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(path):
        ratios = read_ratios(path)
        for name in COSTS:
            added = _log_ratios(name, a.records, b.records)
            ratios[name] = (ratios.get(name, []) + added)[-MOST_RATIOS:]
        write_atomic(path, json.dumps(ratios) + "\n")
    return ratios


def _log_ratios(name: str, a: Sequence[RunRecord], b: Sequence[RunRecord]) -> list[float]:
    values = ((COSTS[name](x).value, COSTS[name](y).value) for x, y in zip(a, b, strict=True))
    return [math.log(second / first) for first, second in values if first and second]
