"""What a tracker gets of a run: settings, series and final metrics, from its record and journal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from engines import messages, protocol
from results.records.schema import RunRecord
from workbench.suites.journal import Tail


class Scalar(NamedTuple):
    """One value of a series."""

    name: str
    """As HF Trainer and W&B have them: `train/loss`, `eval/recall@1`, `system/gpu.0.memory`."""
    value: float
    step: int
    """Optimizer step."""
    wall: float
    """Unix time."""


class RunLog(NamedTuple):
    """A run as trackers know it."""

    project: str
    """The engine."""
    name: str
    """`suite/run`: unique, so that a second export replaces the first."""
    title: str
    """The label, else the run's id."""
    params: dict[str, str | float]
    scalars: tuple[Scalar, ...]
    """Oldest first; of a resumed run each step once, by its last attempt."""
    metrics: dict[str, float]
    """Final metrics and costs."""

    @property
    def file_name(self) -> str:
        """The name without `/`."""
        return self.name.replace("/", "--")


def build_log(log_root: Path, record: RunRecord) -> RunLog:
    """The log of a completed run; one without a journal, such as an imported one, has no series."""
    identity = record.identity
    name = f"{identity.suite}/{identity.run_id}"
    journal = log_root / record.folder / "events.jsonl"
    entries = Tail(journal).read_all() if record.folder and journal.is_file() else []
    return RunLog(
        identity.engine, name, identity.label or identity.run_id, _params(record),
        tuple(_last_of_each_step(_scalars(entries))), _final_metrics(record),
    )  # fmt: skip


def _params(record: RunRecord) -> dict[str, str | float]:
    identity = record.identity
    fixed: dict[str, Any] = {
        "subset": identity.subset, "model": identity.model, "task": identity.task,
        "seed": identity.seed, "label": identity.label, "device": record.environment.device,
        "git_commit": record.environment.git_commit,
    }  # fmt: skip
    values = {**fixed, **identity.params}
    return {
        name: value if isinstance(value, int | float | str) else json.dumps(value)
        for name, value in values.items()
        if value not in (None, "")
    }


def _final_metrics(record: RunRecord) -> dict[str, float]:
    values = {f"eval/{metric.name}@{metric.split}": metric.value for metric in record.metrics}
    costs = {
        "cost/wall_seconds": record.timing.end_to_end_seconds,
        "cost/epoch_seconds": record.timing.epoch_wall_seconds,
        "cost/step_median_seconds": record.timing.step_median,
        "cost/samples_per_second": record.timing.samples_per_second,
        "cost/max_rss_bytes": record.memory.rss_main_peak,
        "cost/vram_process_bytes": record.memory.vram_process_peak,
        "cost/joules_per_sample": record.energy.per_sample,
        "cost/tokens_per_second": record.timing.tokens_per_second,
        "cost/model_flops_per_sample": record.timing.model_flops_per_sample,
        "cost/mfu": record.timing.mfu,
        "cost/hfu": record.timing.hfu,
    }
    return values | {name: r.value for name, r in costs.items() if r.value is not None}


def _scalars(entries: Iterable[protocol.Entry]) -> Iterator[Scalar]:
    step = 0
    for entry in entries:
        if isinstance(entry.msg, messages.Step):
            step = entry.msg.step
        for name, value in _values(entry.msg).items():
            if value is not None and math.isfinite(value):
                yield Scalar(name, float(value), step, entry.wall)


def _values(message: object) -> dict[str, float | None]:
    """The series that a message adds to."""
    match message:
        case messages.Step():
            values: dict[str, float | None] = {
                "train/loss": message.loss, "train/learning_rate": message.lr,
                "train/grad_norm": message.grad_norm, "train/epoch": message.epoch,
                "train/step_seconds": message.seconds / message.count if message.count else None,
            }  # fmt: skip
            return values | {f"train/{name}": value for name, value in message.metrics.items()}
        case messages.EpochSummary():
            return {f"eval/{name}": value for name, value in message.validation.items()}
        case messages.Sample():
            values = {"system/rss_bytes": message.rss_tree}
            values["system/cpu_percent"] = message.cpu_percent
            for gpu in message.gpus:
                prefix = f"system/gpu.{gpu.index}"
                values |= {f"{prefix}.memory": gpu.used, f"{prefix}.gpu": gpu.utilisation}
                values |= {f"{prefix}.power": gpu.power, f"{prefix}.temp": gpu.temperature}
            return values
        case _:
            return {}


def _last_of_each_step(scalars: Iterable[Scalar]) -> list[Scalar]:
    """Series of training with each step once: a resumed attempt repeats some."""
    last: dict[tuple[str, float], Scalar] = {}
    for scalar in scalars:
        is_system = scalar.name.startswith("system/")
        key = (scalar.name, scalar.wall if is_system else scalar.step)
        last.pop(key, None)
        last[key] = scalar
    return list(last.values())
