"""MLflow in an SQLite file; its folders of files exist no more."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from workbench.trackers.run_log import RunLog

TAG: Final = "workbench.run"
BATCH: Final = 1000
"""Metrics that MLflow takes at once."""


def write(log: RunLog, target: Path) -> Path:
    """A run in `target/mlflow.db`, in place of an earlier one with the same tag."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    target.mkdir(parents=True, exist_ok=True)
    database = target / "mlflow.db"
    client = MlflowClient(f"sqlite:///{database.resolve()}")
    existing = client.get_experiment_by_name(log.project)
    experiment = existing.experiment_id if existing else client.create_experiment(log.project)
    for earlier in client.search_runs([experiment], f"tags.`{TAG}` = '{log.name}'"):
        client.delete_run(earlier.info.run_id)
    run_id = client.create_run(experiment, run_name=log.title).info.run_id
    params = [Param(_key(name), str(value)[:6000]) for name, value in log.params.items()]
    client.log_batch(run_id, params=params, tags=[RunTag(TAG, log.name)])
    last = log.scalars[-1] if log.scalars else None
    metrics = [Metric(_key(s.name), s.value, int(s.wall * 1000), s.step) for s in log.scalars]
    at, step = (int(last.wall * 1000), last.step) if last else (0, 0)
    metrics += [Metric(_key(name), value, at, step) for name, value in log.metrics.items()]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
    client.set_terminated(run_id)
    return database


def _key(name: str) -> str:
    """MLflow's keys have no `@`, `[` and the like."""
    return "".join(c if c.isalnum() or c in "_-./ :" else "_" for c in name)[:250]
