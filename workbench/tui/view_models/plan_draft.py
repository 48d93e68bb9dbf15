"""Draft of a plan on the Plan screen, its check and its preview.

`PlanDraft` is pure; `check_draft` calls the real plan code and so runs in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workbench.pricing.costs import (
    NO_COST,
    UNKNOWN_MACHINE,
    MachineState,
    RunCost,
)
from workbench.pricing.earlier import EarlierRuns

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


@dataclass(frozen=True, slots=True)
class PlanPreview:
    """Runs and plan file of a draft, or its problems."""

    runs: tuple[PreviewRun, ...] = ()
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
    from workbench.planning import expand, folds, plan
    from workbench.pricing import pricing

    try:
        if missing := _missing(draft):
            return PlanPreview(problems=missing)
        suite_plan = plan.parse(draft.table())
        toml, name = plan.dump(suite_plan), f"{suite_plan.name}-{suite_plan.hash()[:6]}.toml"
        file = log_root / "plans" / name
        try:
            specs = expand.expand(suite_plan, cache_root, log_root)
        except plan.PlanError as error:
            return PlanPreview((), clean(toml), file, tuple(map(clean_line, error.problems)))
    except plan.PlanError as error:
        return PlanPreview(problems=tuple(map(clean_line, error.problems)))
    except Exception as error:
        return PlanPreview(problems=(clean_line(f"{type(error).__name__}: {error}"),))
    device = pricing.find_device(suite_plan)
    priced = pricing.price_runs(specs, cache_root, earlier.read(), device)
    runs = tuple(
        PreviewRun(
            spec.run_id, spec.engine, clean_line(spec.subset), clean_line(spec.model), spec.seed,
            spec.repeat, clean_line(folds.fold_label(spec) or spec.label, 40), cost,
        )
        for spec, cost in zip(specs, priced, strict=True)
    )  # fmt: skip
    figures = "; ".join(
        recipe.brief() for recipe in expectations.plan_expectations(suite_plan, cache_root)
    )
    machine = pricing.read_machine(device, log_root)
    equal = pricing.find_equal_plan(toml, log_root)
    return PlanPreview(runs, clean(toml), file, (), figures, machine, equal)


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


def _toggle(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(n for n in names if n != name) if name in names else (*names, name)
