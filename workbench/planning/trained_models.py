"""Models as a plan names them, and what stands behind a name that means a run's trained weights.

`run:LABEL` and `run:ID` are looked up among the runs of the log root, once: the plan that is kept
holds `run:SUITE/ID`, which means the same weights next week, and on another machine as long as the
log root is copied whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engines import model_catalog, trained_weights
from engines.model_catalog import ModelEntry
from engines.protocol import RunSpec
from engines.trained_weights import RUN, NoCheckpointError, Trained

if TYPE_CHECKING:
    from workbench.planning.plan import SuitePlan

LISTED = 3
"""Runs that a sentence names when several fit."""


class Model(NamedTuple):
    """A model as a run uses it."""

    name: str
    base: ModelEntry | None = None
    """Of a trained model: the entry that its training began with."""
    shape: Mapping[str, Any] = {}
    """Settings that it brings along, and that no plan changes."""
    engine: str = ""
    """Which trained it; empty: any may use it."""
    needs: tuple[str, ...] = ()
    """Runs of the same suite that have to come before."""
    variant: str = ""
    """Label of such a run, where it is a variant of others."""

    @property
    def base_model(self) -> str:
        """Name of the base; empty: it is no trained model."""
        return self.base.name if self.base else ""

    @property
    def settings(self) -> dict[str, Any]:
        """Defaults below the plan's own settings."""
        return dict(self.base.settings) if self.base else {}


class KnownRun(NamedTuple):
    """A run of the log root, as far as a name needs it."""

    folder: Path
    run_id: str
    label: str

    @property
    def name(self) -> str:
        """SUITE/ID."""
        return f"{self.folder.parent.parent.name}/{self.run_id}"

    def fits(self, wanted: str) -> bool:
        """Whether a name means this run: SUITE/ID, a part of the suite, the id or the label."""
        suite, _, run = wanted.rpartition("/")
        return run in (self.run_id, self.label) and suite in self.folder.parent.parent.name


def canonical(name: str, log_root: Path) -> str:
    """The same model as `run:SUITE/ID` where it is a run's; any other name as it is.

    Raises:
        NoCheckpointError: no run fits, several do, or the one left no trained weights.
    """
    if not name.startswith(RUN):
        return name
    wanted = name.removeprefix(RUN)
    fitting = [run for run in runs(log_root) if run.fits(wanted)]
    exact = [run for run in fitting if run.name == wanted] or fitting
    trained = [run for run in exact if trained_weights.checkpoint_folder(run.folder)]
    if len(trained) == 1:
        return f"{RUN}{trained[0].name}"
    if trained:
        named = ", ".join(run.name for run in trained[:LISTED])
        more = ", …" if len(trained) > LISTED else ""
        raise NoCheckpointError(
            f"model '{name}': fits {len(trained)} trained runs ({named}{more}); write run:SUITE/ID"
        )
    if exact:
        raise NoCheckpointError(f"model '{name}': {trained_weights.absence(exact[0].folder)}")
    raise NoCheckpointError(
        f"model '{name}': no run in {log_root} has this id or label; `workbench results list` "
        "names them"
    )


def named(plan: SuitePlan, log_root: Path) -> tuple[dict[str, Any], list[str]]:
    """The fields of a plan that name models, with canonical names; and what is wrong with them.

    Labels of the plan's own blocks stay: what they train is not there yet. An engine that the plan
    leaves open is that of its models.
    """
    own = {f"{RUN}{block.label}" for block in plan.runs}
    problems: list[str] = []

    def name_of(name: str) -> str:
        try:
            return name if name in own else canonical(name, log_root)
        except NoCheckpointError as error:
            problems.append(str(error))
            return name

    blocks = [b.model_copy(update={"models": tuple(map(name_of, b.models))}) for b in plan.runs]
    overrides = [
        one.model_copy(update={"model": one.model and name_of(one.model)}) for one in plan.overrides
    ]
    update: dict[str, Any] = {
        "models": tuple(map(name_of, plan.models)), "runs": tuple(blocks),
        "overrides": tuple(overrides),
    }  # fmt: skip
    if isinstance(plan.why, dict):
        update["why"] = {name_of(key): text for key, text in plan.why.items()}
    if "engines" not in plan.model_fields_set and not problems:
        update |= _engines(plan.model_copy(update=update), log_root)
    return update, list(dict.fromkeys(problems))


