"""Table of memory estimates made before a run, with the measured peaks.

Estimates come from one simulated step. Pure functions of records.
"""

from __future__ import annotations

from collections.abc import Sequence

from results.records.schema import MemoryEstimateRecord, RunRecord
from results.tables import run_cells
from results.text import formats
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import translate


def table(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """One row for each run with a memory estimate."""
    runs = [r for r in records if r.fit is not None]
    fields = run_cells.distinguishing_fields(runs)
    keys = ("for", "phase", "forecast", "measured", "error", "needed")
    columns = (
        *run_cells.name_columns(fields, lang),
        *(TableColumn(translate(f"fit.{key}", lang), key not in ("for", "phase")) for key in keys),
    )
    body = tuple(
        (*run_cells.name_cells(r, fields, lang), *_estimate_cells(r.fit, lang))
        for r in runs
        if r.fit
    )
    kinds = dict.fromkeys("gpu" if r.fit.gpu else "host" for r in runs if r.fit)
    remarks = [TableCell(translate(f"fit.remark {kind}", lang), "value") for kind in kinds]
    return Table(columns, body, (*remarks, TableCell(translate("fit.remark", lang), "value")))


def _estimate_cells(fit: MemoryEstimateRecord, lang: str) -> tuple[TableCell, ...]:
    return (
        TableCell(fit.gpu) if fit.gpu else TableCell(translate("fit.host", lang), "value"),
        TableCell(fit.phase),
        TableCell(formats.size(fit.expected), "value"),
        run_cells.reading_cell(fit.measured, formats.size),
        TableCell("–" if fit.error is None else format_error(fit.error), "value"),
        TableCell(formats.size(fit.needed), "value"),
    )


def format_error(error: float) -> str:
    """`+4.3 %`."""
    return f"{error * 100:+.1f} %"


def sentence(fit: MemoryEstimateRecord) -> str:
    """`forecast 4.52 GiB in training, measured 4.60 GiB (-1.7 %); A10G must have 5.53 GiB`."""
    phase = {"train": " in training", "predict": " in prediction"}.get(fit.phase, "")
    peak = fit.measured
    measured = formats.n_a(peak.reason) if peak.value is None else formats.size(peak.value)
    error = "" if fit.error is None else f" ({format_error(fit.error)})"
    target = fit.gpu or "the host"
    return (
        f"forecast {formats.size(fit.expected)}{phase}, measured {measured}{error}; "
        f"{target} must have {formats.size(fit.needed)}"
    )
