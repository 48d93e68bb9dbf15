"""Draft of a plan on the Plan screen, its check and its preview.

`PlanDraft` is pure; `check_draft` calls the real plan code and so runs in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from workbench.pricing.costs import (
    NO_COST,
    UNKNOWN_MACHINE,
    MachineState,
    RunCost,
)
from workbench.pricing.earlier import EarlierRuns

if TYPE_CHECKING:
    from engines.protocol import RunSpec
    from workbench.planning.plan import SuitePlan
    from workbench.planning.run_matrix import PlanCell

NOTHING = "none"
"""Subset and model of an engine that needs neither."""


@dataclass(frozen=True, slots=True)
class PlanDraft:
    """The choices so far; immutable."""

    engine: str = ""
    more_engines: tuple[str, ...] = ()
    """Further engines of a preset; kept until another engine is chosen."""
    task: str = ""
    needs_data: bool = True
    subsets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Engine settings that differ from their defaults."""
    suite: Mapping[str, Any] = field(default_factory=dict)
    """Plan settings that differ from their defaults."""
    rest: Mapping[str, Any] = field(default_factory=dict)
    """Other keys of a preset, which the screen does not show: overrides, for example."""
    preset: str = ""

    def toggle_subset(self, name: str) -> PlanDraft:
        """Add or remove a subset."""
        return replace(self, subsets=_toggle(self.subsets, name))

    def toggle_model(self, name: str) -> PlanDraft:
        """Add or remove a model."""
        return replace(self, models=_toggle(self.models, name))

    def move_name(self, kind: str, name: str, by: int) -> PlanDraft:
        """Move a name of `subsets` or `models` by so many places; unchanged at the border."""
        names = list(getattr(self, kind))
        at = names.index(name)
        if not 0 <= at + by < len(names):
            return self
        names.insert(at + by, names.pop(at))
        moved = tuple(names)
        return replace(self, subsets=moved) if kind == "subsets" else replace(self, models=moved)

    def exclude_cells(self, selector: Mapping[str, Any]) -> PlanDraft:
        """Leave the runs out that match every key of the selector."""
        exclusions = [*self.suite.get("exclude", ()), dict(selector)]
        return replace(self, suite={**self.suite, "exclude": exclusions})

    def restore_cell(self, cell: Mapping[str, Any]) -> PlanDraft:
        """Take back every exclusion that matches the cell; `cell`: keys of an exclusion."""
        kept = [
            selector
            for selector in self.suite.get("exclude", ())
            if any(key != "why" and cell.get(key) != v for key, v in selector.items())
        ]
        rest = {key: value for key, value in self.suite.items() if key != "exclude"}
        return replace(self, suite={**rest, **({"exclude": kept} if kept else {})})

    def count_changes(self, before: PlanDraft) -> int:
        """Number of fields and settings in which it differs from another draft."""
        fields = ("engine", "more_engines", "task", "subsets", "models", "rest")
        changed: int = sum(getattr(self, name) != getattr(before, name) for name in fields)
        for kind in ("settings", "suite"):
            here, there = getattr(self, kind), getattr(before, kind)
            changed += sum(here.get(key) != there.get(key) for key in {*here, *there})
        return changed

    def as_memory(self) -> dict[str, Any]:
        """The draft as JSON values."""
        return asdict(self)

    @classmethod
    def from_memory(cls, memory: Any) -> Self | None:
        """The draft of `as_memory`; None: it is none."""
        tuples = ("more_engines", "subsets", "models")
        tables = ("settings", "suite", "rest")
        if not isinstance(memory, dict):
            return None
        if not all(isinstance(memory.get(key), list | tuple) for key in tuples):
            return None
        if not all(isinstance(memory.get(key), dict) for key in tables):
            return None
        try:
            return cls(**{**memory, **{key: tuple(map(str, memory[key])) for key in tuples}})
        except TypeError:  # a field of another version
            return None

    def table(self) -> dict[str, Any]:
        """The plan as the table of its TOML."""
        empty = () if self.needs_data else (NOTHING,)
        table: dict[str, Any] = {
            **self.rest,
            "engine": [self.engine, *self.more_engines] if self.more_engines else self.engine,
            "subsets": list((self.subsets if self.needs_data else ()) or empty),
            "models": list((self.models if self.needs_data else ()) or empty),
            **self.suite,
        }
        if self.rest.get("run"):
            table = {k: v for k, v in table.items() if k not in ("subsets", "models") or v}
        if self.task and self.task != "train":
            table["task"] = self.task
        if self.settings:
            table["settings"] = dict(self.settings)
        return table


