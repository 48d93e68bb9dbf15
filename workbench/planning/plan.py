"""Suite plans: their schema, and reading and writing them.

A plan is a small TOML: engines x subsets x models x seeds x repeats, with settings. Plan files,
presets, flags and the TUI all give a `SuitePlan`; `expand.expand` makes its runs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from datasets_mm import strict_toml
from datasets_mm.strict_toml import TomlError, suggest_nearest
from engines.messages import StoredSettings
from engines.protocol import Task
from results.records.code_changes import CodeChange
from results.text import renamed_words, secrets
from workbench import paths
from workbench.planning import (
    plan_paths,
    search_space,
    trained_models,
)
from workbench.planning.cost_probe import Share, StepCount
from workbench.planning.run_matrix import (
    Criteria,
    Devices,
    Exclusion,
    Names,
    Override,
    PlanPart,
    RunBlock,
    Seeds,
    Text,
    Variant,
)
from workbench.processes.lanes import MAX_LANES, LaneChoice, LanePlan

PRESETS = Path(__file__).parent / "presets"

ADDED_FIELDS: Final = (
    "cost_probe", "max_uncertainty", "oom_retries", "on_disk_full", "variants", "search", "gpu",
    "origins", "cpu", "runs", "refuse_on", "exclusions",
)  # fmt: skip
"""Fields added after the first records: left out of the hash while they are unset."""

REPORT_TEXTS: Final = (
    "about",
    "title",
    "goal",
    "background",
    "why",
    "expected",
    "criteria",
    "changes",
)
"""Fields for readers, which change no run."""


class PlanError(ValueError):
    """A plan that cannot run; `problems` has one sentence for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class SuitePlan(PlanPart):
    """A suite as a person describes it; every list is one factor of a product."""

    schema_number: Literal[1] = Field(default=1, alias="schema")
    """Version of this format."""
    name: str = Field(default="suite", pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    """Name of the suite, in its folder and its tables."""
    engines: Names = Field(default=("retrieval",), alias="engine")
    """Engine, or several."""
    task: Task | None = None
    """What the engine does; empty: its first task, which is to train and evaluate."""
    subsets: Names
    """Subsets to train or evaluate on; `workbench data list` shows them."""
    models: Names
    """Models; `workbench models` shows them. `path:/abs/dir`, `hub:org/name`, `run:LABEL` too."""
    seeds: Seeds = Field(default=(42,), min_length=1)
    """Every run is made once with each seed."""
    repeats: int = Field(default=1, ge=1, le=1000)
    """How often everything is repeated."""
    devices: Devices = ()
    """GPUs by index or UUID, of those that the environment makes visible; empty: all of these."""
    cpu: bool = False
    """Hide every GPU from the engines."""
    lanes: LaneChoice = None
    """Runs at the same time: `all` GPUs (or cores), a number, or GPUs as 0,1,3; empty: one run."""
    gpus_per_run: int = Field(default=0, ge=0, le=MAX_LANES)
    """GPUs of a lane; 0: as many as the largest run has processes (nproc_per_node)."""
    exclusive: bool = False
    """Each run has the host for itself: no other lane works meanwhile."""
    runs: tuple[RunBlock, ...] = Field(default=(), alias="run")
    """Blocks of runs in their order, for a plan of several tasks; empty: one task for all runs."""
    variants: tuple[Variant, ...] = Field(default=(), alias="variant")
    """Every combination is run once with each variant; empty: once."""
    overrides: tuple[Override, ...] = Field(default=(), alias="override")
    """Settings for the runs that match every key."""
    exclusions: tuple[Exclusion, ...] = Field(default=(), alias="exclude")
    """Runs that are left out of the product."""
    label: str = ""
    """Name of the experiment in tables."""
    cost_probe: StepCount | None = None
    """Cost probe: train this many timed steps, forecast the epoch and the run; never evaluate."""
    max_uncertainty: Share | None = None
    """A cost probe ends as soon as its interval is narrower than this share, ± (0.02, "2%")."""
    oom_retries: int = Field(default=3, ge=0, le=16)
    """Attempts with a smaller micro-batch after the GPU ran out of memory."""
    on_disk_full: Literal["stop", "continue"] = "stop"
    """Whether training stops, or continues with a gap in its journal, when the disk is full."""
    search: search_space.SearchPlan | None = None
    """Settings to search; each trial is a run of this suite, chosen by the trials before it."""
    gpu: str = ""
    """Name of the GPU that memory is estimated for; empty: the one of this machine."""
    refuse_on: tuple[str, ...] = ()
    """Audit rules whose faults keep the suite from starting, by code (docs/audit.md)."""
    origins: StoredSettings = Field(default={})
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
    expected: Text = ""
    """Expected result of the runs, for the report."""
    criteria: Criteria = ()
    """Success criteria of every run, such as `diversity > 0.5`, judged in the report."""
    changes: tuple[CodeChange, ...] = Field(default=(), alias="change")
    """Changes of code behind the runs, before and after, for the report."""

    @model_validator(mode="before")
    @classmethod
    def _rename_keys(cls, table: Any) -> Any:
        return renamed_words.rename_typed_keys(table, renamed_words.PLAN_KEYS)

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
            lists = [[value] if isinstance(value, str) else value for value in values]
            if blocks and key not in completed and all(map(_is_name_list, lists)):
                completed[key] = list(dict.fromkeys(itertools.chain.from_iterable(lists)))
        return completed

    @property
    def lane_plan(self) -> LanePlan:
        """Its lanes."""
        return LanePlan(self.lanes, self.gpus_per_run)

    def hash(self) -> str:
        """12 hex digits; equal for equal plans, whatever their texts for the report and lanes."""
        excluded: dict[str, Any] = dict.fromkeys(REPORT_TEXTS, True)
        excluded |= dict.fromkeys(("lanes", "gpus_per_run", "exclusive"), True)
        excluded["variants"] = {"__all__": {"why", "expected", "criteria", "baseline"}}
        excluded["runs"] = {"__all__": {"exclusive"}}
        excluded["exclusions"] = {"__all__": {"why"}}
        content = self.model_dump(mode="json", exclude=excluded)
        # Plans without these newer fields keep the hashes that older records hold.
        unset = set(ADDED_FIELDS) - self.model_dump(exclude_defaults=True).keys()
        content = {k: v for k, v in content.items() if k not in unset}
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _is_name_list(value: object) -> bool:
    """Whether it is a list of names with one at least; anything else is left to the fields."""
    return (
        isinstance(value, list | tuple) and bool(value) and all(isinstance(v, str) for v in value)
    )


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


def _read_plan(read: Callable[[], SuitePlan]) -> SuitePlan:
    try:
        plan = read()
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


def resolve_model_names(plan: SuitePlan, log_root: Path) -> SuitePlan:
    """The plan with every trained model of an earlier suite as `run:SUITE/ID`.

    Raises:
        PlanError: a name matches no run, several, or one without trained weights.
    """
    update, problems = trained_models.resolve_names(plan, log_root)
    if problems:
        raise PlanError(problems)
    return plan.model_copy(update=update)
