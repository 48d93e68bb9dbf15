"""A plan's runs as far as memory and steps go, whether or not data and weights are here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from datasets_mm import strict_toml
from engines.memory_query import Phase, Want
from engines.protocol import RunSpec
from engines.trained_weights import RUN
from workbench import paths
from workbench.memory_estimate import estimator_process, fit_check, policy
from workbench.memory_estimate.estimate import want
from workbench.memory_estimate.fit_check import Host
from workbench.memory_estimate.gpus import Gpu
from workbench.memory_estimate.policy import Lowering
from workbench.planning import availability, plan, run_matrix, trained_models
from workbench.planning.plan import PlanError, SuitePlan
from workbench.planning.run_matrix import Cell
from workbench.planning.trained_models import Model


class Steps(NamedTuple):
    """How a subset becomes optimizer steps."""

    rows: int
    train: int
    held_out: int
    looked_at: int
    """Of those, rows that a look at the validation takes, stratified."""
    batch: int
    accumulation: int
    ranks: int
    """Processes, each with a micro-batch of its own."""
    per_epoch: int
    epochs: float
    total: int


class Lowered(NamedTuple):
    """The forecast after one more thing was lowered."""

    words: str
    verdict: fit_check.Verdict


def runs(asked: SuitePlan, cache_root: Path, log_root: Path | None = None) -> list[RunSpec]:
    """One spec for each engine, model, variant and subset; seeds and repeats change no size.

    `log_root`: where trained models of earlier suites lie; None: the usual one.

    Raises:
        PlanError: an unknown model, or settings that an engine does not take.
    """
    logs = log_root or paths.log_root(None)
    asked = plan.name_models(asked, logs)
    once = asked.model_copy(update={"seeds": asked.seeds[:1], "repeats": 1})
    made: list[tuple[str, RunSpec]] = []
    for cell in run_matrix.product(once):
        try:
            made += [(cell.block, spec) for spec in _of_cell(asked, cell, made, (cache_root, logs))]
        except (LookupError, ValueError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError([str(error.args[0] if error.args else error)]) from None
    return [spec for _, spec in made]


def _of_cell(
    asked: SuitePlan, cell: Cell, made: Sequence[tuple[str, RunSpec]], roots: tuple[Path, Path]
) -> list[RunSpec]:
    from engines import catalog

    module = catalog.load(cell.engine)
    block = next((one for one in asked.runs if one.label == cell.block), None)
    layers = [asked.settings, block.settings if block else {}]
    layers += [v.settings for v in asked.variants if v.label == cell.variant]
    given = {key: value for layer in layers for key, value in layer.items()}
    trained = [
        spec for label, spec in made if cell.model == f"{RUN}{label}" and spec.task == "train"
    ]
    found = [trained_models.of_sibling(spec) for spec in trained]
    if not found and availability.needs_model(cell.engine):
        found = [trained_models.of(cell.model, cell.engine, given, roots[1])]
    specs = []
    for number, model in enumerate(found or [Model(cell.model)], 1):
        entry = model.settings or availability.model_settings(cell.engine, cell.model)
        settings = {**entry, **given, **trained_models.shaped(model, given)}
        try:
            params = module.Params.model_validate(settings)
        except ValidationError as error:
            place = f"settings of {cell.engine}"
            raise PlanError(strict_toml.sentences(error, module.Params, place)) from None
        specs.append(
            RunSpec(
                suite="",
                run_id=f"{len(made) + number:02d}",
                engine=cell.engine,
                model=model.name,
                base_model=model.base_model,
                task=(block and block.task) or asked.task or module.TASKS[0],
                subset=cell.subset,
                params=params.model_dump(mode="json"),
                cache_root=str(roots[0]),
                label=cell.variant or cell.block or asked.label,
            )
        )
    return specs


def rows_of(subset: str, cache_root: Path) -> int | None:
    """Rows of a subset: those that were built, or that its recipe expects; None: not known."""
    from datasets_mm import catalog

    if subset not in catalog.names():
        return None
    found = catalog.summary(subset, cache_root)
    return found.rows if found.rows is not None else found.expected_rows


def steps(params: Mapping[str, Any], rows: int) -> Steps:
    """The steps of a run over so many rows."""
    rows = min(rows, int(params.get("sample", 0)) or rows)
    folds = int(params.get("folds", 0))
    if folds:
        train, held = policy.fold(rows, folds, int(params.get("fold", 0)))
    elif "validate_on" in params:  # captioning holds nothing out unless something goes by it
        monitored = params["early_stopping"] or params.get("load_best") is True
        stops = monitored and not params["validate_on"]
        held = round(float(params["validation_share"]) * rows) if stops else 0
        train = rows - held
    else:
        train, held = policy.hold_out(rows, float(params.get("validation_share", 0.0)))
    batch, accumulation = int(params["batch"]), int(params.get("accumulation", 1))
    ranks = int(params.get("nproc_per_node", 1))
    each = policy.steps_per_epoch(train, batch * ranks, accumulation)
    epochs = float(params.get("epochs", 1.0))
    total = -int(-(epochs * each) // 1)
    total = min(total, params.get("max_steps") or total)
    limit = int(params.get("validate_limit") or 0)
    looked_at = min(held, limit) if limit else held
    return Steps(rows, train, held, looked_at, batch, accumulation, ranks, each, epochs, total)


def lowered(spec: RunSpec, where: Gpu | Host, cache_root: Path, phase: Phase) -> list[Lowered]:
    """The forecasts with one thing after the other lowered, each on top of those before.

    `phase`: the one that does not fit. What this model cannot do is left out.
    """
    trains = spec.task in ("train", "probe")
    ways = policy.lowerings(spec.params, spec.model, phase, trains=trains)
    while True:
        found = estimator_process.ask(_questions(spec, where, ways), cache_root)
        failed = next((row for row, need in enumerate(found) if need.problem), None)
        if failed is None:
            pairs = zip(ways, found, strict=True)
            return [Lowered(way.words, fit_check.worst(need, where)) for way, need in pairs]
        del ways[failed]


def _questions(spec: RunSpec, where: Gpu | Host, ways: Sequence[Lowering]) -> list[Want]:
    changed: dict[str, Any] = {}
    questions = []
    for way in ways:
        changed |= way.settings | ({"model": way.model} if way.model else {})
        questions.append(want(spec, where, **changed))
    return questions
