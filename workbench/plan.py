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
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from datasets_mm import tomlfile
from datasets_mm.tomlfile import TomlError, nearest
from engines.protocol import RunSpec, Task
from results import secrets
from workbench import costing, folds, paths, plan_paths, presence, ranges

PRESETS = Path(__file__).parent / "presets"

YOUNGER: Final = (
    "cost_probe", "until", "oom_retries", "on_disk_full", "variants", "search", "gpu", "origins",
    "cpu",
)  # fmt: skip


class PlanError(ValueError):
    """A plan that cannot run; `problems` has one sentence for each reason, all of them at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | int) and not isinstance(value, bool) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Ints = Annotated[tuple[int, ...], BeforeValidator(_as_tuple)]
Text = Annotated[str, Field(max_length=4000)]


class Override(BaseModel):
    """Settings for those runs that fit every key given here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str | None = None
    subset: str | None = None
    model: str | None = None
    seed: int | None = None
    variant: str | None = None
    settings: dict[str, Any] = {}
    label: str | None = None

    def fits(self, cell: Cell) -> bool:
        """Whether a run is meant."""
        keys = ("engine", "subset", "model", "seed", "variant")
        return all(getattr(self, key) in (None, getattr(cell, key)) for key in keys)


class Variant(BaseModel):
    """One set of settings among several that are compared: an arm of an ablation, an experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = Field(min_length=1, max_length=40)
    """Its name in tables, say "E5-v2"."""
    settings: dict[str, Any] = {}
    why: Text = ""
    """Why it is compared, for the report."""


class Cell(BaseModel):
    """One run's place in the product."""

    model_config = ConfigDict(frozen=True)

    engine: str
    subset: str
    model: str
    seed: int
    repeat: int
    variant: str = ""


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
    variants: tuple[Variant, ...] = Field(default=(), alias="variant")
    """Every combination is run once with each of these; none: once."""
    overrides: tuple[Override, ...] = Field(default=(), alias="override")
    label: str = ""
    cost_probe: costing.Steps | None = None
    """Costing runs: train this many timed steps, forecast the epoch and the run; never evaluate."""
    until: costing.Share | None = None
    """A costing run ends as soon as its interval is narrower than this share, ± (0.02, "±2%")."""
    oom_retries: int = Field(default=3, ge=0, le=16)
    """Attempts with a smaller micro-batch after the GPU ran out of memory."""
    on_disk_full: Literal["stop", "continue"] = "stop"
    """Whether training goes on, its journal with a gap, when the disk is full."""
    search: ranges.Search | None = None
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


def load(path: Path) -> SuitePlan:
    """A plan from a TOML file.

    Raises:
        PlanError: the file cannot be read or is wrong.
    """
    return _plan(lambda: tomlfile.read(path, SuitePlan))


def parse(table: Mapping[str, Any], place: str = "plan") -> SuitePlan:
    """A plan from a table.

    Raises:
        PlanError: the table does not fit.
    """
    return _plan(lambda: tomlfile.parse(table, SuitePlan, place))


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
        for path in tomlfile.files(folder):
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


def expand(plan: SuitePlan, cache_root: Path) -> list[RunSpec]:
    """The runs of a plan in their order: repeat, seed, engine, model, subset, variant.

    Repeats are the outermost factor so that slow drift of the machine spreads over all runs. Of a
    search it is the one run that its trials vary.

    Raises:
        PlanError: unknown names, settings that an engine does not take, or a subset or model
            that cannot be had here.
    """
    problems = [*_unknown_names(plan), *_same_variants(plan), *_unused_overrides(plan)]
    problems += [*_unknown_reasons(plan), *presence.device_conflict(plan.devices, cpu=plan.cpu)]
    specs: list[RunSpec] = []
    if not problems:
        for cell in _cells(plan):
            try:
                specs += _specs(plan, cell, len(specs), cache_root)
            except PlanError as error:
                problems += error.problems
    if plan.search is not None and specs:
        problems += _search_problems(plan, plan.search, specs)
    if problems:
        raise PlanError(list(dict.fromkeys(problems)))
    return specs


def _search_problems(plan: SuitePlan, search: ranges.Search, specs: Sequence[RunSpec]) -> list[str]:
    from engines import catalog

    lists = ("engines", "subsets", "models", "seeds", "variants")
    factors = {name: len(getattr(plan, name)) for name in lists} | {"repeats": plan.repeats}
    if len(specs) > len(_cells(plan)):
        factors["folds"] = specs[0].params[folds.FOLDS]
    params = catalog.load(specs[0].engine).Params
    fixed = {**plan.settings, **{k: v for o in plan.overrides for k, v in o.settings.items()}}
    found = ranges.problems(search, factors, params, specs[0].params, fixed)
    if plan.cost_probe is not None:
        found.append("search: a costing run measures no metric; leave out cost_probe")
    return found


def _cells(plan: SuitePlan) -> list[Cell]:
    return [
        Cell(engine=engine, subset=subset, model=model, seed=seed, repeat=repeat, variant=variant)
        for repeat in range(plan.repeats)
        for seed in plan.seeds
        for engine in plan.engines
        for model in plan.models
        for subset in plan.subsets
        for variant in [v.label for v in plan.variants] or [""]
    ]


