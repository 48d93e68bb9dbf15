"""Suite plans: their schema, reading and writing them, and their expansion into run specs.

A plan is a small TOML: engines x subsets x models x seeds x repeats, with settings. Plan files,
presets, flags and the TUI all give a `SuitePlan`, and `expand` makes the runs of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from datasets_mm import strict_toml
from datasets_mm.strict_toml import TomlError, suggest_nearest
from engines.protocol import RunSpec, Task
from engines.trained_weights import RUN
from results.text import secrets
from workbench import paths
from workbench.planning import (
    availability,
    folds,
    plan_checks,
    plan_paths,
    run_matrix,
    search_space,
    trained_models,
)
from workbench.planning import cost_probe as planning_cost_probe
from workbench.planning.run_matrix import Ints, Names, Override, PlanCell, RunBlock, Text, Variant
from workbench.planning.trained_models import RunModel

PRESETS = Path(__file__).parent / "presets"

ADDED_FIELDS: Final = (
    "cost_probe", "until", "oom_retries", "on_disk_full", "variants", "search", "gpu", "origins",
    "cpu", "runs",
)  # fmt: skip
"""Fields added after the first records: left out of the hash while they are unset."""


class PlanError(ValueError):
    """A plan that cannot run; `problems` has one sentence for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class SuitePlan(BaseModel):
    """A suite as a person describes it; every list is one factor of a product."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_number: Literal[1] = Field(default=1, alias="schema")
    name: str = Field(default="suite", pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    engines: Names = Field(default=("retrieval",), alias="engine")
    task: Task | None = None
    """None: the engine's first task."""
    subsets: Names
    models: Names
    seeds: Ints = Field(default=(42,), min_length=1)
    repeats: int = Field(default=1, ge=1, le=1000)
    devices: Ints = ()
    """GPU indexes; empty: those that the environment makes visible."""
    cpu: bool = False
    """Hide every GPU from the engines."""
    settings: dict[str, Any] = {}
    runs: tuple[RunBlock, ...] = Field(default=(), alias="run")
    """Blocks of runs in their order, for a plan of several tasks; empty: one task for all runs."""
    variants: tuple[Variant, ...] = Field(default=(), alias="variant")
    """Every combination is run once with each variant; empty: once."""
    overrides: tuple[Override, ...] = Field(default=(), alias="override")
    label: str = ""
    cost_probe: planning_cost_probe.StepCount | None = None
    """Cost probe: train this many timed steps, forecast the epoch and the run; never evaluate."""
    until: planning_cost_probe.Share | None = None
    """A cost probe ends as soon as its interval is narrower than this share, ± (0.02, "±2%")."""
    oom_retries: int = Field(default=3, ge=0, le=16)
    """Attempts with a smaller micro-batch after the GPU ran out of memory."""
    on_disk_full: Literal["stop", "continue"] = "stop"
    """Whether training stops, or continues with a gap in its journal, when the disk is full."""
    search: search_space.SearchPlan | None = None
    """Settings to search; each trial is a run of this suite, chosen by the trials before it."""
    gpu: str = ""
    """Name of the GPU that memory is estimated for; empty: the one of this machine."""
    origins: dict[str, str] = {}
    """Source of each setting that an environment variable or a GPU preset has set."""
    about: str = ""
    """One sentence for the list of presets."""
    title: Text = ""
    """Title of the report; empty: the suite's name."""
    goal: Text = ""
    """The question that the suite answers, for the report."""
    background: Text = ""
    """What led to the suite, for the report."""
    why: Text | dict[str, Text] = ""
    """Reason for the subsets, as a sentence; or a table with one for each subset or model."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_blocks(cls, table: Any) -> Any:
        """Subsets and models of the blocks, for a plan that names none and whose blocks all do."""
        blocks = table.get("run") if isinstance(table, dict) else None
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            return table
        completed = dict(table)
        for key in ("subsets", "models"):
            values = [block.get(key) or block.get(key[:-1]) for block in blocks]
            if blocks and key not in completed and all(values):
                name_lists = [
                    [value] if isinstance(value, str) else list(value) for value in values
                ]
                completed[key] = list(dict.fromkeys(name for names in name_lists for name in names))
        return completed

    def hash(self) -> str:
        """12 hex digits; equal for equal plans, whatever their texts for the report."""
        excluded: dict[str, Any] = dict.fromkeys(
            ("about", "title", "goal", "background", "why"), True
        )
        excluded["variants"] = {"__all__": {"why"}}
        content = self.model_dump(mode="json", exclude=excluded)
        # Plans without these newer fields keep the hashes that older records hold.
        unset = set(ADDED_FIELDS) - self.model_dump(exclude_defaults=True).keys()
        content = {k: v for k, v in content.items() if k not in unset}
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


class Roots(NamedTuple):
    """Cache root and log root of an expansion."""

    cache: Path
    logs: Path


def load(path: Path) -> SuitePlan:
    """A plan from a TOML file.

    Raises:
        PlanError: the file cannot be read or is wrong.
    """
    return _read_plan(lambda: strict_toml.read(path, SuitePlan))


def parse(table: Mapping[str, Any], source: str = "plan") -> SuitePlan:
    """A plan from a table.

    Raises:
        PlanError: the table does not fit.
    """
    return _read_plan(lambda: strict_toml.parse(table, SuitePlan, source))


def _read_plan(read: Any) -> SuitePlan:
    try:
        plan: SuitePlan = read()
    except TomlError as error:
        raise PlanError([secrets.mask_secrets(problem) for problem in error.problems]) from None
    if secret_locations := sorted(
        set(secrets.find_secret_paths(plan.model_dump(mode="json", by_alias=True)))
    ):
        remedy = "plans are kept and shown; leave it out, tools read it from the environment"
        raise PlanError(
            [
                f"{location}: holds what looks like a secret; {remedy}"
                for location in secret_locations
            ]
        )
    return plan_paths.resolve_paths(plan)


def preset_files() -> dict[str, Path]:
    """Files of the shipped presets and the user's own, by name.

    Raises:
        PlanError: two presets have one name.
    """
    files: dict[str, Path] = {}
    for folder in (PRESETS, paths.config_root() / "presets"):
        for path in strict_toml.list_files(folder):
            if path.stem in files:
                raise PlanError([f"{path}: a preset '{path.stem}' exists already; rename the file"])
            files[path.stem] = path
    return files


def load_preset(name: str) -> SuitePlan:
    """A preset by name.

    Raises:
        PlanError: there is none of that name, or it is wrong.
    """
    files = preset_files()
    if name not in files:
        raise PlanError([f"no preset '{name}'{suggest_nearest(name, files)}"])
    return load(files[name])


def dump(plan: SuitePlan) -> str:
    """The plan as TOML; `load` of it gives an equal plan."""
    import tomli_w

    table = plan.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return tomli_w.dumps({"schema": 1, **table})


def expand(plan: SuitePlan, cache_root: Path, log_root: Path | None = None) -> list[RunSpec]:
    """The runs of a plan in their order: repeat, seed, block, engine, model, subset, variant.

    Repeats are the outermost factor so that slow drift of the machine spreads over all runs. A
    search gives the one run that its trials vary. `log_root`: folder with the trained models of
    earlier suites; None: the default log root.

    Raises:
        PlanError: unknown names, settings that an engine does not take, or a subset or model
            that is not available here.
    """
    roots = Roots(cache_root, log_root or paths.log_root(None))
    plan = resolve_model_names(plan, roots.logs)
    problems = plan_checks.find_problems(plan)
    expanded: list[tuple[PlanCell, RunSpec]] = []
    if not problems:
        for cell in run_matrix.iterate_cells(plan):
            try:
                expanded += [(cell, spec) for spec in _expand_cell(plan, cell, expanded, roots)]
            except PlanError as error:
                problems += error.problems
    specs = [spec for _, spec in expanded]
    if plan.search is not None and specs:
        problems += _search_problems(plan, plan.search, specs)
    if problems:
        raise PlanError(list(dict.fromkeys(problems)))
    return specs


def resolve_model_names(plan: SuitePlan, log_root: Path) -> SuitePlan:
    """The plan with every trained model of an earlier suite as `run:SUITE/ID`.

    Raises:
        PlanError: a name matches no run, several, or one without trained weights.
    """
    update, problems = trained_models.resolve_names(plan, log_root)
    if problems:
        raise PlanError(problems)
    return plan.model_copy(update=update)


def _search_problems(
    plan: SuitePlan, search: search_space.SearchPlan, specs: Sequence[RunSpec]
) -> list[str]:
    """Why the plan's search cannot run, one sentence each."""
    from engines import catalog

    lists = ("engines", "subsets", "models", "seeds", "variants", "runs")
    factors = {name: len(getattr(plan, name)) for name in lists} | {"repeats": plan.repeats}
    if len(specs) > len(list(run_matrix.iterate_cells(plan))):
        factors["folds"] = specs[0].params[folds.FOLDS]
    params = catalog.load(specs[0].engine).Params
    fixed = {**plan.settings, **{k: v for o in plan.overrides for k, v in o.settings.items()}}
    problems = search_space.find_problems(search, factors, params, specs[0].params, fixed)
    if plan.cost_probe is not None:
        problems.append("search: a costing run measures no metric; leave out cost_probe")
    return problems


