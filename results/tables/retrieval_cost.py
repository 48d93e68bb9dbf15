"""What evaluating cost: encoding, searching and scoring, split by split.

Apart from `measures` because a row is a run and a split, not a run: a training run pays for every
split that its recipe names, and the first of those that search one corpus pays for encoding it.
"""

from __future__ import annotations

from collections.abc import Sequence

from results.records.schema import Evaluation, RunRecord
from results.tables import run_cells
from results.tables.table import Cell, Column, Table
from results.text import formats
from results.text.translations import say


def cost(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """One row a run and split; without columns when nothing was evaluated."""
    shown = [r for r in records if r.evaluations]
    fields = run_cells.distinguishing(shown)
    titles = (
        "queries", "passages", "ranked", "first batch", "encode corpus", "encode queries", "search",
        "1 epoch", "scoring",
    )  # fmt: skip
    columns = (
        *run_cells.name_columns(fields, lang),
        Column(say("split", lang)),
        *(Column(say(title, lang), right=True) for title in titles),
    )
    body = tuple(
        (*run_cells.name_cells(r, fields, lang), *_cells(e, lang))
        for r in shown
        for e in r.evaluations
    )
    remarks = (Cell(say("remark.evaluation cost", lang), "value"),)
    return Table(columns, body, remarks) if body else Table((), ())


def _cells(found: Evaluation, lang: str) -> tuple[Cell, ...]:
    first = found.time_to_first_batch
    how = found.search if found.precision == "fp32" else f"{found.search}, {found.precision}"
    return (
        Cell(found.split, "code"),
        Cell(formats.count(found.queries), "value"),
        Cell(formats.count(found.passages), "value"),
        Cell(f"{formats.count(found.depth)} ({how})"),
        Cell("–" if first is None else formats.duration(first), "value"),
        _rate(found.corpus_seconds, found.passages, lang),
        _rate(found.query_seconds, found.queries, lang),
        _rate(found.search_seconds, found.queries, lang),
        Cell(formats.duration(found.epoch_seconds), "strong"),
        Cell(formats.duration(found.score_seconds), "value"),
    )


def _rate(seconds: float | None, items: int, lang: str) -> Cell:
    """`0:01.20 (4,205/s)`."""
    if seconds is None:
        return Cell(say("reused", lang), "value")
    per_second = f" ({formats.rate(items / seconds)}/s)" if seconds > 0 else ""
    return Cell(formats.duration(seconds) + per_second, "value")


def batches(record: RunRecord) -> int:
    """Batches that an evaluation encoded: what it has instead of steps."""
    return sum(found.batches for found in record.evaluations)