def _specs(plan: SuitePlan, cell: Cell, number: int, cache_root: Path) -> list[RunSpec]:
    """The run of a cell, or its folds and their ensemble."""
    from engines import catalog

    module = catalog.load(cell.engine)
    settings = {**presence.model_settings(cell.engine, cell.model), **plan.settings}
    settings |= next((v.settings for v in plan.variants if v.label == cell.variant), {})
    for override in plan.overrides:
        settings |= override.settings if override.fits(cell) else {}

    if problems := presence.mismatches(cell.engine, cell.subset, cell.model):
        raise PlanError(problems)

    def named(place: int, part: str) -> str:
        return _run_id(plan, cell, number + place, part)

    one = _spec(plan, cell, settings, named, cache_root)
    return folds.spread(one, settings, module.TASKS, named)


def _spec(
    plan: SuitePlan,
    cell: Cell,
    settings: Mapping[str, Any],
    named: Callable[[int, str], str],
    cache_root: Path,
) -> RunSpec:
    from engines import catalog

    module = catalog.load(cell.engine)
    fitting = [o for o in plan.overrides if o.fits(cell)]
    task = plan.task or module.TASKS[0]
    if task not in module.TASKS:
        known = ", ".join(module.TASKS)
        raise PlanError([f"engine '{cell.engine}' has no task '{task}'; it has {known}"])
    if sentence := costing.problem(plan.cost_probe, plan.until, task, module.TASKS):
        raise PlanError([sentence])
    probe = costing.probe(plan.cost_probe, plan.until, task, module.TASKS)
    try:
        params = module.Params.model_validate(settings)
    except ValidationError as error:
        place = f"settings of {cell.engine}"
        raise PlanError(tomlfile.sentences(error, module.Params, place)) from None
    full = params.model_dump(mode="json")
    if reasons := presence.reasons(cell.engine, cell.subset, cell.model, full):
        raise PlanError(reasons)
    return RunSpec(
        suite="",
        run_id=named(0, "probe" if probe else ""),
        engine=cell.engine,
        task="probe" if probe else task,
        subset=cell.subset,
        model=cell.model,
        params=full,
        seed=cell.seed,
        repeat=cell.repeat,
        devices=plan.devices,
        cpu=plan.cpu,
        cache_root=str(cache_root),
        label=next(
            (o.label for o in reversed(fitting) if o.label is not None), cell.variant or plan.label
        ),
        plan_hash=plan.hash(),
        probe=probe,
        oom_retries=plan.oom_retries,
        on_disk_full=plan.on_disk_full,
        origins=plan.origins,
    )


def _run_id(plan: SuitePlan, cell: Cell, number: int, part: str) -> str:
    parts = [f"{number + 1:02d}", cell.engine, cell.subset, cell.model]
    if len(plan.seeds) > 1:
        parts.append(f"s{cell.seed}")
    if plan.repeats > 1:
        parts.append(f"r{cell.repeat + 1}")
    if cell.variant:
        parts.append(cell.variant)
    tail = f"-{part}" if part else ""
    plain = re.sub(r"[^a-z0-9._-]+", "_", "-".join(parts).lower())
    return plain[: 96 - len(tail)].rstrip("-_.") + tail


def _unknown_names(plan: SuitePlan) -> list[str]:
    from datasets_mm import catalog as subsets
    from engines import catalog, models

    engine_names = catalog.names()
    problems = [
        f"no engine '{engine}'{nearest(engine, engine_names)}"
        for engine in plan.engines
        if engine not in engine_names
    ]
    if problems or not any(presence.needs_model(engine) for engine in plan.engines):
        return problems
    known_subsets = subsets.names()
    problems += [
        f"no subset '{name}'{nearest(name, known_subsets)}"
        for name in plan.subsets
        if name not in known_subsets
    ]
    for name in plan.models:
        try:
            models.load(name)
        except (LookupError, ValueError) as error:
            problems.append(str(error.args[0] if error.args else error))
    return problems


def _same_variants(plan: SuitePlan) -> list[str]:
    labels = [variant.label for variant in plan.variants]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    return [f"two [[variant]] have the label '{label}'; rename one" for label in twice]


def _unknown_reasons(plan: SuitePlan) -> list[str]:
    """A reason for something that the plan does not run is a typo in its name."""
    known = [*plan.subsets, *plan.models, *(v.label for v in plan.variants)]
    reasons = plan.why if isinstance(plan.why, dict) else {}
    return [
        f"why: '{name}' is no subset, model or variant of the plan{nearest(name, known)}"
        for name in reasons
        if name not in known
    ]


def _unused_overrides(plan: SuitePlan) -> list[str]:
    """An override that fits no run is a typo in its keys."""
    cells = _cells(plan)
    return [
        f"[[override]] number {number} fits no run; "
        "check its engine, subset, model, seed and variant"
        for number, override in enumerate(plan.overrides, 1)
        if not any(override.fits(cell) for cell in cells)
    ]
