"""Expansion of a suite plan into run specs: engines x subsets x models x seeds x repeats."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from datasets_mm import strict_toml
from engines.protocol import Probe, RunSpec, Task
from engines.trained_weights import RUN_PREFIX
from workbench import paths
from workbench.planning import (
    availability,
    cost_probe,
    fold_runs,
    plan_checks,
    run_matrix,
    search_space,
    trained_models,
)
from workbench.planning.plan import PlanError, SuitePlan, resolve_model_names
from workbench.planning.run_matrix import PlanCell, RunBlock
from workbench.planning.trained_models import RunModel


class Roots(NamedTuple):
    """Cache root and log root of an expansion."""

    cache: Path
    logs: Path


def expand(plan: SuitePlan, cache_root: Path, log_root: Path | None = None) -> list[RunSpec]:
    """The runs of a plan in their order; as `expand_cells`."""
    return [spec for _, spec in expand_cells(plan, cache_root, log_root)]


def expand_cells(
    plan: SuitePlan, cache_root: Path, log_root: Path | None = None
) -> list[tuple[PlanCell, RunSpec]]:
    """Cell and spec of each run, by repeat, seed, block, engine, model, subset, variant.

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
    problems += plan_checks.find_lane_problems(plan, specs)
    if problems:
        raise PlanError(list(dict.fromkeys(problems)))
    return expanded


def _search_problems(
    plan: SuitePlan, search: search_space.SearchPlan, specs: Sequence[RunSpec]
) -> list[str]:
    """Why the plan's search cannot run, one sentence each."""
    from engines import catalog

    lists = ("engines", "subsets", "models", "seeds", "variants", "runs")
    factors = {name: len(getattr(plan, name)) for name in lists} | {"repeats": plan.repeats}
    if len(specs) > len(list(run_matrix.iterate_cells(plan))):
        factors["folds"] = specs[0].params[fold_runs.FOLDS]
    params = catalog.load(specs[0].engine).Params
    fixed = {**plan.settings, **{k: v for o in plan.overrides for k, v in o.settings.items()}}
    problems = search_space.find_problems(search, factors, params, specs[0].params, fixed)
    if plan.cost_probe is not None:
        problems.append("search: a cost probe measures no metric; leave out cost_probe")
    return problems


def _expand_cell(
    plan: SuitePlan, cell: PlanCell, expanded: Sequence[tuple[PlanCell, RunSpec]], roots: Roots
) -> list[RunSpec]:
    """The runs of a cell: one, or its folds and their ensemble, for each model that it means."""
    block = next((block for block in plan.runs if block.label == cell.block), None)
    plan_settings = run_matrix.join_layers(plan, cell)
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
    label = cell.model.removeprefix(RUN_PREFIX)
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
    return fold_runs.expand_folds(spec, settings, module.TASKS, make_run_id)


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
    (model, settings, plan_settings), (roots, block) = selection, context
    task, probe = _choose_task(plan, cell, block)
    return RunSpec(
        suite="",
        run_id=make_run_id(0, "probe" if probe else ""),
        engine=cell.engine,
        task="probe" if probe else task,
        subset=cell.subset,
        model=model.name,
        base_model=model.base_model,
        params=_validate_params(cell, model, (settings, plan_settings), "probe" if probe else task),
        seed=cell.seed,
        repeat=cell.repeat,
        needs=model.needs,
        devices=plan.devices,
        cpu=plan.cpu,
        exclusive=_is_exclusive(plan, block),
        cache_root=str(roots.cache),
        label=_label(plan, cell, model.variant),
        plan_hash=plan.hash(),
        probe=probe,
        oom_retries=plan.oom_retries,
        on_disk_full=plan.on_disk_full,
        origins=plan.origins,
    )


def _is_exclusive(plan: SuitePlan, block: RunBlock | None) -> bool:
    """Whether a run has the host for itself."""
    stated = block.exclusive if block is not None else None
    return plan.exclusive if stated is None else stated


def _choose_task(
    plan: SuitePlan, cell: PlanCell, block: RunBlock | None
) -> tuple[Task, Probe | None]:
    """Task of a cell, and the cost probe that runs in its place (None: the task itself runs).

    Raises:
        PlanError: the engine has no such task, or the plan's cost probe does not suit it.
    """
    from engines import catalog

    tasks = catalog.load(cell.engine).TASKS
    task = (block and block.task) or plan.task or tasks[0]
    if task not in tasks:
        raise PlanError([f"engine '{cell.engine}' has no task '{task}'; it has {', '.join(tasks)}"])
    if sentence := cost_probe.find_problem(plan.cost_probe, plan.max_uncertainty, task, tasks):
        raise PlanError([sentence])
    return task, cost_probe.build_probe(plan.cost_probe, plan.max_uncertainty, task, tasks)


def _validate_params(
    cell: PlanCell,
    model: RunModel,
    stated: tuple[Mapping[str, Any], Mapping[str, Any]],
    task: str,
) -> dict[str, Any]:
    """Every setting of the engine, with defaults. `stated`: all settings, and those of the plan.

    Raises:
        PlanError: a setting is wrong, conflicts with the trained model, or needs what is not here.
    """
    from engines import catalog

    schema, (settings, plan_settings) = catalog.load(cell.engine).Params, stated
    try:
        params = schema.model_validate(settings).model_dump(mode="json")
        plan_params = schema.model_validate({**model.settings, **plan_settings})
    except ValidationError as error:
        location = f"settings of {cell.engine}"
        raise PlanError(strict_toml.error_sentences(error, schema, location)) from None
    problems = trained_models.setting_conflicts(
        model, plan_settings, plan_params.model_dump(mode="json")
    )
    problems += availability.missing_requirements(
        cell.engine, cell.subset, cell.model, params, task
    )
    if problems:
        raise PlanError(problems)
    return params


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
