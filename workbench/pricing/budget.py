"""The part of a plan that fits a budget of time and GPU memory.

Runs are taken in the order of the plan; one that does not fit is left out, and shorter ones behind
it may still fit. The runs of a cell (folds and their ensemble) are taken together. Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from results.text import formats
from workbench.planning.run_matrix import Exclusion
from workbench.pricing.costs import RunCost

if TYPE_CHECKING:
    from engines.protocol import RunSpec
    from workbench.planning.plan import SuitePlan
    from workbench.planning.run_matrix import PlanCell

NO_PRICE: Final = "its time is not known: no earlier run of its model here"
MAX_NAMES: Final = 6
CELL_KEYS: Final = ("engine", "subset", "model", "seed", "variant")


@dataclass(frozen=True, slots=True)
class Budget:
    """What the runs may take; None: no limit."""

    seconds: float | None = None
    memory: int | None = None
    """Bytes of the GPU."""
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class PricedRun:
    """A run of the plan with its price."""

    cell: PlanCell
    spec: RunSpec
    cost: RunCost
    memory_note: str = ""
    """Why its memory is not known."""


@dataclass(frozen=True, slots=True)
class FittedRun:
    """A run, and whether it is in the part that fits."""

    run: PricedRun
    reason: str = ""
    """Why it is left out; empty: it is in."""
    end: float | None = None
    """Seconds from now at its end; None: left out, or not known."""


@dataclass
class _Schedule:
    """Lanes with the runs that are in so far. Seconds from now."""

    lanes: list[float]
    ends: dict[str, float] = field(default_factory=dict)
    """By run id."""

    def copy(self) -> _Schedule:
        return _Schedule([*self.lanes], {**self.ends})

    def add(self, spec: RunSpec, seconds: float) -> float:
        """Put a run on the lane that is free first, behind the runs that it needs."""
        lane = min(range(len(self.lanes)), key=lambda at: self.lanes[at])
        start = max([self.lanes[lane], *(self.ends[need] for need in spec.needs)])
        self.lanes[lane] = self.ends[spec.run_id] = start + seconds
        return self.lanes[lane]


def fit_runs(runs: Sequence[PricedRun], budget: Budget) -> list[FittedRun]:
    """Which of the runs fit, in their order."""
    schedule = _Schedule([0.0] * budget.lanes)
    fitted: list[FittedRun] = []
    left_out: set[str] = set()
    for _, group in itertools.groupby(runs, key=lambda run: run.cell):
        of_cell = list(group)
        problem = _find_problem(of_cell, budget, left_out)
        trial = schedule.copy()
        ends = [_add_run(trial, run, budget) for run in of_cell] if not problem else []
        last = max((end for end in ends if end is not None), default=0.0)
        if not problem and budget.seconds is not None and last > budget.seconds:
            over = formats.clock(last - budget.seconds)
            problem = f"it would end {over} too late"
        if problem:
            left_out |= {run.spec.run_id for run in of_cell}
            fitted += [FittedRun(run, problem) for run in of_cell]
        else:
            schedule = trial
            fitted += [FittedRun(run, "", end) for run, end in zip(of_cell, ends, strict=True)]
    return fitted


def _add_run(schedule: _Schedule, run: PricedRun, budget: Budget) -> float | None:
    """Its end; None: its time is not known, and no limit of time asks for it."""
    seconds = upper_seconds(run.cost)
    end = schedule.add(run.spec, seconds or 0.0)
    return end if seconds is not None or budget.seconds is not None else None


def upper_seconds(cost: RunCost) -> float | None:
    """The upper end of the interval where there is one, else the price; None: not known."""
    if cost.time is None:
        return None
    return cost.time.seconds + (cost.time.half_width or 0.0)


def _find_problem(runs: Sequence[PricedRun], budget: Budget, left_out: set[str]) -> str:
    """Why the runs of a cell cannot be in, whatever the others take; empty: they can."""
    of_cell = {run.spec.run_id for run in runs}
    for run in runs:
        missing = [need for need in run.spec.needs if need in left_out and need not in of_cell]
        if missing:
            return f"it needs {missing[0]}, which is left out"
        if budget.memory is not None and run.cost.memory is None:
            return f"its GPU memory is not known: {run.memory_note or 'no estimate'}"
        if budget.memory is not None and (run.cost.memory or 0) > budget.memory:
            need, limit = formats.size(run.cost.memory or 0), formats.size(budget.memory)
            return f"it needs {need} of GPU memory, and {limit} are given"
        if budget.seconds is not None and run.cost.time is None:
            return NO_PRICE
    return ""


def fit_plan(plan: SuitePlan, fitted: Sequence[FittedRun]) -> SuitePlan:
    """The plan without what does not fit, as `[[exclude]]` blocks with their reasons."""
    cells = list(dict.fromkeys(entry.run.cell for entry in fitted))
    reasons = {entry.run.cell: entry.reason for entry in fitted if entry.reason}
    varied = [key for key in CELL_KEYS if len({getattr(cell, key) for cell in cells}) > 1]
    exclusions = tuple(_exclude(cell, reasons[cell], varied, cells) for cell in reasons)
    return plan.model_copy(update={"exclusions": (*plan.exclusions, *exclusions)})


def _exclude(
    cell: PlanCell, reason: str, varied: Sequence[str], cells: Sequence[PlanCell]
) -> Exclusion:
    keys = {key: getattr(cell, key) for key in varied}
    if any(other.repeat for other in cells):
        keys["repeat"] = cell.repeat + 1
    if cell.block:
        keys["run"] = cell.block
    return Exclusion(**(keys or {"engine": cell.engine}), why=reason)


def list_lines(fitted: Sequence[FittedRun], budget: Budget) -> Iterator[str]:
    """What is in and what is not, and what the prices leave open, in sentences."""
    kept = [entry for entry in fitted if not entry.reason]
    ends = [entry.end for entry in kept if entry.end is not None]
    if budget.seconds is None:
        yield f"{len(kept)} of {len(fitted)} runs fit"
    else:
        spare = f", {formats.clock(budget.seconds - max(ends))} to spare" if ends else ""
        yield f"{len(kept)} of {len(fitted)} runs fit{spare}"
    if unpriced := sum(entry.reason == NO_PRICE for entry in fitted):
        yield f"{unpriced} runs have no price; `workbench run … --cost-probe 200` gives them one"
    times = [entry.run.cost.time for entry in kept if entry.run.cost.time is not None]
    if any(time.half_width is None for time in times):
        yield "prices without an interval rest on fewer than three earlier runs: leave some spare"
    if any(time.is_forecast for time in times):
        yield "prices of cost probes have no evaluation and no saving in them"
    if others := sorted({time.other_subset for time in times if time.other_subset}):
        yield f"scaled by samples from runs on other subsets: {', '.join(others)}"
    if names := sorted({name for time in times for name in time.other_settings}):
        more = ", …" if len(names) > MAX_NAMES else ""
        shown = ", ".join(names[:MAX_NAMES]) + more
        yield f"scaled by samples from runs with other settings: {shown}"
    if done := sum(bool(entry.run.cost.done) for entry in kept):
        yield f"{done} of them are done already with equal settings: --keep-done leaves them out"
