"""What to run, decided and checked before anything runs.

A plan is a small TOML: engines x subsets x models x seeds x repeats, with settings. A file, a
preset, flags and the TUI all give the same plan, and `expand` makes the same runs of it.
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
from datasets_mm.strict_toml import TomlError, nearest
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
from workbench.planning.run_matrix import Block, Cell, Ints, Names, Override, Text, Variant
from workbench.planning.trained_models import Model

PRESETS = Path(__file__).parent / "presets"

YOUNGER: Final = (
    "cost_probe", "until", "oom_retries", "on_disk_full", "variants", "search", "gpu", "origins",
    "cpu", "runs",
)  # fmt: skip


class PlanError(ValueError):
    """A plan that cannot run; `problems` has one sentence for each reason, all of them at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class SuitePlan(BaseModel):
    """A suite, as a person describes it. Every list is one factor of a product."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_number: Literal[1] = Field(default=1, alias="schema")
    name: str = Field(default="suite", pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    engines: Names = Field(default=("retrieval",), alias="engine")
    task: Task | None = None
    """None: what the engine does first of all."""
    subsets: Names
    models: Names
    seeds: Ints = Field(default=(42,), min_length=1)
    repeats: int = Field(default=1, ge=1, le=1000)
    devices: Ints = ()
    """GPU indexes; empty: whatever the environment shows."""
    cpu: bool = False
    """Every GPU is hidden from the engines."""
    settings: dict[str, Any] = {}
    runs: tuple[Block, ...] = Field(default=(), alias="run")
    """Runs of several tasks, one block after the other; none: all runs are of one task."""
    variants: tuple[Variant, ...] = Field(default=(), alias="variant")
    """Every combination is run once with each of these; none: once."""
    overrides: tuple[Override, ...] = Field(default=(), alias="override")
    label: str = ""
    cost_probe: planning_cost_probe.Steps | None = None
    """Costing runs: train this many timed steps, forecast the epoch and the run; never evaluate."""
    until: planning_cost_probe.Share | None = None
    """A costing run ends as soon as its interval is narrower than this share, ± (0.02, "±2%")."""
    oom_retries: int = Field(default=3, ge=0, le=16)
    """Attempts with a smaller micro-batch after the GPU ran out of memory."""
    on_disk_full: Literal["stop", "continue"] = "stop"
    """Whether training goes on, its journal with a gap, when the disk is full."""
    search: search_space.Search | None = None
    """Settings that are searched: each trial is a run of this suite, chosen by those before it."""
    gpu: str = ""
    """The GPU that memory is forecast for, by name; empty: the one that is here."""
    origins: dict[str, str] = {}
    """Settings that come from the environment or a rule, and from which."""
    about: str = ""
    """One sentence for the list of presets."""
    title: Text = ""
    """Of the report; empty: the suite's name."""
    goal: Text = ""
    """What the suite is to find out, for the report."""
    background: Text = ""
    """What led to it, for the report."""
    why: Text | dict[str, Text] = ""
    """Why these subsets, as a sentence; or a table with one for each subset or model."""

    @model_validator(mode="before")
    @classmethod
    def _of_blocks(cls, table: Any) -> Any:
        """A plan whose blocks all name their subsets, or models, needs none of its own."""
        blocks = table.get("run") if isinstance(table, dict) else None
        if not isinstance(blocks, list) or not all(isinstance(one, dict) for one in blocks):
            return table
        found = dict(table)
        for key in ("subsets", "models"):
            own = [one.get(key) or one.get(key[:-1]) for one in blocks]
            if blocks and key not in found and all(own):
                each = [[one] if isinstance(one, str) else list(one) for one in own]
                found[key] = list(dict.fromkeys(name for names in each for name in names))
        return found

    def hash(self) -> str:
        """Equal plans have equal hashes, however they came to be."""
        texts: dict[str, Any] = dict.fromkeys(("about", "title", "goal", "background", "why"), True)
        texts["variants"] = {"__all__": {"why"}}
        content = self.model_dump(mode="json", exclude=texts)
        # Younger than the first records: plans without them keep the hashes that those hold.
        unset = set(YOUNGER) - self.model_dump(exclude_defaults=True).keys()
        content = {k: v for k, v in content.items() if k not in unset}
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


class Roots(NamedTuple):
    """Folders that an expansion reads."""

    cache: Path
    logs: Path


def load(path: Path) -> SuitePlan:
    """A plan from a TOML file.

    Raises:
        PlanError: the file cannot be read or is wrong.
    """
    return _plan(lambda: strict_toml.read(path, SuitePlan))


def parse(table: Mapping[str, Any], place: str = "plan") -> SuitePlan:
    """A plan from a table.

    Raises:
        PlanError: the table does not fit.
    """
    return _plan(lambda: strict_toml.parse(table, SuitePlan, place))


