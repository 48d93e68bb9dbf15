"""Resolution of model names in a plan, those of trained weights (`run:…`) above all.

`run:LABEL` and `run:ID` are looked up among the runs of the log root, once: the stored plan holds
`run:SUITE/ID`, which means the same weights later, and on another machine with a copy of the log
root.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engines import model_catalog, trained_weights
from engines.model_catalog import ModelEntry
from engines.protocol import RunSpec
from engines.trained_weights import RUN_PREFIX, NoCheckpointError, TrainedWeights

if TYPE_CHECKING:
    from workbench.planning.plan import SuitePlan

MAX_LISTED = 3
"""Runs that an error names when several match."""


class RunModel(NamedTuple):
    """A model as a run uses it: a catalog entry, or trained weights of an earlier run."""

    name: str
    base: ModelEntry | None = None
    """Of a trained model: the entry that its training started from."""
    shape: Mapping[str, Any] = {}
    """Architecture settings of the trained weights; a plan cannot change them."""
    engine: str = ""
    """The engine that trained it; empty: any engine may use it."""
    needs: tuple[str, ...] = ()
    """Ids of runs of the same suite that have to complete before."""
    variant: str = ""
    """Label of the variant that trained it, if the run is one."""

    @property
    def base_model(self) -> str:
        """Name of the base entry; empty: this is no trained model."""
        return self.base.name if self.base else ""

    @property
    def settings(self) -> dict[str, Any]:
        """Default settings of the base entry; the plan's own settings override them."""
        return dict(self.base.settings) if self.base else {}


class LoggedRun(NamedTuple):
    """A run in the log root: folder, id and label."""

    folder: Path
    run_id: str
    label: str

    @property
    def name(self) -> str:
        """The run asSUITE/ID."""
        return f"{self.folder.parent.parent.name}/{self.run_id}"

    def matches(self, reference: str) -> bool:
        """Whether a reference (ID, LABEL, SUITE/ID with a part of the suite) means this run."""
        suite, _, run = reference.rpartition("/")
        return run in (self.run_id, self.label) and suite in self.folder.parent.parent.name


def canonical_name(name: str, log_root: Path) -> str:
    """`run:SUITE/ID` for a trained model; any other name as it is.

    Raises:
        NoCheckpointError: no run matches, several do, or the run has no trained weights.
    """
    if not name.startswith(RUN_PREFIX):
        return name
    reference = name.removeprefix(RUN_PREFIX)
    matches = [run for run in list_runs(log_root) if run.matches(reference)]
    exact = [run for run in matches if run.name == reference] or matches
    trained = [run for run in exact if trained_weights.find_checkpoint(run.folder)]
    if len(trained) == 1:
        return f"{RUN_PREFIX}{trained[0].name}"
    if trained:
        names = ", ".join(run.name for run in trained[:MAX_LISTED])
        more = ", …" if len(trained) > MAX_LISTED else ""
        raise NoCheckpointError(
            f"model '{name}': fits {len(trained)} trained runs ({names}{more}); write run:SUITE/ID"
        )
    if exact:
        raise NoCheckpointError(
            f"model '{name}': {trained_weights.explain_absence(exact[0].folder)}"
        )
    raise NoCheckpointError(
        f"model '{name}': no run in {log_root} has this id or label; `workbench results list` "
        "names them"
    )


def resolve_names(plan: SuitePlan, log_root: Path) -> tuple[dict[str, Any], list[str]]:
    """The fields of a plan that name models, with canonical names; and their problems.

    Labels of the plan's own blocks stay: their runs do not exist yet. Where the plan names no
    engine, its fields are those with the engine of its models.
    """
    block_models = {f"{RUN_PREFIX}{block.label}" for block in plan.runs}
    problems: list[str] = []

    def resolve(name: str) -> str:
        try:
            return name if name in block_models else canonical_name(name, log_root)
        except NoCheckpointError as error:
            problems.append(str(error))
            return name

    blocks = [b.model_copy(update={"models": tuple(map(resolve, b.models))}) for b in plan.runs]
    overrides = [
        override.model_copy(update={"model": override.model and resolve(override.model)})
        for override in plan.overrides
    ]
    exclusions = [
        exclusion.model_copy(update={"model": exclusion.model and resolve(exclusion.model)})
        for exclusion in plan.exclusions
    ]
    update: dict[str, Any] = {
        "models": tuple(map(resolve, plan.models)), "runs": tuple(blocks),
        "overrides": tuple(overrides), "exclusions": tuple(exclusions),
    }  # fmt: skip
    if isinstance(plan.why, dict):
        update["why"] = {resolve(key): text for key, text in plan.why.items()}
    if "engines" not in plan.model_fields_set and not problems:
        update |= _infer_engines(plan.model_copy(update=update), log_root)
    return update, list(dict.fromkeys(problems))


