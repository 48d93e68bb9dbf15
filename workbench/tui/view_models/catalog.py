"""Catalogs for the Plan screen: engines, subsets, models and presets as frozen entries.

Read in a thread after the first frame, since importing pydantic and reading the catalogs takes
longer than a frame may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.tui.view_models import form_fields
from workbench.tui.view_models.form_fields import Setting
from workbench.tui.view_models.plan import groups

if TYPE_CHECKING:
    from pydantic import BaseModel

PLANNED: Final = ("train", "evaluate", "infer")
"""Tasks that a person chooses; the others belong to cost probes and folds."""
TASK_ABOUT: Final = (
    "train: also goes on with a trained model (run:…); evaluate: metrics; infer: predictions alone"
)
FIRST_PRESET: Final = "demo"
"""The initial preset: it runs on any machine, in minutes."""


@dataclass(frozen=True, slots=True)
class SubsetEntry:
    """One subset of the catalog."""

    name: str
    title: str = ""
    rows: int | None = None
    corpus_rows: int | None = None
    built: bool = False
    license: str = ""
    problem: str = ""
    """Why it cannot be used here; empty if it can."""
    form: str = ""
    """Form of its records, which decides the engine; empty: unknown."""
    expected_rows: int | None = None
    """Records by its recipe, where the build has another number: it is of a small copy."""
    data_root: str = ""
    """Folder that it was built from; empty: packages, or not known."""

    @property
    def origin(self) -> str:
        """Where the build is from, and what it lacks; empty: nothing to tell."""
        source = f"built from {self.data_root}" if self.data_root else ""
        if self.expected_rows is None:
            return source
        count = f"{self.rows:,} of the {self.expected_rows:,} records of the recipe"
        return f"{source or 'built'}: {count}"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """One model of the catalog."""

    name: str
    summary: str = ""
    engines: tuple[str, ...] = ()
    """Engines that support it; empty: all."""
    problem: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its defaults; they override the engine's and are overridden by the plan's."""
    trained: bool = False
    """A run of the log root trained it; `summary` says on what and how well."""


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """One engine and its settings."""

    name: str
    summary: str = ""
    tasks: tuple[str, ...] = ()
    needs_data: bool = True
    form: str = ""
    """Form of its records; empty: any."""
    settings: tuple[form_fields.Setting, ...] = ()

    @property
    def task_settings(self) -> tuple[Setting, ...]:
        """The task as a setting, where there is a choice."""
        choices = tuple(task for task in self.tasks if task in PLANNED)
        if len(choices) < 2:
            return ()
        return (Setting("task", "choice", choices[0], about=TASK_ABOUT, choices=choices),)


@dataclass(frozen=True, slots=True)
class PresetEntry:
    """A plan to start from."""

    name: str
    about: str
    table: Mapping[str, Any]
    expected: str = ""
    """Time and accuracy that a document states for it; empty: none."""


