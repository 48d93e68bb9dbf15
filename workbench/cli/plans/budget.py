"""`workbench plan --by 18:00 --vram 24GB`: the part of a plan that fits, and what is left out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from workbench.cli import start
from workbench.exit_codes import ExitCode
from workbench.output_language import translate, translate_table

if TYPE_CHECKING:
    from engines.memory_query import MemoryEstimate
    from engines.protocol import RunSpec
    from results.text.table import Table
    from workbench.memory_estimate.gpus import GpuModel
    from workbench.planning.plan import SuitePlan
    from workbench.planning.run_matrix import PlanCell
    from workbench.pricing.budget import Budget, FittedRun, PricedRun

By = Annotated[
    str, typer.Option("--by", metavar="TIME", help="What ends by 18:00, or 2026-12-01T09:00.")
]
Vram = Annotated[
    str, typer.Option("--vram", metavar="SIZE", help="What fits into a GPU of 24GB, 80GiB.")
]
Write = Annotated[
    Path | None,
    typer.Option("--write", metavar="FILE", help="With --by or --vram: the plan that fits."),
]
UNITS: Final = {"gb": 10**9, "gib": 1 << 30, "mb": 10**6, "mib": 1 << 20, "tb": 10**12}
MIN_MEMORY: Final = 256 << 20
MAX_MEMORY: Final = 4 * 10**12
MAX_DAYS: Final = 60
ASSUMED_CAPABILITY: Final = (8, 6)
"""Of a GPU of which only the memory is given."""


class BudgetRequest(NamedTuple):
    """The options."""

    by: str = ""
    vram: str = ""
    write: Path | None = None
    as_json: bool = False
    gpu: str = ""
    settings: tuple[str, ...] = ()
    """Those of `--set`, which precede automatic ones."""


def read_request(
    by: str, vram: str, write: Path | None, settings: Sequence[str], *, as_json: bool, gpu: str
) -> BudgetRequest | None:
    """The request for the part of a plan that fits; None: no limit is set. `settings`: of `--set`.

    Raises:
        typer.BadParameter: `write` without a limit.
    """
    if by or vram:
        return BudgetRequest(by, vram, write, as_json, gpu, tuple(settings))
    if write is not None:
        raise typer.BadParameter("writes the plan that fits --by or --vram", param_hint="--write")
    return None


def parse_deadline(text: str, now: datetime) -> datetime:
    """The local time of `18:00` today, `2026-12-01T09:00` or `2026-12-01 09:00`.

    Raises:
        typer.BadParameter: no such time, one that has passed, or one after two months.
    """
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}", text.strip()):
            hour, minute = map(int, text.strip().split(":"))
            deadline = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        elif re.match(r"\d{4}-\d{2}-\d{2}[T ]", text.strip()):
            parsed = datetime.fromisoformat(text.strip())
            deadline = parsed.astimezone(now.tzinfo)
        else:
            raise ValueError
    except (ValueError, OverflowError):  # the latter: year 1 or 9999 in another time zone
        tomorrow = (now + timedelta(days=1)).strftime("%Y-%m-%d")
        raise typer.BadParameter(
            f"'{text}' is no time; write 18:00, or {tomorrow}T09:00", param_hint="--by"
        ) from None
    if deadline <= now:
        later = (deadline + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
        raise typer.BadParameter(
            f"{text} has passed, it is {now:%H:%M}; that of tomorrow is {later}",
            param_hint="--by",
        )
    if deadline - now > timedelta(days=MAX_DAYS):
        raise typer.BadParameter(f"{text} is more than {MAX_DAYS} days away", param_hint="--by")
    return deadline


def parse_memory(text: str) -> int:
    """Bytes of `24GB`, `80 GiB`, `24`: without a unit GiB.

    Raises:
        typer.BadParameter: no size, or none that a GPU has.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    unit = match[2].lower() or "gib" if match else ""
    if match is None or unit not in UNITS:
        raise typer.BadParameter(f"'{text}' is no size; write 24GB or 80GiB", param_hint="--vram")
    size = float(match[1]) * UNITS[unit]
    if not MIN_MEMORY <= size <= MAX_MEMORY:
        raise typer.BadParameter(f"no GPU has {text} of memory", param_hint="--vram")
    return int(size)


