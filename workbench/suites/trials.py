"""Files of a search in its suite's folder, and admission of a trial as a run of the suite.

    search/base.json       common part of all trials, and the names of the searched settings
    search/summary.json    results of the searcher so far
    search/searcher.log    stdout and stderr of the searcher

The searcher proposes trials by commands; the warden admits them and creates their run folders.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from engines.protocol import RunSpec, Trial
from results.text.renamed_words import SETTINGS, rename_keys

SEARCH_FOLDER: Final = "search"


class TrialError(ValueError):
    """A trial that cannot be admitted; one sentence."""


def _rename_settings(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(SETTINGS.get(name, name) for name in names)


class SearchBase(BaseModel):
    """Common part of all trials of a search (base.json)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    trials: int
    """Planned number of trials."""
    searched: Annotated[tuple[str, ...], AfterValidator(_rename_settings)]
    """Names of the settings in which trials may differ."""
    spec: RunSpec


class SearchSummary(BaseModel):
    """Results of the searcher so far (summary.json); the trials themselves are in the records."""

    model_config = ConfigDict(frozen=True, extra="allow")

    direction: str = ""
    """`maximize` or `minimize`; empty while no trial has measured the metric."""
    importances: Annotated[dict[str, float], BeforeValidator(rename_keys)] = {}
    trouble: str = ""
    """Why the search ended early."""


def write_base(suite: Path, base: SearchBase) -> None:
    """Make a new suite a search; called by `create_suite` only."""
    (suite / SEARCH_FOLDER).mkdir(mode=0o700)
    (suite / SEARCH_FOLDER / "base.json").write_text(
        base.model_dump_json(indent=1), encoding="utf-8"
    )


def read_base(suite: Path) -> SearchBase | None:
    """Common part of the trials; None: the suite is no search.

    Raises:
        TrialError: base.json cannot be read.
    """
    try:
        return SearchBase.model_validate_json((suite / SEARCH_FOLDER / "base.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise TrialError(f"{suite}/search/base.json cannot be read: {error}") from None


def read_summary(suite: Path) -> SearchSummary:
    """Results of the searcher so far; empty if there are none."""
    try:
        return SearchSummary.model_validate_json(
            (suite / SEARCH_FOLDER / "summary.json").read_bytes()
        )
    except (OSError, ValidationError):
        return SearchSummary()


def make_spec(
    base: SearchBase, number: int, settings: dict[str, Any], params: dict[str, Any]
) -> RunSpec:
    """Run spec of a trial. `params`: all settings of the engine, the searched ones included."""
    trial = Trial(number=number, settings=settings)
    update = {"run_id": trial_run_id(base.spec, number), "params": params, "trial": trial}
    label = f"{base.spec.label} {number}" if base.spec.label else f"trial {number}"
    return base.spec.model_copy(update={**update, "label": label})


def trial_run_id(spec: RunSpec, number: int) -> str:
    """`t0003-retrieval-emoji_train-clip-nano`: sorted by number up to the 9,999th."""
    rest = re.sub(r"^\d+-", "", spec.run_id)
    return f"t{number:04d}-{rest}"[:96].rstrip("-_.")


def admit_trial(suite: Path, spec: RunSpec) -> Path | None:
    """Create the run folder of a trial atomically; None: the same trial exists already.

    Raises:
        TrialError: it is no trial of this search, or another one has its number.
        OSError: the folder cannot be made.
    """
    common = read_base(suite)
    if common is None:
        raise TrialError(f"{suite.name} is no search, so no run can be added")
    if reason := _mismatch(common, spec):
        raise TrialError(f"{spec.run_id} is no trial of this search: {reason}")
    run = suite / "runs" / spec.run_id
    if run.exists():
        existing = RunSpec.model_validate_json((run / "spec.json").read_bytes())
        if existing != spec:
            raise TrialError(f"{spec.run_id} exists already, with other settings")
        return None
    fresh = (
        suite / SEARCH_FOLDER / f".{spec.run_id}"
    )  # elsewhere, so that no reader sees half of it
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    (fresh / "spec.json").write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
    os.rename(fresh, run)  # noqa: PTH104 - never replaces a folder that is there
    return run


def _mismatch(common: SearchBase, spec: RunSpec) -> str:
    """Why a run is no trial of this search; empty if it is one."""
    trial = spec.trial
    if trial is None:
        return "it has no number"
    if trial.number > common.trials or spec.run_id != trial_run_id(common.spec, trial.number):
        return "its number or its name is wrong"
    if set(trial.settings) != set(common.searched):
        return f"its settings are not {', '.join(common.searched)}"
    if any(spec.params.get(name) != value for name, value in trial.settings.items()):
        return "what it says of its settings is not what they are"
    varying = {"run_id", "params", "trial", "label"}
    if spec.params.keys() != common.spec.params.keys():
        return "it lacks settings of the engine, or has foreign ones"
    if spec.model_dump(exclude=varying) != common.spec.model_dump(exclude=varying):
        return "it differs from the plan in more than the searched settings"
    return ""