def _plan(read: Any) -> SuitePlan:
    try:
        plan: SuitePlan = read()
    except TomlError as error:
        raise PlanError([secrets.mask(problem) for problem in error.problems]) from None
    if held := sorted(set(secrets.places(plan.model_dump(mode="json", by_alias=True)))):
        remedy = "plans are kept and shown; leave it out, tools read it from the environment"
        raise PlanError([f"{place}: holds what looks like a secret; {remedy}" for place in held])
    return plan_paths.resolve_paths(plan)


def preset_files() -> dict[str, Path]:
    """The presets that ship and the user's own, by name.

    Raises:
        PlanError: two presets have one name.
    """
    files: dict[str, Path] = {}
    for folder in (PRESETS, paths.config_root() / "presets"):
        for path in strict_toml.files(folder):
            if path.stem in files:
                raise PlanError([f"{path}: a preset '{path.stem}' exists already; rename the file"])
            files[path.stem] = path
    return files


def preset(name: str) -> SuitePlan:
    """A preset by name.

    Raises:
        PlanError: there is none of that name, or it is wrong.
    """
    files = preset_files()
    if name not in files:
        raise PlanError([f"no preset '{name}'{nearest(name, files)}"])
    return load(files[name])


def dump(plan: SuitePlan) -> str:
    """The plan as TOML; `load` of it gives an equal plan."""
    import tomli_w

    table = plan.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return tomli_w.dumps({"schema": 1, **table})


def expand(plan: SuitePlan, cache_root: Path, log_root: Path | None = None) -> list[RunSpec]:
    """The runs of a plan in their order: repeat, seed, block, engine, model, subset, variant.

    Repeats are the outermost factor so that slow drift of the machine spreads over all runs. Of a
    search it is the one run that its trials vary. `log_root`: where trained models of earlier
    suites lie; None: the usual one.

    Raises:
        PlanError: unknown names, settings that an engine does not take, or a subset or model
            that cannot be had here.
    """
    roots = Roots(cache_root, log_root or paths.log_root(None))
    plan = name_models(plan, roots.logs)
    problems = plan_checks.problems(plan)
    made: list[tuple[Cell, RunSpec]] = []
    if not problems:
        for cell in run_matrix.product(plan):
            try:
                made += [(cell, spec) for spec in _specs(plan, cell, made, roots)]
            except PlanError as error:
                problems += error.problems
    specs = [spec for _, spec in made]
    if plan.search is not None and specs:
        problems += _search_problems(plan, plan.search, specs)
    if problems:
        raise PlanError(list(dict.fromkeys(problems)))
    return specs


def name_models(plan: SuitePlan, log_root: Path) -> SuitePlan:
    """The same plan with every trained model of an earlier suite as `run:SUITE/ID`.

    Raises:
        PlanError: a name fits no run, several, or one that trained nothing.
    """
    update, problems = trained_models.named(plan, log_root)
    if problems:
        raise PlanError(problems)
    return plan.model_copy(update=update)


def _search_problems(
    plan: SuitePlan, search: search_space.Search, specs: Sequence[RunSpec]
) -> list[str]:
    from engines import catalog

    lists = ("engines", "subsets", "models", "seeds", "variants", "runs")
    factors = {name: len(getattr(plan, name)) for name in lists} | {"repeats": plan.repeats}
    if len(specs) > len(list(run_matrix.product(plan))):
        factors["folds"] = specs[0].params[folds.FOLDS]
    params = catalog.load(specs[0].engine).Params
    fixed = {**plan.settings, **{k: v for o in plan.overrides for k, v in o.settings.items()}}
    found = search_space.problems(search, factors, params, specs[0].params, fixed)
    if plan.cost_probe is not None:
        found.append("search: a costing run measures no metric; leave out cost_probe")
    return found


def _specs(
    plan: SuitePlan, cell: Cell, known: Sequence[tuple[Cell, RunSpec]], roots: Roots
) -> list[RunSpec]:
    """The runs of a cell: one, or its folds and their ensemble, or one for each trained model."""
    block = next((one for one in plan.runs if one.label == cell.block), None)
    layers = [plan.settings, block.settings if block else {}]
    layers += [v.settings for v in plan.variants if v.label == cell.variant]
    layers += [o.settings for o in plan.overrides if o.fits(cell)]
    given = {key: value for layer in layers for key, value in layer.items()}
    made: list[RunSpec] = []
    for model in _models(plan, cell, known, given, roots):
        place = len(known) + len(made)
        made += _runs(plan, cell, model, given, (place, roots, block))
    return made