def print_fitted_plan(
    suite_plan: SuitePlan, request: BudgetRequest, log_root: Path, now: datetime
) -> ExitCode:
    """Print which runs fit, and write the plan of these.

    Raises:
        typer.BadParameter: an option is wrong.
        PlanError: the plan cannot run here.
    """
    from results.text.sanitize import clean
    from workbench.pricing import budget

    deadline = parse_deadline(request.by, now) if request.by else None
    memory = parse_memory(request.vram) if request.vram else None
    _check_request(suite_plan, request)
    lanes, lane_note = _count_lanes(suite_plan)
    limits = budget.Budget((deadline - now).total_seconds() if deadline else None, memory, lanes)
    priced, note = _price(suite_plan, limits, request, log_root)
    fitted = budget.fit_runs(priced, limits)
    lines = [*budget.list_lines(fitted, limits), *filter(None, (lane_note, note))]
    if request.as_json:
        _print_json(fitted, lines, deadline)
    else:
        from results.text.table import render_terminal

        typer.echo(render_terminal(translate_table(_make_table(fitted, now))), nl=False)
        for line in lines:
            typer.echo(clean(translate(line)))
    kept = sum(not entry.reason for entry in fitted)
    if request.write is not None and kept:
        _write_plan(budget.fit_plan(suite_plan, fitted), request)
    return ExitCode.COMPLETED if kept else ExitCode.FAILED


def _check_request(suite_plan: SuitePlan, request: BudgetRequest) -> None:
    if request.vram and suite_plan.cpu:
        raise typer.BadParameter("the plan hides every GPU (cpu = true)", param_hint="--vram")
    if suite_plan.search is not None:
        raise typer.BadParameter(
            "a search chooses its trials as it goes; `workbench run --until` limits it",
            param_hint="--by",
        )
    if request.write is not None and request.write.exists():
        raise typer.BadParameter(f"{request.write} exists; give another", param_hint="--write")
    if request.write is not None and not request.write.parent.is_dir():
        raise typer.BadParameter(f"no folder {request.write.parent}", param_hint="--write")