def draft_from_table(
    table: Mapping[str, Any], suite_keys: tuple[str, ...], preset: str = ""
) -> PlanDraft:
    """The draft that a plan's table describes."""
    shown_keys = {"schema", "about", "engine", "task", "subsets", "models", "settings", *suite_keys}
    engines = table.get("engine") or ()
    named = (engines,) if isinstance(engines, str) else tuple(map(str, engines))
    return PlanDraft(
        engine=named[0] if named else "",
        more_engines=named[1:],
        task=str(table.get("task", "")),
        subsets=tuple(table.get("subsets", ())),
        models=tuple(table.get("models", ())),
        settings=dict(table.get("settings", {})),
        suite={key: table[key] for key in suite_keys if key in table},
        rest={key: value for key, value in table.items() if key not in shown_keys},
        preset=preset,
    )


def read_plan_table(path: Path) -> dict[str, Any]:
    """The table of a plan file, as presets have it.

    Raises:
        PlanError: the file cannot be read or is wrong.
    """
    from workbench.planning import plan

    return plan.load(path).model_dump(mode="json", by_alias=True, exclude_defaults=True)


@dataclass(frozen=True, slots=True)
class PreviewRun:
    """One run that the plan would start."""

    run_id: str
    engine: str
    subset: str
    model: str
    seed: int
    repeat: int
    part: str = ""
    """Fold, variant or block that tells it from other runs of its subset and model."""
    cost: RunCost = NO_COST
    variant: str = ""
    """Label of its variant."""
    block: str = ""
    """Label of its `[[run]]` block."""
    excluded: bool = False
    """The plan leaves it out; it is no run."""


@dataclass(frozen=True, slots=True)
class PlanPreview:
    """Runs and plan file of a draft, or its problems."""

    runs: tuple[PreviewRun, ...] = ()
    cells: tuple[PreviewRun, ...] = ()
    """The runs, and those that the plan leaves out, in the order of the product."""
    toml: str = ""
    file: Path | None = None
    problems: tuple[str, ...] = ()
    expected: str = ""
    """Time and accuracy that a document states for these runs; empty: none."""
    machine: MachineState = UNKNOWN_MACHINE
    equal_suite: str = ""
    """Name of a suite with the same plan; empty: there is none."""


def check_draft(
    draft: PlanDraft, cache_root: Path, log_root: Path, earlier: EarlierRuns
) -> PlanPreview:
    """Expand the draft with the real plan code and price it; errors become `problems`."""
    from results.text.sanitize import clean, clean_line
    from workbench.memory_estimate import expectations
    from workbench.planning import expand, plan
    from workbench.pricing import pricing

    try:
        if missing := _missing(draft):
            return PlanPreview(problems=missing)
        suite_plan = plan.parse(draft.table())
        toml, name = plan.dump(suite_plan), f"{suite_plan.name}-{suite_plan.hash()[:6]}.toml"
        file = log_root / "plans" / name
        try:
            expanded = expand.expand_cells(suite_plan, cache_root, log_root)
        except plan.PlanError as error:
            problems = tuple(map(clean_line, error.problems))
            return PlanPreview(toml=clean(toml), file=file, problems=problems)
        suite_plan = plan.resolve_model_names(suite_plan, log_root)
    except plan.PlanError as error:
        return PlanPreview(problems=tuple(map(clean_line, error.problems)))
    except Exception as error:
        return PlanPreview(problems=(clean_line(f"{type(error).__name__}: {error}"),))
    device = pricing.find_device(suite_plan)
    specs = [spec for _, spec in expanded]
    priced = pricing.price_runs(specs, cache_root, earlier.read(), device)
    cells = _preview_cells(suite_plan, expanded, priced)
    figures = "; ".join(
        recipe.brief() for recipe in expectations.plan_expectations(suite_plan, cache_root)
    )
    return PlanPreview(
        runs=tuple(cell for cell in cells if not cell.excluded),
        cells=cells,
        toml=clean(toml),
        file=file,
        expected=figures,
        machine=pricing.read_machine(device, log_root),
        equal_suite=pricing.find_equal_plan(toml, log_root),
    )


