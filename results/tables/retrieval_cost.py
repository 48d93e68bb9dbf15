"""Cost of evaluation: encoding, searching and scoring, per run and split.

A training run evaluates every split that its recipe names; the first of those that search one
corpus pays for encoding it.
"""

from __future__ import annotations

from collections.abc import Sequence

from results.records.schema import EvaluationRecord, RunRecord
from results.tables import run_cells
from results.text import formats
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import translate


def cost(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """One row a run and split; without columns when nothing was evaluated."""
    runs = [r for r in records if r.evaluations]
    fields = run_cells.distinguishing_fields(runs)
    titles = (
        "queries", "passages", "ranked", "first batch", "encode corpus", "encode queries", "search",
        "1 epoch", "scoring",
    )  # fmt: skip
    columns = (
        *run_cells.name_columns(fields, lang),
        TableColumn(translate("split", lang)),
        *(TableColumn(translate(title, lang), right=True) for title in titles),
    )
    body = tuple(
        (*run_cells.name_cells(r, fields, lang), *_evaluation_cells(e, lang))
        for r in runs
        for e in r.evaluations
    )
    remarks = (TableCell(translate("remark.evaluation cost", lang), "value"),)
    return Table(columns, body, remarks) if body else Table((), ())


def _evaluation_cells(evaluation: EvaluationRecord, lang: str) -> tuple[TableCell, ...]:
    first = evaluation.time_to_first_batch
    index_name = (
        evaluation.search
        if evaluation.precision == "fp32"
        else f"{evaluation.search}, {evaluation.precision}"
    )
    return (
        TableCell(evaluation.split, "code"),
        TableCell(formats.count(evaluation.queries), "value"),
        TableCell(formats.count(evaluation.passages), "value"),
        TableCell(f"{formats.count(evaluation.depth)} ({index_name})"),
        TableCell("–" if first is None else formats.duration(first), "value"),
        _rate_cell(evaluation.corpus_seconds, evaluation.passages, lang),
        _rate_cell(evaluation.query_seconds, evaluation.queries, lang),
        _rate_cell(evaluation.search_seconds, evaluation.queries, lang),
        TableCell(formats.duration(evaluation.epoch_seconds), "strong"),
        TableCell(formats.duration(evaluation.score_seconds), "value"),
    )


def _rate_cell(seconds: float | None, items: int, lang: str) -> TableCell:
    """`0:01.20 (4,205/s)`."""
    if seconds is None:
        return TableCell(translate("reused", lang), "value")
    per_second = f" ({formats.rate(items / seconds)}/s)" if seconds > 0 else ""
    return TableCell(formats.duration(seconds) + per_second, "value")


def count_batches(record: RunRecord) -> int:
    """Batches that an evaluation encoded: what it has instead of steps."""
    return sum(evaluation.batches for evaluation in record.evaluations)
