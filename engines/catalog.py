"""Catalog of the engines. Importing it, or an engine package, never loads torch.

An engine is a package of this folder. Its `__init__` declares the members of `Engine`; its `run`
imports the computing modules.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from pydantic import BaseModel

from engines.messages import Oom, PhaseName
from engines.protocol import RunSpec, Task

if TYPE_CHECKING:  # the workbench reads this catalog and must not import the emitter
    from engines.emitter import Emitter

_NAMES: Final = ("retrieval", "captioning", "vqa", "probe")


class UnknownEngineError(LookupError):
    """Unknown engine; the message names the nearest one."""

    def __str__(self) -> str:
        return str(self.args[0])


class Engine(Protocol):
    """Members of an engine package."""

    SUMMARY: str
    """One line for lists."""
    TASKS: tuple[Task, ...]
    RANK_TASKS: tuple[Task, ...]
    """Tasks that several processes share (`nproc_per_node`, `nnodes`); others have one."""
    NEEDS: tuple[str, ...]
    """Fields that its records must have; empty: it needs no subset."""
    FORM: str
    """Form of its records (`datasets_mm.recipes.recipe.Form`); empty: needs no subset."""
    OOM_SETTINGS: Mapping[PhaseName, str]
    """Phase -> the setting that is halved after the device ran out of memory in it. In other phases
    (loading weights, building caches) no setting reduces the memory."""
    ARCHITECTURE_PARAMS: tuple[str, ...]
    """Settings that a trained model fixes for every run that uses it."""
    Params: type[BaseModel]
    """Every setting, with description, unit and limits: feeds plans, help and forms."""

    def run(self, spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
        """Execute one run in this process."""


def names() -> list[str]:
    """Names of all engines, the main one first."""
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


def count_local_ranks(spec: RunSpec) -> int:
    """Number of a run's processes on each node; 1 for tasks that are not shared."""
    return _count_shared(spec, "nproc_per_node")


def count_nodes(spec: RunSpec) -> int:
    """Number of a run's nodes; 1 for tasks that are not shared."""
    return _count_shared(spec, "nnodes")


def _count_shared(spec: RunSpec, setting: str) -> int:
    return int(spec.params.get(setting, 1)) if spec.task in load(spec.engine).RANK_TASKS else 1


def reduce_memory(engine: str, params: Mapping[str, Any], phase: str) -> Oom | None:
    """Changed settings for a retry after the device ran out of memory in `phase`; None: none help.

    Halves the setting that the engine's `OOM_SETTINGS` names for the phase.
    """
    try:
        knob = load(engine).OOM_SETTINGS.get(cast("PhaseName", phase))
    except UnknownEngineError:
        return None
    if knob is None:
        return None
    return halve_batch(params) if knob == "batch" else halve_setting(params, knob)


def halve_setting(params: Mapping[str, Any], knob: str) -> Oom | None:
    """Halve a setting; 0 and empty mean the whole micro-batch."""
    before = int(params.get(knob) or params.get("batch") or 1)
    if before < 2:
        return None
    return Oom(step=0, before=before, after=before // 2, params={knob: before // 2})


def halve_batch(params: Mapping[str, Any]) -> Oom | None:
    """Halve `batch`, or take the next smaller divisor of the effective batch, which is kept.

    With stages the largest micro-batch among them is halved.
    """
    sizes = [
        (table.get("batch"), table.get("gradient_accumulation_steps"))
        for table in stage_params(params)
    ]
    if not all(isinstance(batch, int) and isinstance(count, int) for batch, count in sizes):
        return None
    before = max(int(batch or 1) for batch, _ in sizes)
    if before < 2:
        return None
    changes = limit_batch(params, before // 2)
    after = max(table["batch"] for table in stage_params({**params, **changes}))
    return Oom(step=0, before=before, after=after, params=changes)


def limit_batch(params: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Settings with micro-batches of at most `limit`, in all stages; effective batches are kept."""

    def limited(table: Mapping[str, Any]) -> dict[str, int]:
        effective = table["batch"] * table.get("gradient_accumulation_steps", 1)
        sizes = range(min(limit, table["batch"]), 0, -1)
        batch = next(size for size in sizes if effective % size == 0)
        return {"batch": batch, "gradient_accumulation_steps": effective // batch}

    changes: dict[str, Any] = limited(params)
    if stages := params.get("stages"):
        pairs = zip(stages, stage_params(params), strict=True)
        changes["stages"] = [{**stage, **limited(table)} for stage, table in pairs]
    return changes


def stage_params(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings of each stage of a training; without stages those of the run."""
    run = {key: value for key, value in params.items() if key != "stages"}
    stages: Sequence[Mapping[str, Any]] = params.get("stages") or ({},)
    return [{**run, **{k: v for k, v in stage.items() if v is not None}} for stage in stages]
