"""The runs of a plan as a matrix subset x model, or as a list, with their costs. Pure."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from workbench.pricing import costs
from workbench.suites import quantities as q
from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow

if TYPE_CHECKING:
    from workbench.tui.view_models.plan_draft import PreviewRun

MOST_MODELS: Final = 5
"""A matrix of more columns is a list."""
LIST: Final = (
    GridColumn("state", "", 1, rank=0),
    GridColumn("subset", "subset", 12, grow=14, rank=0, middle_cut=True),
    GridColumn("model", "model", 11, grow=14, rank=0, middle_cut=True),
    GridColumn("part", "", 7, grow=8, rank=2),
    GridColumn("steps", "steps", 7, right=True, rank=1),
    GridColumn("time", "time", 7, right=True, rank=1),
    GridColumn("memory", "memory", 8, right=True, rank=3),
    GridColumn("engine", "engine", 10, rank=4),
)
DONE: Final = GridCell("✓", "good")
PLANNED: Final = GridCell("◌", "dim")
EXCLUDED: Final = GridCell("✗", "dim")
PEAK: Final = "peak memory"
"""Key of the last row of a matrix."""


def run_grid(runs: Sequence[PreviewRun]) -> tuple[tuple[GridColumn, ...], list[GridRow], list[str]]:
    """Columns, rows and keys: a matrix if it is one run a cell, else a list. `runs`: with those
    that the plan leaves out."""
    subsets = list(dict.fromkeys(run.subset for run in runs))
    models = list(dict.fromkeys(run.model for run in runs))
    cells: dict[tuple[str, str], list[PreviewRun]] = defaultdict(list)
    for run in runs:
        cells[run.subset, run.model].append(run)
    single = all(len(group) == 1 for group in cells.values())
    if not single or len(models) > MOST_MODELS or len({run.engine for run in runs}) > 1:
        return LIST, [_list_row(run) for run in runs], [run.run_id for run in runs]
    columns = (
        GridColumn("subset", "subset", 12, grow=12, middle_cut=True),
        *(GridColumn(model, model, 12, grow=7, right=True, middle_cut=True) for model in models),
    )
    rows: list[GridRow] = [
        (subset, *(_cell(cells.get((subset, model), [])) for model in models)) for subset in subsets
    ]
    peaks = [_peak(runs, model) for model in models]
    rows.append((GridCell(PEAK, "dim"), *(GridCell(peak, "dim") for peak in peaks)))
    return columns, rows, [*subsets, PEAK]


def find_cell(
    runs: Sequence[PreviewRun], key: str | None, column_key: str | None
) -> PreviewRun | None:
    """The run under the cursor of the grid: of a list by its id, of a matrix by subset and model;
    in the first column of a matrix the row's first run."""
    listed = next((run for run in runs if run.run_id == key), None)
    if listed is not None:
        return listed
    row = [run for run in runs if run.subset == key]
    return next((run for run in row if run.model == column_key), row[0] if row else None)


def select_cell(run: PreviewRun, runs: Sequence[PreviewRun]) -> dict[str, str | int]:
    """Keys of an exclusion that matches the run, its folds and its repeats, and no other run."""
    chosen = name_cell(run)
    keys = {"subset", "model"}
    keys |= {k for k in chosen if len({name_cell(other).get(k) for other in runs}) > 1}
    return {key: value for key, value in chosen.items() if key in keys - {"repeat"}}


def name_cell(run: PreviewRun) -> dict[str, str | int]:
    """The keys of an exclusion, with the run's values."""
    keys: dict[str, str | int] = {
        "engine": run.engine, "subset": run.subset, "model": run.model, "seed": run.seed,
        "repeat": run.repeat + 1, "variant": run.variant, "run": run.block,
    }  # fmt: skip
    return {key: value for key, value in keys.items() if value != ""}


def describe_count(runs: Sequence[PreviewRun]) -> str:
    """`2 × 2 = 4`, `2 × 2 − 1 = 3`, or the number of runs."""
    subsets, models = len({run.subset for run in runs}), len({run.model for run in runs})
    left_out = sum(run.excluded for run in runs)
    count = len(runs) - left_out
    if subsets * models != len(runs):
        return f"{count}, {left_out} left out" if left_out else str(count)
    minus = f" − {left_out}" if left_out else ""
    return f"{subsets} × {models}{minus} = {count}"


