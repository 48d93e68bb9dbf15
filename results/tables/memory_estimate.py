"""Memory that was forecast before a run, beside what it took.

Apart from `forecasts`, which is about times: those come from costing runs, these from a rehearsal
of one step before anything ran. Pure functions of records.
"""

from __future__ import annotations

from collections.abc import Sequence

from results.records.schema import Fit, RunRecord
from results.tables import run_cells
from results.tables.table import Cell, Column, Table
from results.text import formats
from results.text.translations import say


def table(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """One row for each run whose memory was forecast; no rows when none was."""
    shown = [r for r in records if r.fit is not None]
    fields = run_cells.distinguishing(shown)
    keys = ("for", "phase", "forecast", "measured", "error", "needed")
    columns = (
        *run_cells.name_columns(fields, lang),
        *(Column(say(f"fit.{key}", lang), key not in ("for", "phase")) for key in keys),
    )
    body = tuple(
        (*run_cells.name_cells(r, fields, lang), *_cells(r.fit, lang)) for r in shown if r.fit
    )
    kinds = dict.fromkeys("gpu" if r.fit.gpu else "host" for r in shown if r.fit)
    remarks = [Cell(say(f"fit.remark {kind}", lang), "value") for kind in kinds]
    return Table(columns, body, (*remarks, Cell(say("fit.remark", lang), "value")))


def _cells(fit: Fit, lang: str) -> tuple[Cell, ...]:
    return (
        Cell(fit.gpu) if fit.gpu else Cell(say("fit.host", lang), "value"),
        Cell(fit.phase),
        Cell(formats.size(fit.expected), "value"),
        run_cells.reading(fit.measured, formats.size),
        Cell("–" if fit.error is None else signed(fit.error), "value"),
        Cell(formats.size(fit.needed), "value"),
    )


def signed(error: float) -> str:
    """`+4.3 %`."""
    return f"{error * 100:+.1f} %"


def sentence(fit: Fit) -> str:
    """`forecast 4.52 GiB in training, measured 4.60 GiB (-1.7 %); A10G must have 5.53 GiB`."""
    when = {"train": " in training", "predict": " in prediction"}.get(fit.phase, "")
    found = fit.measured
    seen = formats.n_a(found.reason) if found.value is None else formats.size(found.value)
    error = "" if fit.error is None else f" ({signed(fit.error)})"
    where = fit.gpu or "the host"
    return (
        f"forecast {formats.size(fit.expected)}{when}, measured {seen}{error}; "
        f"{where} must have {formats.size(fit.needed)}"
    )