def _infer_engines(plan: SuitePlan, log_root: Path) -> dict[str, Any]:
    """Fields of a plan that names no engine: the engines of its models, also for each block."""
    block_engines: dict[str, str] = {}
    blocks = []
    for block in plan.runs:
        names = block.models or plan.models
        stated = block.engines[0] if len(block.engines) == 1 else ""
        engine = stated or block_engines.get(names[0], "") or find_engine(names, log_root)
        block_engines[f"{RUN_PREFIX}{block.label}"] = engine
        engines = block.engines or ((engine,) if engine else ())
        blocks.append(block.model_copy(update={"engines": engines}))
    engine = "" if blocks else find_engine(plan.models, log_root)
    return {"runs": tuple(blocks), **({"engines": (engine,)} if engine else {})}


def find_engine(names: Sequence[str], log_root: Path) -> str:
    """The one engine of all these models; empty: an unknown model, or several engines.

    `names`: canonical. A trained model is for the engine that trained it.
    """
    engines: set[str] = set()
    for name in names:
        try:
            entry = model_catalog.load(name)
            trained = entry.family == "run"
            folder = trained_weights.locate(name, log_root) if trained else None
            engine = TrainedWeights.read(folder, name).engine if folder else ""
        except (LookupError, ValueError):
            return ""  # expansion reports the name
        engines |= {engine} if trained else set(entry.engines)
    return engines.pop() if len(engines) == 1 else ""


def resolve_model(name: str, engine: str, params: Mapping[str, Any], log_root: Path) -> RunModel:
    """A model by its name. `params`: settings of the plan; only `base_model` is read.

    Raises:
        NoCheckpointError: a run has no trained weights.
        LookupError: the base of a trained model is not known, or not here.
        ValueError: an entry's file is wrong.
    """
    entry = model_catalog.load(name)
    if entry.family != "run":
        return RunModel(name)
    trained = TrainedWeights.read(trained_weights.locate(name, log_root), name)
    base = model_catalog.find_base_entry(trained, str(params.get("base_model") or ""))
    return RunModel(
        name, base, trained.architecture_params(_architecture_params(engine)), trained.engine
    )


def model_from_run(spec: RunSpec, variant: str = "") -> RunModel:
    """The model that a run of the same suite will have trained."""
    base = model_catalog.load(spec.base_model or spec.model)
    settings = {
        name: spec.params[name] for name in _architecture_params(spec.engine) if name in spec.params
    }
    return RunModel(
        f"{RUN_PREFIX}{spec.run_id}", base, settings, spec.engine, (spec.run_id,), variant
    )


def setting_conflicts(
    model: RunModel, plan_settings: Mapping[str, Any], params: Mapping[str, Any]
) -> list[str]:
    """Settings that a plan names with another value than the trained model has, one sentence each.

    `plan_settings`: the settings that the plan names; `params`: the same, validated and complete.
    """
    return [
        f"{name} = {json.dumps(params[name])}: model '{model.name}' was trained with "
        f"{json.dumps(value)}; leave {name} out"
        for name, value in model.shape.items()
        if name in plan_settings and name not in WEIGHT_LOCATIONS and params[name] != value
    ]


WEIGHT_LOCATIONS = ("vision", "llm")
"""Architecture settings that name where frozen weights lie: a plan may change them, since paths
differ between machines, and the run compares the weights."""


def inherited_settings(model: RunModel, plan_settings: Mapping[str, Any]) -> dict[str, Any]:
    """The model's architecture settings, without the weight locations that the plan names."""
    return {
        k: v for k, v in model.shape.items() if not (k in WEIGHT_LOCATIONS and k in plan_settings)
    }


def _architecture_params(engine: str) -> tuple[str, ...]:
    from engines import catalog

    return catalog.load(engine).ARCHITECTURE_PARAMS


def list_runs(log_root: Path) -> Sequence[LoggedRun]:
    """The runs of a log root, those of the latest suites first; unreadable ones are skipped."""
    runs = []
    for path in sorted(log_root.glob("*/runs/*/spec.json"), reverse=True):
        try:
            table = json.loads(path.read_bytes())
            runs.append(LoggedRun(path.parent, str(table["run_id"]), str(table.get("label") or "")))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return runs