def _count_lanes(suite_plan: SuitePlan) -> tuple[int, str]:
    """Number of lanes, and a remark on it."""
    choice = suite_plan.lanes
    if isinstance(choice, int):
        return choice, ""
    if choice is None:
        return 1, ""
    if isinstance(choice, tuple):
        return max(1, len(choice) // max(1, suite_plan.gpus_per_run)), ""
    return 1, "lanes = all is priced as one lane; give their number"


def _price(
    suite_plan: SuitePlan, limits: Budget, request: BudgetRequest, log_root: Path
) -> tuple[list[PricedRun], str]:
    """The runs with their prices, and a remark on the GPU that their memory is estimated for.

    With the automatic settings that `workbench run` gives them.
    """
    from dataclasses import replace

    from workbench import paths
    from workbench.memory_estimate.gpus import GpuModel
    from workbench.pricing import budget, pricing
    from workbench.pricing.earlier import EarlierRuns

    cache_root, here = paths.cache_root(), pricing.find_device(suite_plan)
    device, note = here, ""
    if limits.memory is not None:
        device, note = _choose_gpu(suite_plan, request.gpu, limits.memory)
    suite_plan = start.apply_automatic_settings(suite_plan, request.settings, device)
    cells = _expand(suite_plan, cache_root, log_root, timed=limits.seconds is not None)
    specs = [spec for _, spec in cells]
    earlier = EarlierRuns(log_root).read()
    priced = pricing.price_runs(specs, cache_root, earlier, here)
    runs = [
        budget.PricedRun(cell, spec, cost) for (cell, spec), cost in zip(cells, priced, strict=True)
    ]
    if not isinstance(device, GpuModel) or limits.memory is None:
        return runs, ""
    measured = [pricing.find_gpu_memory(spec, earlier) for spec in specs]
    estimates = _estimate_memory(specs, measured, device, cache_root)
    peaks = [
        (peak, "") if peak is not None else _peak_of(estimate, device)
        for peak, estimate in zip(measured, estimates, strict=True)
    ]
    return [
        replace(run, cost=replace(run.cost, memory=size), memory_note=problem)
        for run, (size, problem) in zip(runs, peaks, strict=True)
    ], note


def _expand(
    suite_plan: SuitePlan, cache_root: Path, log_root: Path, *, timed: bool
) -> list[tuple[PlanCell, RunSpec]]:
    """Cell and spec of each run. Memory alone needs neither data nor weights: a run of each
    combination, whatever its seed, repeat and fold.
    """
    from workbench.memory_estimate import plan_estimate
    from workbench.planning import expand

    if timed:
        return expand.expand_cells(suite_plan, cache_root, log_root)
    return [
        (cell, spec.model_copy(update={"run_id": "-".join(filter(None, (
            spec.run_id, spec.engine, spec.subset, spec.base_model or spec.model, spec.label)))}))
        for cell, spec in plan_estimate.expand_cells(suite_plan, cache_root, log_root)
    ]  # fmt: skip


def _choose_gpu(suite_plan: SuitePlan, gpu: str, memory: int) -> tuple[GpuModel, str]:
    """A GPU of that memory, with the capability of the one named or present."""
    from workbench.memory_estimate import memory_check
    from workbench.memory_estimate.gpus import GpuModel

    named = memory_check.locate_device(gpu or suite_plan.gpu, suite_plan.devices, cpu=False)
    if isinstance(named, GpuModel) and named.capability is not None:
        return named.model_copy(update={"memory_bytes": memory}), ""
    major, minor = ASSUMED_CAPABILITY
    device = GpuModel(
        name="the GPU", memory_bytes=memory, capability=ASSUMED_CAPABILITY, source="as given"
    )
    return (
        device,
        f"memory is estimated for compute capability {major}.{minor}; --gpu names another",
    )


def _estimate_memory(
    specs: Sequence[Any], measured: Sequence[int | None], device: GpuModel, cache_root: Path
) -> list[MemoryEstimate | None]:
    """Estimates of the runs without a measurement."""
    from workbench.memory_estimate import estimator_process, memory_check

    positions = [
        at
        for at, spec in enumerate(specs)
        if measured[at] is None
        and spec.engine in memory_check.ESTIMABLE_ENGINES
        and spec.task != "ensemble"
    ]
    estimates: list[MemoryEstimate | None] = [None] * len(specs)
    with estimator_process.share_process(start.print_progress):
        answers = estimator_process.request_estimates(
            [memory_check.build_query(specs[at], device) for at in positions], cache_root
        )
    for at, answer in zip(positions, answers, strict=True):
        estimates[at] = answer
    return estimates


def _peak_of(estimate: MemoryEstimate | None, device: GpuModel) -> tuple[int | None, str]:
    """Bytes at the peak, and why they are not known."""
    from workbench.memory_estimate import fit_check

    if estimate is None or estimate.problem:
        return None, estimate.problem if estimate else ""
    return fit_check.peak_phase(estimate, device).total, ""


def _make_table(fitted: Sequence[FittedRun], now: datetime) -> Table:
    from results.text.table import Table, TableCell, TableColumn
    from workbench.pricing import costs

    columns = (
        TableColumn("run"), TableColumn("time", right=True), TableColumn("memory", right=True),
        TableColumn("ends", right=True), TableColumn("left out, because"),
    )  # fmt: skip
    return Table(
        columns,
        tuple(
            (
                TableCell(entry.run.spec.run_id),
                TableCell(costs.format_time(entry.run.cost.time), "value"),
                TableCell(_format_size(entry.run.cost.memory), "value"),
                TableCell(_format_end(entry.end, now), "value"),
                TableCell(entry.reason),
            )
            for entry in fitted
        ),
    )


def _format_size(size: int | None) -> str:
    from results.text import formats

    return "–" if size is None else formats.size(size)


def _format_end(seconds: float | None, now: datetime) -> str:
    if seconds is None:
        return "–"
    end = now + timedelta(seconds=seconds)
    return f"{end:%H:%M}" if end.date() == now.date() else f"{end:%m-%d %H:%M}"


def _print_json(
    fitted: Sequence[FittedRun], lines: Sequence[str], deadline: datetime | None
) -> None:
    """One object: the runs with their prices, in SI units."""
    from results.text.sanitize import escape_json

    rows = []
    for entry in fitted:
        time = entry.run.cost.time
        rows.append({
            "run": entry.run.spec.run_id, "kept": not entry.reason, "reason": entry.reason,
            "seconds": time.seconds if time else None,
            "half_width": time.half_width if time else None,
            "memory": entry.run.cost.memory, "end_seconds": entry.end,
        })  # fmt: skip
    report = {
        "by": deadline.isoformat() if deadline else None, "runs": rows, "remarks": list(lines),
    }  # fmt: skip
    typer.echo(escape_json(json.dumps(report)))


def _write_plan(fitted_plan: SuitePlan, request: BudgetRequest) -> None:
    """Write the plan that fits; an existing file was refused."""
    from datasets_mm import atomic_files
    from workbench.planning import plan

    limits = " ".join(filter(None, (request.by and f"--by {request.by}",
                                    request.vram and f"--vram {request.vram}")))  # fmt: skip
    text = f"# Fitted with {limits}; [[exclude]] has what was left out.\n{plan.dump(fitted_plan)}"
    if request.write is None:
        return
    try:
        atomic_files.write_atomic(request.write, text)
    except OSError as error:
        raise typer.BadParameter(
            f"{request.write}: {error.strerror}", param_hint="--write"
        ) from None
    start.print_progress(f"wrote {request.write}; start it with: workbench run {request.write}")
