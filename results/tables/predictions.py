"""Table of single items of a run, the worst first."""

from __future__ import annotations

from results.comparison.predictions import PredictionList, answer_text, reference_text
from results.text import formats
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import translate


def predictions_table(listed: PredictionList | None, lang: str = "en") -> Table:
    """A row an item: score, rank, what the run answered, what was right."""
    if listed is None:
        return Table((), (), (TableCell(translate("predictions.none", lang), "prose"),))
    names = ("item", "score", "rank", "answer", "wanted")
    columns = tuple(
        TableColumn(translate(f"predictions.{name}", lang), right=name in ("score", "rank"))
        for name in names
    )
    rows = tuple(
        (
            TableCell(item.id, "code"),
            TableCell(formats.number(item.score), "value"),
            TableCell(str(item.line.get("rank") or "–")),
            TableCell(answer_text(item.line)),
            TableCell(reference_text(item.line)),
        )
        for item in listed.predictions
    )
    counts = [formats.count(n) for n in (len(rows), listed.matches, listed.total)]
    remark = translate("predictions.remark", lang).format(listed.metric, listed.split, *counts)
    return Table(columns, rows, (TableCell(remark, "prose"),))
