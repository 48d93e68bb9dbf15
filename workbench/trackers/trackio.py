"""Trackio in an SQLite file for each project: `TRACKIO_DIR=FOLDER trackio show` shows it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from workbench.trackers.run_log import RunLog, Scalar


def write(log: RunLog, target: Path) -> Path:
    """A run in the project's database in `target`, in place of an earlier one of its name."""
    os.environ["TRACKIO_DIR"] = str(target.absolute())  # read when trackio is imported
    from trackio.sqlite_storage import SQLiteStorage

    target.mkdir(parents=True, exist_ok=True)
    SQLiteStorage.delete_run(log.project, log.title, run_id=log.name)
    training, system = ([s for s in log.scalars if s.name.startswith("system/") == is_system]
                        for is_system in (False, True))  # fmt: skip
    last = log.scalars[-1] if log.scalars else Scalar("", 0.0, 0, 0.0)
    finals = [Scalar(f"final/{name}", value, last.step, last.wall)
              for name, value in log.metrics.items()]  # fmt: skip
    rows = _join([*training, *finals])
    SQLiteStorage.bulk_log(
        log.project, log.title, list(rows.values()), steps=[step for step, _ in rows],
        timestamps=[_format_time(wall) for _, wall in rows], config=dict(log.params),
        run_id=log.name,
    )  # fmt: skip
    rows = _join(system)
    SQLiteStorage.bulk_log_system(
        log.project, log.title, list(rows.values()),
        timestamps=[_format_time(wall) for _, wall in rows], run_id=log.name,
    )  # fmt: skip
    return Path(SQLiteStorage.get_project_db_path(log.project))


def _join(scalars: list[Scalar]) -> dict[tuple[int, float], dict[str, float]]:
    """Values of the same step and time as one row."""
    rows: dict[tuple[int, float], dict[str, float]] = {}
    for scalar in scalars:
        rows.setdefault((scalar.step, scalar.wall), {})[scalar.name] = scalar.value
    return rows


def _format_time(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat()