def _cell(group: Sequence[PreviewRun]) -> GridCell:
    if not group:
        return GridCell("", "dim")
    cost = group[0].cost
    if group[0].excluded:
        return GridCell("✗ left out", "dim")
    if cost.done:
        return GridCell(f"✓ done {_day(cost.done_wall)}", "good")
    steps = f"{cost.steps:,} st" if cost.steps is not None else ""
    clock = q.clock(cost.time.seconds) if cost.time else "–"
    return GridCell(f"{steps} {clock:>5}")


def _peak(runs: Sequence[PreviewRun], model: str) -> str:
    peaks = [r.cost.memory for r in runs if r.model == model and r.cost.memory is not None]
    return q.size(max(peaks)) if peaks else "–"


def _list_row(run: PreviewRun) -> GridRow:
    cost = run.cost
    state = EXCLUDED if run.excluded else DONE if cost.done else PLANNED
    parts = (run.part, f"s{run.seed}", f"r{run.repeat + 1}" if run.repeat else "")
    return (
        state,
        GridCell(run.subset, "dim" if run.excluded else ""),
        GridCell(run.model, "dim" if run.excluded else ""),
        GridCell(" ".join(part for part in parts if part), "dim"),
        q.count(cost.steps) if cost.steps is not None else "–",
        _describe_time(run),
        q.size(cost.memory) if cost.memory is not None else "–",
        GridCell(run.engine, "dim"),
    )


def _describe_time(run: PreviewRun) -> str:
    if run.excluded or run.cost.done:
        return "left out" if run.excluded else "done"
    return q.clock(run.cost.time.seconds) if run.cost.time else "–"


def _day(wall: float | None) -> str:
    return time.strftime("%m-%d", time.localtime(wall)) if wall else ""


def count_open(runs: Sequence[PreviewRun], *, keep: bool) -> int:
    """Number of runs to do; `keep`: done ones are not run again."""
    return sum(not (keep and run.cost.done) for run in runs)


def describe_costs(
    run_costs: Sequence[costs.RunCost], machine: costs.MachineState, now: float, *, keep: bool
) -> list[tuple[str, str]]:
    """(name, text) of the lines of the cost box; `keep`: done runs are not run again."""
    done = sum(bool(cost.done) for cost in run_costs)
    counted = [c for c in run_costs if not (keep and c.done)]
    lines = [("time", _time_text(counted, machine, now))]
    if counted:
        lines += _resource_lines(counted, machine)
    if done:
        kept = "kept, f runs it again" if keep else "run again, f keeps it"
        lines.append(("done", f"{done} of {len(run_costs)} with equal settings: {kept}"))
    return lines


def _resource_lines(
    counted: Sequence[costs.RunCost], machine: costs.MachineState
) -> list[tuple[str, str]]:
    memory = [cost.memory for cost in counted if cost.memory is not None]
    peak = max(memory, default=None)
    source = next((c.memory_source for c in counted if c.memory == peak and peak is not None), "")
    text = "not known yet: no earlier run of these models here"
    if peak is not None:
        bar = _bar(peak / machine.memory) if machine.memory else ""
        of = f" of {q.size(machine.memory)}" if machine.memory else ""
        text = f"{bar}{q.size(peak)}{of} {machine.memory_name}, {source}"
    disk = sum(cost.disk or 0 for cost in counted)
    written = f"{q.size(disk)} to write, " if disk else ""
    return [
        ("memory", text),
        ("disk", f"{written}{q.size(machine.disk)} free"),
        ("device", machine.busy or "free: it starts at once"),
    ]


def _time_text(counted: Sequence[costs.RunCost], machine: costs.MachineState, now: float) -> str:
    if not counted:
        return "nothing to do: all of it is done"
    total, unknown = costs.sum_times(
        [cost if not cost.done else costs.RunCost(time=cost.time) for cost in counted]
    )
    if total is None:
        return "not known yet: no earlier run of these models here; P measures it (200 steps)"
    ends = time.strftime("%H:%M", time.localtime(now + total.seconds))
    rest = f" + {unknown} unknown (P measures)" if unknown else ""
    runs = "1 earlier run" if total.count == 1 else f"{total.count} earlier runs"
    other = {c.time.other_subset for c in counted if c.time and c.time.other_subset}
    source = f"from {runs}" + (f" on {', '.join(sorted(other))}" if other else "")
    end = "" if machine.busy else f"ends ≈ {ends}, "
    return f"{costs.format_time(total)}{rest}  {end}{source}"


def _bar(share: float, cells: int = 12) -> str:
    full = round(min(1.0, share) * cells)
    return f"▕{'█' * full}{'░' * (cells - full)}▏ "
