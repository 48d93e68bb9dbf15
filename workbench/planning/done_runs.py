"""Runs that a log root has completed with the same settings, so that a new suite may keep them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.protocol import RunSpec
from engines.trained_weights import RUN_PREFIX
from results.records import store
from results.records.schema import RunRecord


def work_key(
    engine: str, task: str, subset: str, model: str, params: Mapping[str, Any], lot: tuple[int, int]
) -> str:
    """Equal for equal work: engine, task, subset, model, all settings, seed and repeat (`lot`)."""
    content = [engine, task, subset, model, params, lot]
    return json.dumps(content, sort_keys=True, default=str)


def spec_key(spec: RunSpec) -> str:
    """`work_key` of a run that is planned."""
    lot = (spec.seed, spec.repeat)
    return work_key(spec.engine, spec.task, spec.subset, spec.model, spec.params, lot)


def uses_own_model(spec: RunSpec) -> bool:
    """Whether its model is trained by a run of its own suite: `run:01-…` of another suite has the
    same name and other weights. The ensemble of folds is no such run: its settings are theirs."""
    return spec.model.startswith(RUN_PREFIX) and "/" not in spec.model


def collect_needed(specs: Sequence[RunSpec], done: Collection[str]) -> set[str]:
    """Ids of the runs whose folders others will read: those that are not `done` themselves, or are
    needed in their turn."""
    needed: set[str] = set()
    for spec in reversed(specs):  # a run needs earlier ones
        if spec.run_id not in done or spec.run_id in needed:
            needed.update(spec.needs)
    return needed


def find_done_runs(specs: Sequence[RunSpec], log_root: Path) -> dict[str, RunRecord]:
    """Run id -> record of an earlier run that did the same work and completed.

    A run that a later one needs, which is not done, is left out: that one reads its folder. So are
    cost probes, trials and runs of a model that their own suite trains.

    Raises:
        NewerSchemaError, OSError: results.jsonl cannot be read.
    """
    keys = {
        spec_key(spec): spec.run_id
        for spec in specs
        if not (spec.probe or spec.trial or uses_own_model(spec))
    }
    done = {}
    for record in store.last_attempts(store.read_records(log_root / "results.jsonl")):
        identity = record.identity
        lot = (identity.seed, identity.repeat)
        key = work_key(
            identity.engine, identity.task, identity.subset, identity.model, identity.params, lot
        )
        if (run_id := keys.get(key)) and record.exit.cause == "completed":
            done[run_id] = record
    needed = collect_needed(specs, done)
    return {run_id: record for run_id, record in done.items() if run_id not in needed}