@dataclass(frozen=True, slots=True)
class Catalogs:
    """All catalogs, and the problems of reading them."""

    engines: tuple[EngineEntry, ...] = ()
    subsets: tuple[SubsetEntry, ...] = ()
    models: tuple[ModelChoice, ...] = ()
    presets: tuple[PresetEntry, ...] = ()
    suite: tuple[form_fields.Setting, ...] = ()
    """Settings of the plan itself: name, seeds, repeats, devices, label."""
    problems: tuple[str, ...] = ()

    def model_defaults(self, models: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """Setting -> model -> default of this model, for the given models."""
        defaults: dict[str, dict[str, Any]] = {}
        for entry in self.models:
            if entry.name in models:
                for name, value in entry.settings.items():
                    defaults.setdefault(name, {})[entry.name] = value
        return defaults

    def is_for(self, subset: SubsetEntry, engine: str) -> bool:
        """Whether the engine supports the form of this subset's records."""
        entry = self.engine(engine)
        forms = (subset.form, entry.form if entry else "")
        return "" in forms or len(set(forms)) == 1

    def engine(self, name: str) -> EngineEntry | None:
        """The engine of that name."""
        return next((e for e in self.engines if e.name == name), None)


PLAN_SETTINGS: Final = {
    "name": "Name of the suite: small letters, digits and hyphens",
    "seeds": "Seeds, with commas between; every run is made once with each",
    "repeats": "How often everything is repeated, to see the noise between runs",
    "devices": "GPUs that the runs may see, index or UUID; empty: whatever the environment shows",
    "lanes": "Runs at the same time: all, a number, or GPUs as 0,1,3; empty: one after the other",
    "gpus_per_run": "GPUs of a lane; 0: as many as the largest run has processes",
    "exclusive": "Each run has the host for itself: no other lane works meanwhile",
    "cpu": "Compute on the CPU: every GPU is hidden from the runs",
    "label": "Name of the experiment, as tables show it",
    "cost_probe": "Cost probe: train so many steps (200, say) and forecast; empty: train it all",
    "max_uncertainty": "Cost probe: stop when the forecast is as sure as this, 2% or 0.02",
    "variant": "Variants: sets of settings that are compared; every run is made with each. "
    "A label, and what differs",
    "search": "Search: settings that trials vary, the metric that is to be best, how many trials",
    "override": "Overrides: other settings, or a label, for the runs of a subset, model, seed",
    "exclude": "Runs that are left out of the product; x on a run in Runs does the same",
}
"""Plan settings in the form -> description."""


def read_catalogs(cache_root: Path, log_root: Path) -> Catalogs:
    """Read all catalogs; broken entries are listed in `problems`."""
    from workbench.planning import plan

    problems: list[str] = []
    form = {s.name: s for s in form_fields.settings_of_schema(plan.SuitePlan.model_json_schema())}
    form["lanes"] = replace(form["lanes"], kind="text")  # as typed: `4` is no list of GPU 4
    _describe_parts(form)
    return Catalogs(
        engines=_read_engines(problems),
        subsets=read_subsets(cache_root, problems),
        models=(*_read_models(problems), *read_trained_models(log_root)),
        presets=_read_presets(cache_root, problems),
        suite=tuple(
            replace(form[name], about=about)
            for name, about in PLAN_SETTINGS.items()
            if name in form
        ),
        problems=tuple(problems),
    )


def _describe_parts(form: dict[str, Setting]) -> None:
    """Put descriptions to the fields of the plan's tables."""
    from workbench.planning import plan_schema, run_matrix, search_space

    tables: dict[str, type[BaseModel]] = {
        "variant": run_matrix.Variant, "override": run_matrix.Override,
        "exclude": run_matrix.Exclusion, "search": search_space.SearchPlan,
    }  # fmt: skip
    for name, table in tables.items():
        docs = plan_schema.field_docs(table)
        fields = (replace(f, about=docs.get(f.name, "").rstrip(".")) for f in form[name].parts)
        title = f"[{name}]" if name == "search" else f"[[{name}]]"  # an engine may have a `search`
        form[name] = replace(form[name], name=title, parts=tuple(fields))


def _read_engines(problems: list[str]) -> tuple[EngineEntry, ...]:
    from engines import catalog
    from results.text.sanitize import clean_line

    entries = []
    for name in catalog.names():
        try:
            engine = catalog.load(name)
            titles = groups.section_titles(engine.Params)
            form = tuple(
                replace(setting, group=titles.get(setting.name, ""))
                for setting in form_fields.settings_of_schema(engine.Params.model_json_schema())
            )
        except Exception as error:
            problems.append(f"engine {name}: {error}")
            continue
        summary = clean_line(engine.SUMMARY)
        tasks, needs = tuple(engine.TASKS), bool(engine.NEEDS)
        entries.append(EngineEntry(name, summary, tasks, needs, engine.FORM, form))
    return tuple(entries)


def read_subsets(
    cache_root: Path, problems: list[str], data_root: Path | None = None
) -> tuple[SubsetEntry, ...]:
    """Every subset; failures are appended to `problems`. `data_root`: folder of data that do not
    ship; None: the local hub cache."""
    from datasets_mm import catalog
    from results.text.sanitize import clean_line

    entries = []
    for name in _read_names(catalog.names, problems):
        try:
            row = catalog.summary(name, cache_root)
            problem = catalog.find_problem(name, data_root) or ""
        except Exception as error:
            entries.append(SubsetEntry(clean_line(name), problem=clean_line(str(error))))
            continue
        rows = row.rows if row.rows is not None else row.expected_rows
        entries.append(
            SubsetEntry(
                clean_line(name),
                clean_line(row.title),
                rows,
                row.corpus_rows,
                row.built,
                clean_line("; ".join(each.rstrip(".") for each in row.license)),
                "" if row.built else clean_line(problem),
                row.form,
                row.expected_rows if row.is_partial else None,
                clean_line(row.data_root),
            )
        )
    return tuple(entries)


def _read_models(problems: list[str]) -> tuple[ModelChoice, ...]:
    from engines import model_catalog
    from results.text.sanitize import clean_line

    entries = []
    for name in _read_names(model_catalog.names, problems):
        try:
            entry = model_catalog.load(name)
            problem = model_catalog.find_problem(entry) or ""
        except Exception as error:
            entries.append(ModelChoice(clean_line(name), problem=clean_line(str(error))))
            continue
        summary = clean_line(entry.title)
        entries.append(
            ModelChoice(
                clean_line(name), summary, tuple(entry.engines), clean_line(problem), entry.settings
            )
        )
    return tuple(entries)


def read_trained_models(log_root: Path) -> tuple[ModelChoice, ...]:
    """The models that runs of this log root have trained, the latest suites first."""
    from results.text.sanitize import clean_line
    from workbench.planning import trained_runs

    return tuple(
        ModelChoice(
            run.name, run.summary, (run.engine,), clean_line(run.problem), run.settings,
            trained=True,
        )
        for run in trained_runs.list_trained_runs(log_root)
    )  # fmt: skip


def _read_presets(cache_root: Path, problems: list[str]) -> tuple[PresetEntry, ...]:
    from results.text.sanitize import clean_line
    from workbench.memory_estimate import expectations
    from workbench.planning import plan

    entries = []
    try:
        files = plan.preset_files()
    except plan.PlanError as error:
        problems += error.problems
        files = {}
    for name in files:
        try:
            suite_plan = plan.load_preset(name)
        except plan.PlanError as error:
            problems += error.problems
            continue
        table = suite_plan.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        brief = "; ".join(
            expectation.brief()
            for expectation in expectations.plan_expectations(suite_plan, cache_root)
        )
        entries.append(PresetEntry(clean_line(name), clean_line(suite_plan.about), table, brief))
    return tuple(sorted(entries, key=lambda p: p.name != FIRST_PRESET))


def _read_names(ask: Any, problems: list[str]) -> list[str]:
    """Names of a catalog; if it cannot be read, none and one more of `problems`."""
    from results.text.sanitize import clean_line

    try:
        return list(ask())
    except Exception as error:
        problems.append(clean_line(str(error)))
        return []
