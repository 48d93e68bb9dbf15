"""Trained models of a log root as a list to choose from, the latest suites first."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engines import catalog, model_catalog, trained_weights
from engines.protocol import RunSpec
from engines.trained_weights import RUN_PREFIX, NoCheckpointError, TrainedWeights
from results.records.migrations import migrate
from results.records.schema import MetricRecord, RunRecord
from results.text.metric_names import headline_metric
from results.text.sanitize import clean_line
from workbench.planning import trained_models
from workbench.planning.trained_models import LoggedRun


class TrainedRun(NamedTuple):
    """A run that left trained weights."""

    name: str
    """`run:LABEL`, else `run:ID`, else `run:SUITE/ID`: the first that means this run alone."""
    engine: str
    subset: str
    """That it was trained on."""
    base_model: str
    suite: str
    metric: MetricRecord | None = None
    """The main one of its record; None: it has none."""
    settings: Mapping[str, Any] = {}
    """Defaults of its base, and the settings that it brings along."""
    problem: str = ""
    """Why it cannot be used here; empty: it can."""

    @property
    def summary(self) -> str:
        """`trained on emoji_train · recall@1 0.670 on emoji_val · base clip-nano · SUITE`."""
        metric = self.metric
        score = f"{metric.name} {metric.value:.3f} on {metric.split}" if metric else "no metric"
        parts = (f"trained on {self.subset}", score, f"base {self.base_model}", self.suite)
        return clean_line(" · ".join(parts))


def list_trained_runs(log_root: Path) -> list[TrainedRun]:
    """Every run of a log root that left trained weights; files that cannot be read are left out."""
    logged = [run for run in trained_models.list_runs(log_root)
              if trained_weights.find_checkpoint(run.folder)]  # fmt: skip
    names = Counter(name for run in logged for name in {run.label, run.run_id})
    trained = []
    for run in logged:
        spec = trained_weights.read_spec(run.folder)
        if spec is not None and spec.engine in catalog.names():
            trained.append(_describe(run, _shortest_name(run, names), spec))
    return trained


def _shortest_name(run: LoggedRun, names: Mapping[str, int]) -> str:
    for name in (run.label, run.run_id):
        if name and names[name] == 1 and "/" not in name and clean_line(name) == name:
            return f"{RUN_PREFIX}{name}"
    return f"{RUN_PREFIX}{run.name}"


def _describe(run: LoggedRun, name: str, spec: RunSpec) -> TrainedRun:
    entry = TrainedRun(
        name, spec.engine, spec.subset, spec.base_model or spec.model,
        run.folder.parent.parent.name, _read_main_metric(run.folder),
    )  # fmt: skip
    try:
        trained = TrainedWeights.read(run.folder, name)
        base = model_catalog.find_base_entry(trained)
    except NoCheckpointError as error:
        return entry._replace(problem=str(error))
    except (LookupError, ValueError) as error:  # the base is not here
        return entry._replace(problem=str(error.args[0] if error.args else error))
    shape = trained.architecture_params(catalog.load(spec.engine).ARCHITECTURE_PARAMS)
    return entry._replace(settings={**base.settings, **shape})


def _read_main_metric(folder: Path) -> MetricRecord | None:
    """The main metric of a run's record, of whatever version this reads."""
    try:
        stored = json.loads((folder / "summary.json").read_bytes())
        record = RunRecord.model_validate(migrate(stored))
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        return None
    return headline_metric(record.metrics)
