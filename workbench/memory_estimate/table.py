"""The tables of `workbench plan`: steps, memory of the GPU by part, memory of the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engines.memory_query import Need
from results.tables.table import Cell, Column, Table
from results.text import formats
from workbench.memory_estimate import fit_check
from workbench.memory_estimate.fit_check import Host
from workbench.memory_estimate.gpus import Gpu
from workbench.memory_estimate.plan_estimate import Lowered, Steps


def _value(text: str) -> Cell:
    return Cell(text, "value")


def of_steps(found: Steps, origins: Mapping[str, str]) -> Table:
    """Rows, batch and steps, and what decided them."""
    effective = found.batch * found.accumulation * found.ranks
    lines = [
        ("rows", f"{found.rows:,}", ""),
        ("trained on", f"{found.train:,}", ""),
        ("held out", f"{found.held_out:,}", ""),
        *_looked_at(found),
        ("micro-batch", f"{found.batch:,}", origins.get("batch", "")),
        ("accumulation", f"{found.accumulation:,}", origins.get("accumulation", "")),
        *([("processes", f"{found.ranks:,}", "nproc_per_node")] if found.ranks > 1 else []),
        ("effective batch", f"{effective:,}", ""),
        ("optimizer steps per epoch", f"{found.per_epoch:,}", f"{found.train:,} / {effective:,}"),
        (f"optimizer steps, {found.epochs:g} epochs", f"{found.total:,}", ""),
    ]
    columns = (Column("steps"), Column("", right=True), Column("from"))
    return Table(columns, tuple((_value(a), _value(b), Cell(c)) for a, b, c in lines))


def _looked_at(found: Steps) -> list[tuple[str, str, str]]:
    """Where a look at the validation takes fewer rows than are held out."""
    if found.looked_at == found.held_out:
        return []
    return [("validation, stratified", f"{found.looked_at:,}", "validate_limit")]


def of_memory(need: Need, where: Gpu | Host) -> Table:
    """Bytes by part at the peak of each phase, their sum, and what the GPU or the host has."""
    judged = {phase: fit_check.judge(need, phase, where) for phase in need.phases}
    parts: dict[str, None] = {}
    for one in judged.values():
        parts |= dict.fromkeys(one.parts)
    rows = [
        (_value(part), *(_size(one.parts.get(part, 0)) for one in judged.values()))
        for part in sorted(parts, key=lambda p: -max(o.parts.get(p, 0) for o in judged.values()))
    ]
    sums = {
        "in all": [one.total for one in judged.values()],
        f"{where.name} has": [one.available for one in judged.values()],
        "left": [-one.missing for one in judged.values()],
    }
    rows += [(Cell(name, "strong"), *map(_size, values)) for name, values in sums.items()]
    title = "GPU memory" if isinstance(where, Gpu) else "host memory, on the CPU"
    columns = (Column(title), *(Column(phase, right=True) for phase in judged))
    remarks = tuple(Cell(f"{name}: {text}") for name, text in need.facts.items())
    return Table(columns, tuple(rows), remarks)


def _size(bytes_: float) -> Cell:
    return _value(formats.size(bytes_) if bytes_ else "–")


def of_host(need: Need, host_bytes: int) -> Table:
    """Memory of the host by part, against what it has."""
    rows = [(_value(part), _size(size)) for part, size in need.host.items()]
    total = sum(need.host.values())
    rows += [
        (Cell("in all", "strong"), _size(total)),
        (Cell("the host has", "strong"), _size(host_bytes)),
        (Cell("left", "strong"), _size(host_bytes - total)),
    ]
    return Table((Column("host memory"), Column("", right=True)), tuple(rows))


def of_lowered(found: Sequence[Lowered]) -> Table:
    """What to lower, one after the other, and what remains to be needed."""
    rows = [
        (Cell(one.words), _size(one.verdict.total),
         _value("fits" if one.verdict.fits else "too much"))
        for one in found
    ]  # fmt: skip
    columns = (Column("lower, one after the other"), Column("then needs", right=True), Column(""))
    return Table(columns, tuple(rows))