def _engines(plan: SuitePlan, log_root: Path) -> dict[str, Any]:
    """The engines of a plan, and of its blocks, that names none: those of the models."""
    known: dict[str, str] = {}
    blocks = []
    for block in plan.runs:
        names = block.models or plan.models
        own = block.engines[0] if len(block.engines) == 1 else ""
        engine = own or known.get(names[0], "") or engine_of(names, log_root)
        known[f"{RUN}{block.label}"] = engine
        fitting = block.engines or ((engine,) if engine else ())
        blocks.append(block.model_copy(update={"engines": fitting}))
    engine = "" if blocks else engine_of(plan.models, log_root)
    return {"runs": tuple(blocks), **({"engines": (engine,)} if engine else {})}


def engine_of(names: Sequence[str], log_root: Path) -> str:
    """The engine that all these models are for; empty: none is known, or they have several.

    `names`: canonical. Of a trained model it is the engine that trained it.
    """
    engines: set[str] = set()
    for name in names:
        try:
            entry = model_catalog.load(name)
            trained = entry.family == "run"
            folder = trained_weights.locate(name, log_root) if trained else None
            engine = Trained.read(folder, name).engine if folder else ""
        except (LookupError, ValueError):
            return ""  # expansion says what is wrong with the name
        engines |= {engine} if trained else set(entry.engines)
    return engines.pop() if len(engines) == 1 else ""


def of(name: str, engine: str, params: Mapping[str, Any], log_root: Path) -> Model:
    """A model by its name; `params`: settings of the plan, of which `base_model` counts here.

    Raises:
        NoCheckpointError: a run left no trained weights.
        LookupError: the base of a trained model is not known, or not here.
        ValueError: an entry's file is wrong.
    """
    entry = model_catalog.load(name)
    if entry.family != "run":
        return Model(name)
    trained = Trained.read(trained_weights.locate(name, log_root), name)
    base = model_catalog.base_entry(trained, str(params.get("base_model") or ""))
    return Model(name, base, trained.shape(_shaping(engine)), trained.engine)


def of_sibling(spec: RunSpec, variant: str = "") -> Model:
    """What a run of the same suite will have trained."""
    base = model_catalog.load(spec.base_model or spec.model)
    shape = {name: spec.params[name] for name in _shaping(spec.engine) if name in spec.params}
    return Model(f"{RUN}{spec.run_id}", base, shape, spec.engine, (spec.run_id,), variant)


def conflicts(model: Model, given: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """Settings that a plan names and a trained model brings along with another value.

    `given`: what the plan names; `params`: the same, validated and complete.
    """
    return [
        f"{name} = {json.dumps(params[name])}: model '{model.name}' was trained with "
        f"{json.dumps(value)}; leave {name} out"
        for name, value in model.shape.items()
        if name in given and name not in PLACES and params[name] != value
    ]


PLACES = ("vision", "llm")
"""Of the settings that a model brings along, those that say where frozen weights lie: they may be
elsewhere on another machine, and the run compares the weights."""


def shaped(model: Model, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a model brings along, less the places that the plan names itself."""
    return {k: v for k, v in model.shape.items() if not (k in PLACES and k in given)}


def _shaping(engine: str) -> tuple[str, ...]:
    from engines import catalog

    return catalog.load(engine).SHAPING


def runs(log_root: Path) -> Sequence[KnownRun]:
    """The runs of a log root, those of the latest suites first."""
    found = []
    for path in sorted(log_root.glob("*/runs/*/spec.json"), reverse=True):
        try:
            said = json.loads(path.read_bytes())
            found.append(KnownRun(path.parent, str(said["run_id"]), str(said.get("label") or "")))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # what cannot be read is no reason against others
    return found