def _expand_cell(
    plan: SuitePlan, cell: PlanCell, expanded: Sequence[tuple[PlanCell, RunSpec]], roots: Roots
) -> list[RunSpec]:
    """The runs of a cell: one, or its folds and their ensemble, for each model that it means."""
    block = next((block for block in plan.runs if block.label == cell.block), None)
    layers = [plan.settings, block.settings if block else {}]
    layers += [v.settings for v in plan.variants if v.label == cell.variant]
    layers += [o.settings for o in plan.overrides if o.matches(cell)]
    plan_settings = {key: value for layer in layers for key, value in layer.items()}
    specs: list[RunSpec] = []
    for model in _resolve_models(plan, cell, expanded, plan_settings, roots):
        position = len(expanded) + len(specs)
        specs += _expand_model(plan, cell, model, plan_settings, (position, roots, block))
    return specs


def _resolve_models(
    plan: SuitePlan,
    cell: PlanCell,
    expanded: Sequence[tuple[PlanCell, RunSpec]],
    plan_settings: Mapping[str, Any],
    roots: Roots,
) -> list[RunModel]:
    """The models that a cell's model name means: one, or those that an earlier block trains."""
    label = cell.model.removeprefix(RUN)
    if cell.model == label or label not in [block.label for block in plan.runs]:
        if not availability.needs_model(cell.engine):
            return [RunModel(cell.model)]
        try:
            return [
                trained_models.resolve_model(cell.model, cell.engine, plan_settings, roots.logs)
            ]
        except (LookupError, ValueError) as error:
            raise PlanError([str(error.args[0] if error.args else error)]) from None
    trained = [
        (spec, trained_cell.variant)
        for trained_cell, spec in expanded
        if (trained_cell.block, trained_cell.seed, trained_cell.repeat)
        == (label, cell.seed, cell.repeat)
        and spec.task == "train"
    ]
    if not trained:
        raise PlanError(
            [f"model '{cell.model}': no [[run]] of this label before '{cell.block}' trains a model"]
        )
    return [trained_models.model_from_run(spec, variant) for spec, variant in trained]


