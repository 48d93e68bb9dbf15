"""The trained models of a log root as a list to choose from, the latest suites first.

Apart from `trained_models`, which finds the one that a name means; here every run that left weights
gets a name, and what a person chooses by: engine, subset and main metric.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engines import catalog, model_catalog, trained_weights
from engines.protocol import RunSpec
from engines.trained_weights import RUN, NoCheckpointError, Trained
from results.records.migrations import upgrade
from results.records.schema import Metric, RunRecord
from results.text.sanitize import clean_line
from workbench.planning import trained_models
from workbench.planning.trained_models import KnownRun
from workbench.suites import run_summary


class TrainedRun(NamedTuple):
    """A run that left trained weights."""

    name: str
    """`run:LABEL`, else `run:ID`, else `run:SUITE/ID`: the first that means this run alone."""
    engine: str
    subset: str
    """That it was trained on."""
    base_model: str
    suite: str
    metric: Metric | None = None
    """The main one of its record; None: it has none."""
    settings: Mapping[str, Any] = {}
    """Defaults of its base, and the settings that it brings along."""
    problem: str = ""
    """Why it cannot be used here; empty: it can."""


def listed(log_root: Path) -> list[TrainedRun]:
    """Every run of a log root that left trained weights; files that cannot be read are left out."""
    kept = [run for run in trained_models.runs(log_root)
            if trained_weights.checkpoint_folder(run.folder)]  # fmt: skip
    words = Counter(word for run in kept for word in {run.label, run.run_id})
    found = []
    for run in kept:
        spec = trained_weights.read_spec(run.folder)
        if spec is not None and spec.engine in catalog.names():
            found.append(_entry(run, _name(run, words), spec))
    return found


def _name(run: KnownRun, words: Mapping[str, int]) -> str:
    for word in (run.label, run.run_id):
        if word and words[word] == 1 and "/" not in word and clean_line(word) == word:
            return f"{RUN}{word}"
    return f"{RUN}{run.name}"


def _entry(run: KnownRun, name: str, spec: RunSpec) -> TrainedRun:
    entry = TrainedRun(
        name, spec.engine, spec.subset, spec.base_model or spec.model,
        run.folder.parent.parent.name, _metric(run.folder),
    )  # fmt: skip
    try:
        trained = Trained.read(run.folder, name)
        base = model_catalog.base_entry(trained)
    except NoCheckpointError as error:
        return entry._replace(problem=str(error))
    except (LookupError, ValueError) as error:  # the base is not here
        return entry._replace(problem=str(error.args[0] if error.args else error))
    shape = trained.shape(catalog.load(spec.engine).SHAPING)
    return entry._replace(settings={**base.settings, **shape})


def _metric(folder: Path) -> Metric | None:
    """The main metric of a run's record, of whatever version this reads."""
    try:
        stored = json.loads((folder / "summary.json").read_bytes())
        record = RunRecord.model_validate(upgrade(stored))
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        return None
    return run_summary.headline(record.metrics)