def _preview_cells(
    suite_plan: SuitePlan,
    expanded: Sequence[tuple[PlanCell, RunSpec]],
    priced: Sequence[RunCost],
) -> tuple[PreviewRun, ...]:
    """The runs of a plan with their costs, and what it leaves out, in the order of its product."""
    from results.text.sanitize import clean_line
    from workbench.planning import fold_runs, run_matrix

    runs: dict[PlanCell, list[PreviewRun]] = {}
    for (cell, spec), cost in zip(expanded, priced, strict=True):
        run = PreviewRun(
            spec.run_id, spec.engine, clean_line(spec.subset), clean_line(spec.model), spec.seed,
            spec.repeat, clean_line(fold_runs.fold_label(spec) or spec.label, 40), cost,
            cell.variant, cell.block,
        )  # fmt: skip
        runs.setdefault(cell, []).append(run)
    cells = []
    for number, cell in enumerate(run_matrix.iterate_product(suite_plan)):
        left_out = PreviewRun(
            f"excluded:{number}", cell.engine, clean_line(cell.subset), clean_line(cell.model),
            cell.seed, cell.repeat, cell.variant, NO_COST, cell.variant, cell.block,
            excluded=True,
        )  # fmt: skip
        cells += runs.get(cell, [left_out])
    return tuple(cells)


def _missing(draft: PlanDraft) -> tuple[str, ...]:
    if not draft.engine:
        return ("Choose an engine.",)
    if not draft.needs_data or draft.rest.get("run"):  # its blocks name their own
        return ()
    parts = [
        sentence
        for chosen, sentence in (
            (draft.subsets, "Choose at least one subset."),
            (draft.models, "Choose at least one model."),
        )
        if not chosen
    ]
    return tuple(parts)


def save_draft(draft: PlanDraft, log_root: Path) -> Path:
    """Write the plan file for `workbench run`; returns its path.

    Raises:
        PlanError: the draft is no plan.
        OSError: the log root cannot be written.
    """
    from workbench import paths
    from workbench.planning import plan

    suite_plan = plan.parse(draft.table())
    folder = paths.make_private(log_root / "plans")
    path = folder / f"{suite_plan.name}-{suite_plan.hash()[:6]}.toml"
    path.write_text(plan.dump(suite_plan), encoding="utf-8")
    return path


def save_preset(draft: PlanDraft, name: str) -> Path:
    """Write the plan as a preset of the user's own; one of that name is replaced.

    Raises:
        PlanError: the draft is no plan, or the name is a shipped preset's or no file name.
        OSError: the folder cannot be written.
    """
    import re

    from datasets_mm.atomic_files import write_atomic
    from workbench import paths
    from workbench.planning import plan

    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name):
        raise plan.PlanError([f"'{name}': a name has small letters, digits and hyphens, up to 40"])
    shipped = plan.preset_files().get(name)
    if shipped is not None and shipped.parent == plan.PRESETS:
        raise plan.PlanError([f"'{name}' is a preset that ships; choose another name"])
    text = plan.dump(plan.parse(draft.table()))
    folder = paths.make_private(paths.config_root() / "presets")
    write_atomic(folder / f"{name}.toml", text)
    return folder / f"{name}.toml"


def _toggle(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(n for n in names if n != name) if name in names else (*names, name)