def _models(
    plan: SuitePlan,
    cell: Cell,
    known: Sequence[tuple[Cell, RunSpec]],
    given: Mapping[str, Any],
    roots: Roots,
) -> list[Model]:
    """What a cell's model means: one model, or those that a block before it trains."""
    label = cell.model.removeprefix(RUN)
    if cell.model == label or label not in [block.label for block in plan.runs]:
        if not availability.needs_model(cell.engine):
            return [Model(cell.model)]
        try:
            return [trained_models.of(cell.model, cell.engine, given, roots.logs)]
        except (LookupError, ValueError) as error:
            raise PlanError([str(error.args[0] if error.args else error)]) from None
    trained = [
        (spec, one.variant)
        for one, spec in known
        if (one.block, one.seed, one.repeat) == (label, cell.seed, cell.repeat)
        and spec.task == "train"
    ]
    if not trained:
        raise PlanError(
            [f"model '{cell.model}': no [[run]] of this label before '{cell.block}' trains a model"]
        )
    return [trained_models.of_sibling(spec, variant) for spec, variant in trained]


def _runs(
    plan: SuitePlan,
    cell: Cell,
    model: Model,
    given: Mapping[str, Any],
    where: tuple[int, Roots, Block | None],
) -> list[RunSpec]:
    """The run of a cell with one model, or its folds and their ensemble."""
    from engines import catalog

    number, roots, block = where
    module = catalog.load(cell.engine)
    if problems := availability.mismatches(
        cell.engine, cell.subset, model.base_model or cell.model
    ):
        raise PlanError(problems)
    if model.engine not in ("", cell.engine):
        raise PlanError(
            [f"model '{model.name}': engine {model.engine} trained it, not {cell.engine}"]
        )

    def named(place: int, part: str) -> str:
        shown = cell.model_copy(update={"model": model.base_model or cell.model})
        return _run_id(plan, shown, number + place, part)

    entry = model.settings or availability.model_settings(cell.engine, cell.model)
    settings = {**entry, **given, **trained_models.shaped(model, given)}
    one = _spec(plan, cell, (model, settings, given), named, (roots, block))
    return folds.spread(one, settings, module.TASKS, named)


def _spec(
    plan: SuitePlan,
    cell: Cell,
    chosen: tuple[Model, Mapping[str, Any], Mapping[str, Any]],
    named: Callable[[int, str], str],
    where: tuple[Roots, Block | None],
) -> RunSpec:
    from engines import catalog

    (model, settings, given), (roots, block) = chosen, where
    module = catalog.load(cell.engine)
    task = (block and block.task) or plan.task or module.TASKS[0]
    if task not in module.TASKS:
        known = ", ".join(module.TASKS)
        raise PlanError([f"engine '{cell.engine}' has no task '{task}'; it has {known}"])
    if sentence := planning_cost_probe.problem(plan.cost_probe, plan.until, task, module.TASKS):
        raise PlanError([sentence])
    probe = planning_cost_probe.probe(plan.cost_probe, plan.until, task, module.TASKS)
    try:
        params = module.Params.model_validate(settings)
        stated = module.Params.model_validate({**model.settings, **given})
    except ValidationError as error:
        place = f"settings of {cell.engine}"
        raise PlanError(strict_toml.sentences(error, module.Params, place)) from None
    full = params.model_dump(mode="json")
    reasons = trained_models.conflicts(model, given, stated.model_dump(mode="json"))
    if reasons := reasons + availability.reasons(cell.engine, cell.subset, cell.model, full):
        raise PlanError(reasons)
    return RunSpec(
        suite="",
        run_id=named(0, "probe" if probe else ""),
        engine=cell.engine,
        task="probe" if probe else task,
        subset=cell.subset,
        model=model.name,
        base_model=model.base_model,
        params=full,
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


def _label(plan: SuitePlan, cell: Cell, trained: str) -> str:
    """`trained`: the variant that trained its model."""
    fitting = (o.label for o in reversed(plan.overrides) if o.fits(cell) and o.label is not None)
    own = cell.variant or cell.block or plan.label
    return next(fitting, f"{own} {trained}" if trained else own)


def _run_id(plan: SuitePlan, cell: Cell, number: int, part: str) -> str:
    parts = [f"{number + 1:02d}", cell.engine, cell.subset, cell.model]
    if len(plan.seeds) > 1:
        parts.append(f"s{cell.seed}")
    if plan.repeats > 1:
        parts.append(f"r{cell.repeat + 1}")
    parts += [name for name in (cell.block, cell.variant) if name]
    tail = f"-{part}" if part else ""
    plain = re.sub(r"[^a-z0-9._-]+", "_", "-".join(parts).lower())
    return plain[: 96 - len(tail)].rstrip("-_.") + tail
