"""Cross-validation folds in a plan: `folds = k` becomes k runs and the ensemble that needs them.

With the setting `fold` as well, one run of that fold is made and nothing is expanded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from engines.protocol import RunSpec, Task

FOLDS: Final = "folds"
FOLD: Final = "fold"


def count_folds(spec: RunSpec, settings: Mapping[str, Any]) -> int:
    """The number of folds that a run is expanded into; 0: it stays one run.

    `settings`: the settings that the plan, its overrides and the model's entry name.
    """
    folds = spec.params.get(FOLDS, 0)
    if spec.task not in ("train", "probe") or FOLD in settings or FOLD not in spec.params:
        return 0
    return folds if isinstance(folds, int) and folds > 1 else 0


def expand_folds(
    spec: RunSpec,
    settings: Mapping[str, Any],
    tasks: tuple[Task, ...],
    run_id: Callable[[int, str], str],
) -> list[RunSpec]:
    """The runs of a cell: one for each fold, then their ensemble if the engine has that task.

    A cost probe stays one run, since all folds cost the same. `run_id(offset, part)` makes the id
    of the run at that offset from the first, with `part` at its end.
    """
    folds = count_folds(spec, settings)
    if not folds or spec.task == "probe":
        return [spec]
    runs = [
        spec.model_copy(
            update={"run_id": run_id(fold, f"f{fold + 1}"), "params": {**spec.params, FOLD: fold}}
        )
        for fold in range(folds)
    ]
    if "ensemble" in tasks:
        update = {
            "run_id": run_id(folds, "ensemble"),
            "task": "ensemble",
            "needs": tuple(run.run_id for run in runs),
        }
        runs.append(spec.model_copy(update=update))
    return runs


class PlannedTask(Protocol):
    """Task and settings of a run: a spec, the identity of a record, or its summary."""

    @property
    def task(self) -> str:
        """`train`, `ensemble`, …"""

    @property
    def params(self) -> Mapping[str, Any]:
        """Settings."""


def fold_label(spec: PlannedTask) -> str:
    """The label that distinguishes runs of one cell: `fold 2/3`, `ensemble`; empty: one run."""
    if spec.task == "ensemble":
        return "ensemble"
    folds, fold = spec.params.get(FOLDS), spec.params.get(FOLD)
    if spec.task != "train" or not isinstance(folds, int) or not isinstance(fold, int):
        return ""
    return f"fold {fold + 1}/{folds}" if folds > 1 else ""