def _expand_model(
    plan: SuitePlan,
    cell: PlanCell,
    model: RunModel,
    plan_settings: Mapping[str, Any],
    context: tuple[int, Roots, RunBlock | None],
) -> list[RunSpec]:
    """The run of a cell with one model, or its folds and their ensemble."""
    from engines import catalog

    number, roots, block = context
    module = catalog.load(cell.engine)
    if problems := availability.incompatibilities(
        cell.engine, cell.subset, model.base_model or cell.model
    ):
        raise PlanError(problems)
    if model.engine not in ("", cell.engine):
        raise PlanError(
            [f"model '{model.name}': engine {model.engine} trained it, not {cell.engine}"]
        )

    def make_run_id(offset: int, part: str) -> str:
        id_cell = cell.model_copy(update={"model": model.base_model or cell.model})
        return _run_id(plan, id_cell, number + offset, part)

    entry = model.settings or availability.model_settings(cell.engine, cell.model)
    settings = {**entry, **plan_settings, **trained_models.inherited_settings(model, plan_settings)}
    spec = _build_spec(plan, cell, (model, settings, plan_settings), make_run_id, (roots, block))
    return folds.expand_folds(spec, settings, module.TASKS, make_run_id)


def _build_spec(
    plan: SuitePlan,
    cell: PlanCell,
    selection: tuple[RunModel, Mapping[str, Any], Mapping[str, Any]],
    make_run_id: Callable[[int, str], str],
    context: tuple[Roots, RunBlock | None],
) -> RunSpec:
    """The spec of a cell with one model.

    `selection`: the model, all settings, and those that the plan names.

    Raises:
        PlanError: a task, setting, subset or model that the engine cannot use here.
    """
    from engines import catalog

    (model, settings, plan_settings), (roots, block) = selection, context
    module = catalog.load(cell.engine)
    task = (block and block.task) or plan.task or module.TASKS[0]
    if task not in module.TASKS:
        tasks = ", ".join(module.TASKS)
        raise PlanError([f"engine '{cell.engine}' has no task '{task}'; it has {tasks}"])
    if sentence := planning_cost_probe.find_problem(
        plan.cost_probe, plan.until, task, module.TASKS
    ):
        raise PlanError([sentence])
    probe = planning_cost_probe.build_probe(plan.cost_probe, plan.until, task, module.TASKS)
    try:
        params = module.Params.model_validate(settings)
        plan_params = module.Params.model_validate({**model.settings, **plan_settings})
    except ValidationError as error:
        location = f"settings of {cell.engine}"
        raise PlanError(strict_toml.error_sentences(error, module.Params, location)) from None
    complete_params = params.model_dump(mode="json")
    problems = trained_models.setting_conflicts(
        model, plan_settings, plan_params.model_dump(mode="json")
    )
    if problems := problems + availability.missing_requirements(
        cell.engine, cell.subset, cell.model, complete_params
    ):
        raise PlanError(problems)
    return RunSpec(
        suite="",
        run_id=make_run_id(0, "probe" if probe else ""),
        engine=cell.engine,
        task="probe" if probe else task,
        subset=cell.subset,
        model=model.name,
        base_model=model.base_model,
        params=complete_params,
        seed=cell.seed,
        repeat=cell.repeat,
        needs=model.needs,
        devices=plan.devices,
        cpu=plan.cpu,
        cache_root=str(roots.cache),
        label=_label(plan, cell, model.variant),
        plan_hash=plan.hash(),
        probe=probe,
        oom_retries=plan.oom_retries,
        on_disk_full=plan.on_disk_full,
        origins=plan.origins,
    )


def _label(plan: SuitePlan, cell: PlanCell, trained: str) -> str:
    """The run's label. `trained`: label of the variant that trained its model."""
    fitting = (o.label for o in reversed(plan.overrides) if o.matches(cell) and o.label is not None)
    label = cell.variant or cell.block or plan.label
    return next(fitting, f"{label} {trained}" if trained else label)


def _run_id(plan: SuitePlan, cell: PlanCell, number: int, part: str) -> str:
    parts = [f"{number + 1:02d}", cell.engine, cell.subset, cell.model]
    if len(plan.seeds) > 1:
        parts.append(f"s{cell.seed}")
    if plan.repeats > 1:
        parts.append(f"r{cell.repeat + 1}")
    parts += [name for name in (cell.block, cell.variant) if name]
    tail = f"-{part}" if part else ""
    plain = re.sub(r"[^a-z0-9._-]+", "_", "-".join(parts).lower())
    return plain[: 96 - len(tail)].rstrip("-_.") + tail
