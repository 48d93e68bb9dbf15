"""A plan's runs for `workbench plan`: specs, step counts and memory reductions.

Needs neither data nor weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from datasets_mm import strict_toml
from engines import catalog
from engines.memory_query import MemoryQuery, Phase
from engines.protocol import RunSpec, count_ranks
from engines.trained_weights import RUN_PREFIX
from workbench import paths
from workbench.memory_estimate import estimator_process, fit_check, policy
from workbench.memory_estimate.fit_check import HostMemory
from workbench.memory_estimate.gpus import GpuModel
from workbench.memory_estimate.memory_check import build_query
from workbench.memory_estimate.policy import MemoryReduction
from workbench.planning import availability, plan, run_matrix, trained_models
from workbench.planning.plan import PlanError, SuitePlan
from workbench.planning.run_matrix import PlanCell
from workbench.planning.trained_models import RunModel


class StepCounts(NamedTuple):
    """Rows, batch and optimizer steps of a run."""

    rows: int
    train: int
    held_out: int
    looked_at: int
    """Of the held-out rows, those that a validation reads (a stratified sample)."""
    batch: int
    gradient_accumulation_steps: int
    ranks: int
    """Processes, each with its own micro-batch."""
    per_epoch: int
    epochs: float
    total: int


class ReducedEstimate(NamedTuple):
    """The memory estimate after one more reduction."""

    description: str
    phase_fit: fit_check.PhaseFit


def expand_runs(
    suite_plan: SuitePlan, cache_root: Path, log_root: Path | None = None
) -> list[RunSpec]:
    """One spec for each engine, model, variant and subset; as `expand_cells`."""
    return [spec for _, spec in expand_cells(suite_plan, cache_root, log_root)]


def expand_cells(
    suite_plan: SuitePlan, cache_root: Path, log_root: Path | None = None
) -> list[tuple[PlanCell, RunSpec]]:
    """Cell and spec of each engine, model, variant and subset; seeds and repeats change no size.

    `log_root`: folder with the trained models of earlier suites; None: the default log root.

    Raises:
        PlanError: an unknown model, or settings that an engine does not take.
    """
    logs = log_root or paths.log_root(None)
    suite_plan = plan.resolve_model_names(suite_plan, logs)
    expanded: list[tuple[PlanCell, RunSpec]] = []
    for cell in _iterate_sizes(suite_plan):
        try:
            expanded += [
                (cell, spec)
                for spec in _expand_cell(suite_plan, cell, expanded, (cache_root, logs))
            ]
        except (LookupError, ValueError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError([str(error.args[0] if error.args else error)]) from None
    return expanded


def _iterate_sizes(suite_plan: SuitePlan) -> Iterator[PlanCell]:
    """The first cell of each combination, whatever its seed and repeat; as that of the first."""
    lot = {"seed": suite_plan.seeds[0], "repeat": 0}
    cells = (cell.model_copy(update=lot) for cell in run_matrix.iterate_cells(suite_plan))
    yield from dict.fromkeys(cells)


def _expand_cell(
    suite_plan: SuitePlan,
    cell: PlanCell,
    expanded: Sequence[tuple[PlanCell, RunSpec]],
    roots: tuple[Path, Path],
) -> list[RunSpec]:
    module = catalog.load(cell.engine)
    block = next((block for block in suite_plan.runs if block.label == cell.block), None)
    plan_settings = run_matrix.join_layers(suite_plan, cell)
    trained = [
        spec
        for trained_cell, spec in expanded
        if cell.model == f"{RUN_PREFIX}{trained_cell.block}" and spec.task == "train"
    ]
    models = [trained_models.model_from_run(spec) for spec in trained]
    if not models and availability.needs_model(cell.engine):
        models = [trained_models.resolve_model(cell.model, cell.engine, plan_settings, roots[1])]
    specs = []
    for number, model in enumerate(models or [RunModel(cell.model)], 1):
        entry = model.settings or availability.model_settings(cell.engine, cell.model)
        settings = {
            **entry,
            **plan_settings,
            **trained_models.inherited_settings(model, plan_settings),
        }
        try:
            params = module.Params.model_validate(settings)
        except ValidationError as error:
            location = f"settings of {cell.engine}"
            raise PlanError(strict_toml.error_sentences(error, module.Params, location)) from None
        specs.append(
            RunSpec(
                suite="",
                run_id=f"{len(expanded) + number:02d}",
                engine=cell.engine,
                model=model.name,
                base_model=model.base_model,
                task=(block and block.task) or suite_plan.task or module.TASKS[0],
                subset=cell.subset,
                params=params.model_dump(mode="json"),
                cache_root=str(roots[0]),
                label=cell.variant or cell.block or suite_plan.label,
            )
        )
    return specs


def count_rows(subset: str, cache_root: Path) -> int | None:
    """Rows of a subset as built, else as its recipe expects; None: not known."""
    from datasets_mm import catalog as subsets

    if subset not in subsets.names():
        return None
    summary = subsets.summary(subset, cache_root)
    return summary.rows if summary.rows is not None else summary.expected_rows


def count_stage_steps(params: Mapping[str, Any], rows: int) -> dict[str, StepCounts]:
    """The step counts of each stage of a run, by `1` or `1 (name)`; none without stages."""
    stages, tables = params.get("stages") or (), catalog.stage_params(params)
    shared = {"early_stopping": any(table.get("early_stopping") for table in tables)}
    counts: dict[str, StepCounts] = {}
    for number, (stage, table) in enumerate(zip(stages, tables, strict=False), 1):
        name = f"{number} ({stage['name']})" if stage.get("name") else str(number)
        counts[name] = count_steps({**table, **shared}, rows)
    return counts


def count_steps(params: Mapping[str, Any], rows: int) -> StepCounts:
    """The step counts of a run over `rows` rows; with stages, of the last one."""
    params = catalog.stage_params(params)[-1]
    rows = min(rows, int(params.get("sample", 0)) or rows)
    folds = int(params.get("folds", 0))
    if folds:
        train, held_out = policy.fold_sizes(rows, folds, int(params.get("fold", 0)))
    elif "validate_on" in params:  # captioning holds rows out only if something monitors them
        monitored = params["early_stopping"] or params.get("load_best") is True
        holds_out = monitored and not params["validate_on"]
        held_out = round(float(params["validation_share"]) * rows) if holds_out else 0
        train = rows - held_out
    else:
        train, held_out = policy.hold_out_sizes(rows, float(params.get("validation_share", 0.0)))
    batch, micro_batches = int(params["batch"]), int(params.get("gradient_accumulation_steps", 1))
    ranks = count_ranks(params)
    per_epoch = policy.steps_per_epoch(train, batch * ranks, micro_batches)
    epochs = float(params.get("epochs", 1.0))
    total = -int(-(epochs * per_epoch) // 1)
    total = min(total, params.get("max_steps") or total)
    limit = int(params.get("validate_limit") or 0)
    looked_at = min(held_out, limit) if limit else held_out
    return StepCounts(
        rows, train, held_out, looked_at, batch, micro_batches, ranks, per_epoch, epochs, total
    )


def estimate_reductions(
    spec: RunSpec, device: GpuModel | HostMemory, cache_root: Path, phase: Phase
) -> list[ReducedEstimate]:
    """Memory estimates with one reduction after the other, each added to those before.

    `phase`: the phase that does not fit. Reductions that the model does not support are left out.
    """
    trains = spec.task in ("train", "probe")
    reductions = policy.list_reductions(spec.params, spec.model, phase, trains=trains)
    while True:
        estimates = estimator_process.request_estimates(
            _reduction_queries(spec, device, reductions), cache_root
        )
        failed = next((row for row, estimate in enumerate(estimates) if estimate.problem), None)
        if failed is None:
            pairs = zip(reductions, estimates, strict=True)
            return [
                ReducedEstimate(reduction.description, fit_check.peak_phase(estimate, device))
                for reduction, estimate in pairs
            ]
        del reductions[failed]


def _reduction_queries(
    spec: RunSpec, device: GpuModel | HostMemory, reductions: Sequence[MemoryReduction]
) -> list[MemoryQuery]:
    changes: dict[str, Any] = {}
    queries = []
    for reduction in reductions:
        changes |= reduction.settings | ({"model": reduction.model} if reduction.model else {})
        queries.append(build_query(spec, device, **changes))
    return queries
