"""The plan that is being made on the Plan screen, and what the workbench says of it.

`Draft` is pure; `check` asks the real plan code and so runs in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

NOTHING = "none"
"""Subset and model of an engine that needs neither."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What was chosen so far."""

    engine: str = ""
    more_engines: tuple[str, ...] = ()
    """Further engines that a preset brought; kept until another engine is chosen by hand."""
    task: str = ""
    needs_data: bool = True
    subsets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Engine settings that differ from their defaults."""
    suite: Mapping[str, Any] = field(default_factory=dict)
    """Plan settings that differ from their defaults."""
    rest: Mapping[str, Any] = field(default_factory=dict)
    """What a preset brought that this screen does not show: overrides, say."""
    preset: str = ""

    def toggle_subset(self, name: str) -> Draft:
        """Take a subset in, or out."""
        return replace(self, subsets=_toggled(self.subsets, name))

    def toggle_model(self, name: str) -> Draft:
        """Take a model in, or out."""
        return replace(self, models=_toggled(self.models, name))

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


def from_table(table: Mapping[str, Any], suite_keys: tuple[str, ...], preset: str = "") -> Draft:
    """The draft that a plan's table describes."""
    own = {"schema", "about", "engine", "task", "subsets", "models", "settings", *suite_keys}
    engines = table.get("engine") or ()
    named = (engines,) if isinstance(engines, str) else tuple(map(str, engines))
    return Draft(
        engine=named[0] if named else "",
        more_engines=named[1:],
        task=str(table.get("task", "")),
        subsets=tuple(table.get("subsets", ())),
        models=tuple(table.get("models", ())),
        settings=dict(table.get("settings", {})),
        suite={key: table[key] for key in suite_keys if key in table},
        rest={key: value for key, value in table.items() if key not in own},
        preset=preset,
    )


@dataclass(frozen=True, slots=True)
class PreviewRun:
    """One run that the plan would start."""

    run_id: str
    engine: str
    subset: str
    model: str
    seed: int
    repeat: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What would happen, or why nothing can."""

    runs: tuple[PreviewRun, ...] = ()
    toml: str = ""
    file: Path | None = None
    problems: tuple[str, ...] = ()
    expected: str = ""
    """What a document expects of these runs: time and accuracy; empty: nothing."""


def check(draft: Draft, cache_root: Path, log_root: Path) -> Preview:
    """Expand the draft with the real plan code."""
    from results.text.sanitize import clean, clean_line
    from workbench.memory_estimate import expectations
    from workbench.planning import plan

    try:
        if missing := _missing(draft):
            return Preview(problems=missing)
        asked = plan.parse(draft.table())
        toml, name = plan.dump(asked), f"{asked.name}-{asked.hash()[:6]}.toml"
        file = log_root / "plans" / name
        try:
            specs = plan.expand(asked, cache_root, log_root)
        except plan.PlanError as error:
            return Preview((), clean(toml), file, tuple(map(clean_line, error.problems)))
    except plan.PlanError as error:
        return Preview(problems=tuple(map(clean_line, error.problems)))
    except Exception as error:
        return Preview(problems=(clean_line(f"{type(error).__name__}: {error}"),))
    runs = tuple(
        PreviewRun(s.run_id, s.engine, clean_line(s.subset), clean_line(s.model), s.seed, s.repeat)
        for s in specs
    )
    figures = "; ".join(
        recipe.brief() for recipe in expectations.plan_expectations(asked, cache_root)
    )
    return Preview(runs, clean(toml), file, (), figures)


def _missing(draft: Draft) -> tuple[str, ...]:
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


def save(draft: Draft, log_root: Path) -> Path:
    """Write the plan file that `workbench run` will be given; returns its path.

    Raises:
        PlanError: the draft is no plan.
        OSError: the log root cannot be written.
    """
    from workbench import paths
    from workbench.planning import plan

    asked = plan.parse(draft.table())
    folder = paths.make_private(log_root / "plans")
    path = folder / f"{asked.name}-{asked.hash()[:6]}.toml"
    path.write_text(plan.dump(asked), encoding="utf-8")
    return path


def _toggled(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(n for n in names if n != name) if name in names else (*names, name)
