"""Folds in a plan: a setting `folds = k` becomes k runs, and the ensemble that needs them all.

Apart from the plan, which knows products of names; here runs depend on each other. A person who
wants one fold alone also gives the setting `fold`; nothing is spread then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from engines.protocol import RunSpec, Task

if TYPE_CHECKING:
    from results.records.schema import Identity

FOLDS: Final = "folds"
FOLD: Final = "fold"


def count(one: RunSpec, given: Mapping[str, Any]) -> int:
    """Into how many runs a run is spread; 0: it stays as it is.

    `given`: the settings that the plan, its overrides and the model's entry name.
    """
    folds = one.params.get(FOLDS, 0)
    if one.task not in ("train", "probe") or FOLD in given or FOLD not in one.params:
        return 0
    return folds if isinstance(folds, int) and folds > 1 else 0


def spread(
    one: RunSpec,
    given: Mapping[str, Any],
    tasks: tuple[Task, ...],
    run_id: Callable[[int, str], str],
) -> list[RunSpec]:
    """The runs of a cell: one a fold, then their ensemble where the engine has that task.

    A costing run stays one: folds cost the same. `run_id(place, part)` names the run at that place
    behind the first, with `part` at its end.
    """
    folds = count(one, given)
    if not folds or one.task == "probe":
        return [one]
    runs = [
        one.model_copy(
            update={"run_id": run_id(fold, f"f{fold + 1}"), "params": {**one.params, FOLD: fold}}
        )
        for fold in range(folds)
    ]
    if "ensemble" in tasks:
        update = {
            "run_id": run_id(folds, "ensemble"),
            "task": "ensemble",
            "needs": tuple(run.run_id for run in runs),
        }
        runs.append(one.model_copy(update=update))
    return runs


def words(spec: RunSpec | Identity) -> str:
    """What tells the runs of one cell apart: `fold 2/3`, `ensemble`; empty: it has one run."""
    if spec.task == "ensemble":
        return "ensemble"
    folds, fold = spec.params.get(FOLDS), spec.params.get(FOLD)
    if spec.task != "train" or not isinstance(folds, int) or not isinstance(fold, int):
        return ""
    return f"fold {fold + 1}/{folds}" if folds > 1 else ""
