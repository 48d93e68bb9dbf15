"""The files of a search in its suite's folder, and how a trial becomes a run of the suite.

    search/base.json       what every trial has in common, and which settings are searched
    search/study.jsonl     Optuna's journal: a mirror of the trials, from which it learns
    search/summary.json    what the searcher found so far
    search/searcher.log    its own words

The searcher proposes trials by orders; the warden admits them, and nobody else makes run folders.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from engines.protocol import RunSpec, Trial

FOLDER: Final = "search"


class TrialError(ValueError):
    """A trial that cannot be admitted; one sentence."""


class Base(BaseModel):
    """What all trials of a search have in common."""

    model_config = ConfigDict(frozen=True, extra="allow")

    trials: int
    """How many are asked for."""
    searched: tuple[str, ...]
    """Names of the settings in which trials may differ."""
    spec: RunSpec


class Summary(BaseModel):
    """What the searcher found so far; beside the records, which have the trials themselves."""

    model_config = ConfigDict(frozen=True, extra="allow")

    direction: str = ""
    """`maximize` or `minimize`; empty while no trial has measured the metric."""
    importances: dict[str, float] = {}
    trouble: str = ""
    """Why the search broke off."""


def write_base(suite: Path, base: Base) -> None:
    """Make a suite a search. Only who creates the suite calls this."""
    (suite / FOLDER).mkdir(mode=0o700)
    (suite / FOLDER / "base.json").write_text(base.model_dump_json(indent=1), encoding="utf-8")


def base(suite: Path) -> Base | None:
    """What the trials have in common; None where the suite is no search."""
    try:
        return Base.model_validate_json((suite / FOLDER / "base.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise TrialError(f"{suite}/search/base.json cannot be read: {error}") from None


def summary(suite: Path) -> Summary:
    """What the searcher found so far; empty while it has found nothing."""
    try:
        return Summary.model_validate_json((suite / FOLDER / "summary.json").read_bytes())
    except (OSError, ValidationError):
        return Summary()


def make(base: Base, number: int, settings: dict[str, Any], params: dict[str, Any]) -> RunSpec:
    """The run of a trial. `params`: complete settings of the engine, those searched among them."""
    trial = Trial(number=number, settings=settings)
    update = {"run_id": run_id(base.spec, number), "params": params, "trial": trial}
    label = f"{base.spec.label} {number}" if base.spec.label else f"trial {number}"
    return base.spec.model_copy(update={**update, "label": label})


def run_id(spec: RunSpec, number: int) -> str:
    """`t0003-retrieval-emoji_train-clip-nano`: sorted by number up to the 9,999th."""
    what = re.sub(r"^\d+-", "", spec.run_id)
    return f"t{number:04d}-{what}"[:96].rstrip("-_.")


def admit(suite: Path, spec: RunSpec) -> Path | None:
    """Make the run folder of a trial, whole or not at all; None: that very trial is there already.

    Raises:
        TrialError: it is no trial of this search, or another one has its number.
        OSError: the folder cannot be made.
    """
    common = base(suite)
    if common is None:
        raise TrialError(f"{suite.name} is no search, so no run can be added")
    if reason := _foreign(common, spec):
        raise TrialError(f"{spec.run_id} is no trial of this search: {reason}")
    run = suite / "runs" / spec.run_id
    if run.exists():
        known = RunSpec.model_validate_json((run / "spec.json").read_bytes())
        if known != spec:
            raise TrialError(f"{spec.run_id} exists already, with other settings")
        return None
    fresh = suite / FOLDER / f".{spec.run_id}"  # elsewhere, so that no reader sees half of it
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    (fresh / "spec.json").write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
    os.rename(fresh, run)  # noqa: PTH104 - never replaces a folder that is there
    return run


def _foreign(common: Base, spec: RunSpec) -> str:
    """Why a run is no trial of this search; empty: it is one."""
    trial = spec.trial
    if trial is None:
        return "it has no number"
    if trial.number > common.trials or spec.run_id != run_id(common.spec, trial.number):
        return "its number or its name is wrong"
    if set(trial.settings) != set(common.searched):
        return f"its settings are not {', '.join(common.searched)}"
    if any(spec.params.get(name) != value for name, value in trial.settings.items()):
        return "what it says of its settings is not what they are"
    own = {"run_id", "params", "trial", "label"}
    if spec.params.keys() != common.spec.params.keys():
        return "it lacks settings of the engine, or has foreign ones"
    if spec.model_dump(exclude=own) != common.spec.model_dump(exclude=own):
        return "it differs from the plan in more than the searched settings"
    return ""
