"""Earlier runs and cost probes of a log root, as far as a plan's costs need them."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

TAIL_BYTES: Final = 16 << 20
"""Bytes read from the end of results.jsonl: about a thousand records."""
TRAINING: Final = ("train", "warmup")
"""Phases whose time grows with the steps."""


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """One completed run. Seconds and bytes; None: not measured."""

    suite: str
    engine: str
    subset: str
    model: str
    """The base of a trained model."""
    key: str
    """`done_runs.work_key` of its work."""
    task: str = "train"
    """What it did; of a cost probe what it forecasts."""
    params: Mapping[str, Any] = field(default_factory=dict)
    started_wall: float | None = None
    seconds: float | None = None
    """Of the whole process; of a cost probe, forecast up to the last training step. None also where
    it took several attempts: the last one did only what was left."""
    training_seconds: float | None = None
    """Of these, the seconds that grow with the steps."""
    steps: int = 0
    memory: int | None = None
    """Peak: of the run's VRAM, on a CPU of its process tree; None as of `seconds`."""
    on_gpu: bool = False
    """The memory is VRAM."""
    half_width: float | None = None
    """Of the interval of `seconds`, where a cost probe has forecast them."""
    is_forecast: bool = False
    """A cost probe: `seconds` have no evaluation and no saving in them."""
    disk: int = 0
    score: float | None = None
    metric: str = ""


class EarlierRuns:
    """Reader of the completed runs of a log root; reads again only what has changed."""

    def __init__(self, log_root: Path) -> None:
        self._path = log_root / "results.jsonl"
        self._mark: tuple[int, int] | None = None
        self._runs: tuple[EarlierRun, ...] = ()

    @property
    def runs(self) -> tuple[EarlierRun, ...]:
        """Those of the last `read`."""
        return self._runs

    def read(self) -> tuple[EarlierRun, ...]:
        """The completed runs of this machine, oldest first; none if the file cannot be read."""
        try:
            status = self._path.stat()
            mark = (status.st_size, status.st_mtime_ns)
            if mark != self._mark:
                self._runs, self._mark = tuple(_read_runs(self._path)), mark
        except OSError:
            self._runs, self._mark = (), None
        return self._runs


def _read_runs(path: Path) -> Iterator[EarlierRun]:
    from results.records.migrations import migrate

    here, shared = platform.node(), dict[str, Mapping[str, Any]]()
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        if size > TAIL_BYTES:
            file.readline()  # its begin is missing
        for line in file:
            if b'"completed"' not in line:
                continue
            try:
                record = migrate(json.loads(line))
                if record["environment"].get("hostname", "") == here:
                    yield _make_run(record, shared)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # a torn line, or one of a later version


def _make_run(record: Mapping[str, Any], shared: dict[str, Mapping[str, Any]]) -> EarlierRun:
    """`shared`: settings of the runs before, for those that have equal ones."""
    from workbench.planning import done_runs

    identity, timing, memory = record["identity"], record["timing"], record["memory"]
    if record["exit"]["cause"] != "completed":
        raise ValueError("no completed run")
    forecast = record.get("forecast") or {}
    run, start = (forecast.get(name) or {} for name in ("run_seconds", "start_seconds"))
    if forecast and (run.get("value") is None or start.get("value") is None):
        raise ValueError("no forecast")
    half = None if run.get("low") is None else (run["high"] - run["low"]) / 2
    engine, task, subset, model = (identity[n] for n in ("engine", "task", "subset", "model"))
    params = identity.get("params") or {}
    lot = (identity.get("seed", 42), identity.get("repeat", 0))
    phases = timing.get("phases") or {}
    vram = memory["vram_process_peak"].get("value") or memory["vram_device_peak"].get("value")
    peak = int(vram or memory["rss_tree_peak"].get("value") or 0) or None
    seconds = run["value"] if forecast else timing["end_to_end_seconds"].get("value")
    whole = identity.get("attempt", 1) == 1
    metrics = [m for m in record.get("metrics") or () if m["split"] != "train"]
    plain = [m for m in metrics if m["name"].lower() in ("recall@1", "accuracy")]
    metric: Mapping[str, Any] = next(iter(plain or metrics), {})
    return EarlierRun(
        suite=identity["suite"],
        engine=engine,
        subset=subset,
        model=identity.get("base_model") or model,
        task="train" if forecast else task,
        key=done_runs.work_key(engine, task, subset, model, params, lot),
        params=shared.setdefault(json.dumps(params), params),
        started_wall=record.get("started_wall"),
        seconds=seconds if whole else None,
        training_seconds=_training_seconds(run, start, phases),
        steps=(forecast.get("run_steps") if forecast else record.get("steps")) or 0,
        half_width=half,
        is_forecast=bool(forecast),
        on_gpu=bool(vram),
        memory=peak if whole else None,
        disk=sum(artifact.get("size", 0) for artifact in record.get("artifacts") or ()),
        score=metric.get("value"),
        metric=metric.get("name", ""),
    )


def _training_seconds(
    run: Mapping[str, Any], start: Mapping[str, Any], phases: Mapping[str, float]
) -> float | None:
    """Seconds that grow with the steps. `run`, `start`: readings of a forecast; empty: none."""
    if run:
        return max(0.0, float(run["value"]) - float(start["value"]))
    return sum(phases.get(name, 0.0) for name in TRAINING) if phases else None
