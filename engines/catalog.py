"""The engines by name. Light: importing it, or an engine package, never loads torch.

An engine is one package here. Its `__init__` declares what it is; the computing modules are
imported by its `run`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from pydantic import BaseModel

from engines.protocol import Oom, PhaseName, RunSpec, Task

if TYPE_CHECKING:  # the workbench reads this catalogue and must not know what speaks for engines
    from engines.emitter import Emitter

_NAMES: Final = ("retrieval", "captioning", "vqa", "probe")


class UnknownEngineError(LookupError):
    """There is no engine of that name; the message names the nearest one."""

    def __str__(self) -> str:
        return str(self.args[0])


class Engine(Protocol):
    """What an engine package offers."""

    SUMMARY: str
    """One line for lists."""
    TASKS: tuple[Task, ...]
    NEEDS: tuple[str, ...]
    """Fields of a record without which it has nothing to work on; empty: needs no subset."""
    FORM: str
    """Form of its records (`datasets_mm.recipes.recipe.Form`); empty: needs no subset."""
    KNOBS: Mapping[PhaseName, str]
    """The setting that is halved after the device ran out of memory in a phase. A phase that is not
    here holds what no setting of the run makes smaller: loading weights, building caches."""
    SHAPING: tuple[str, ...]
    """Settings that a trained model brings along: no run that uses it has others."""
    Params: type[BaseModel]
    """Every setting, with description, unit and limits: feeds plans, help and forms."""

    def run(self, spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
        """Do the work of one run, in this process."""


def names() -> list[str]:
    """All engines, the main one first."""
    return list(_NAMES)


def load(name: str) -> Engine:
    """The engine package of that name.

    Raises:
        UnknownEngineError: there is none.
    """
    if name not in _NAMES:
        close = difflib.get_close_matches(name, _NAMES, n=1)
        guess = f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(_NAMES)}"
        raise UnknownEngineError(f"no engine '{name}'{guess}")
    return cast("Engine", importlib.import_module(f"engines.{name}"))


def smaller(engine: str, params: Mapping[str, Any], phase: str) -> Oom | None:
    """The same work in less memory, after the device ran out of it in `phase`; None: no such way.

    Half of the setting that the engine's `KNOBS` names for the phase.
    """
    try:
        knob = load(engine).KNOBS.get(cast("PhaseName", phase))
    except UnknownEngineError:
        return None
    if knob is None:
        return None
    return halved_batch(params) if knob == "batch" else halved(params, knob)


def halved(params: Mapping[str, Any], knob: str) -> Oom | None:
    """Half of a setting; 0 and empty mean the whole micro-batch."""
    before = int(params.get(knob) or params.get("batch") or 1)
    if before < 2:
        return None
    return Oom(step=0, before=before, after=before // 2, params={knob: before // 2})


def halved_batch(params: Mapping[str, Any]) -> Oom | None:
    """Half of `batch`, or what comes next below it and divides the effective batch, which stays."""
    batch, accumulation = params.get("batch"), params.get("accumulation")
    if not isinstance(batch, int) or not isinstance(accumulation, int) or batch < 2:
        return None
    effective = batch * accumulation
    after = next(size for size in range(batch // 2, 0, -1) if effective % size == 0)
    changes = {"batch": after, "accumulation": effective // after}
    return Oom(step=0, before=batch, after=after, params=changes)
