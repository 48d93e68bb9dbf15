"""Tables of `workbench plan`: steps, GPU memory, host memory, memory reductions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engines import catalog
from engines.memory_query import MemoryEstimate
from results.text import formats
from results.text.table import Table, TableCell, TableColumn
from workbench.memory_estimate import fit_check
from workbench.memory_estimate.fit_check import HostMemory
from workbench.memory_estimate.gpus import GpuModel
from workbench.memory_estimate.plan_estimate import ReducedEstimate, StepCounts


def _value_cell(text: str) -> TableCell:
    return TableCell(text, "value")


def steps_table(
    steps: StepCounts, origins: Mapping[str, str], *, early_stopping: bool = False
) -> Table:
    """Rows, batch and optimizer steps, with the source of each setting."""
    effective = steps.batch * steps.gradient_accumulation_steps * steps.ranks
    at_most = "the most: early stopping may end it sooner" if early_stopping else ""
    lines = [
        ("rows", f"{steps.rows:,}", ""),
        ("trained on", f"{steps.train:,}", "each row once an epoch, drawn without replacement"),
        ("held out", f"{steps.held_out:,}", ""),
        *_validation_row(steps),
        ("micro-batch", f"{steps.batch:,}", origins.get("batch", "")),
        (
            "gradient accumulation",
            f"{steps.gradient_accumulation_steps:,}",
            origins.get("gradient_accumulation_steps", ""),
        ),
        *([("processes", f"{steps.ranks:,}", "per node x nodes")] if steps.ranks > 1 else []),
        ("effective batch", f"{effective:,}", ""),
        ("optimizer steps per epoch", f"{steps.per_epoch:,}", f"{steps.train:,} / {effective:,}"),
        (f"optimizer steps, {steps.epochs:g} epochs", f"{steps.total:,}", at_most),
    ]
    columns = (TableColumn("steps"), TableColumn("", right=True), TableColumn("from"))
    return Table(
        columns, tuple((_value_cell(a), _value_cell(b), TableCell(c)) for a, b, c in lines)
    )


def stages_table(stages: Mapping[str, StepCounts], params: Mapping[str, Any]) -> Table:
    """One row a stage: what it trains, its rates, batch and optimizer steps."""
    columns = (
        "stage", "trainable", "lr", "micro-batch", "gradient accumulation", "epochs", "steps",
    )  # fmt: skip
    tables = catalog.stage_params(params)
    rows = []
    for (name, steps), table in zip(stages.items(), tables, strict=True):
        rates = [f"{table[key]:g}" for key in ("projector_lr", "lr") if table.get(key)]
        texts = [", ".join(table.get("trainable", ())), " / ".join(rates)]
        batch = (f"{steps.batch:,}", f"{steps.gradient_accumulation_steps:,}")
        cells = [name, *texts, *batch, f"{steps.epochs:g}", f"{steps.total:,}"]
        rows.append(tuple(map(_value_cell, cells)))
    total = sum(steps.total for steps in stages.values())
    rows.append(tuple(map(_value_cell, ["all", *[""] * 5, f"{total:,}"])))
    return Table(tuple(TableColumn(c, right=n > 2) for n, c in enumerate(columns)), tuple(rows))


def _validation_row(steps: StepCounts) -> list[tuple[str, str, str]]:
    """The row about validation, if it reads fewer rows than are held out."""
    if steps.looked_at == steps.held_out:
        return []
    return [("validation, stratified", f"{steps.looked_at:,}", "validate_limit")]


def memory_table(
    estimate: MemoryEstimate,
    device: GpuModel | HostMemory,
    batch_sizes: Mapping[str, int] | None = None,
) -> Table:
    """Memory by part at the peak of each phase, the sum, and the memory of the GPU or the host.

    `batch_sizes`: of the phases, for their headings.
    """
    needs = {
        name: fit_check.add_overheads(estimate, parts, device)
        for name, parts in (*estimate.moments.items(), *estimate.phases.items())
    }
    parts = dict.fromkeys(part for need in needs.values() for part in need)
    rows = [
        (_value_cell(part), *(_size_cell(need.get(part, 0)) for need in needs.values()))
        for part in sorted(parts, key=lambda p: -max(need.get(p, 0) for need in needs.values()))
    ]
    totals = [sum(need.values()) for need in needs.values()]
    sums = {
        "in all": totals,
        f"{device.name} has": [device.memory_bytes for _ in totals],
        "left": [device.memory_bytes - total for total in totals],
    }
    rows += [(TableCell(name, "strong"), *map(_size_cell, values)) for name, values in sums.items()]
    title = "GPU memory" if isinstance(device, GpuModel) else "host memory, on the CPU"
    sizes = batch_sizes or {}
    heads = [f"{name}, batch {sizes[name]}" if name in sizes else name for name in needs]
    columns = (TableColumn(title), *(TableColumn(head, right=True) for head in heads))
    remarks = tuple(TableCell(f"{name}: {text}") for name, text in estimate.facts.items())
    return Table(columns, tuple(rows), remarks)


def _size_cell(bytes_: float) -> TableCell:
    return _value_cell(formats.size(bytes_) if bytes_ else "–")


def host_table(estimate: MemoryEstimate, host_bytes: int) -> Table:
    """Host memory by part, the sum, and the memory that the host has."""
    rows = [(_value_cell(part), _size_cell(size)) for part, size in estimate.host.items()]
    total = sum(estimate.host.values())
    rows += [
        (TableCell("in all", "strong"), _size_cell(total)),
        (TableCell("the host has", "strong"), _size_cell(host_bytes)),
        (TableCell("left", "strong"), _size_cell(host_bytes - total)),
    ]
    return Table((TableColumn("host memory"), TableColumn("", right=True)), tuple(rows))


def reductions_table(estimates: Sequence[ReducedEstimate]) -> Table:
    """Memory reductions one after the other, with the memory needed after each."""
    rows = [
        (TableCell(estimate.description), _size_cell(estimate.phase_fit.total),
         _value_cell("fits" if estimate.phase_fit.fits else "too much"))
        for estimate in estimates
    ]  # fmt: skip
    columns = (
        TableColumn("lower, one after the other"),
        TableColumn("then needs", right=True),
        TableColumn(""),
    )
    return Table(columns, tuple(rows))
