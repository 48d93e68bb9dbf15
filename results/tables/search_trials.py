"""Table of a search: every trial with its settings, its metric, and how it ended.

Pure functions of records and of the search's view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from results.records.schema import MetricRecord, RunRecord
from results.records.suite_view import SearchView
from results.tables import run_cells
from results.text import formats
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import cause, translate

LOSS: Final = "loss"


def table(records: Sequence[RunRecord], search: SearchView, lang: str = "en") -> Table:
    """One row a trial, in their order; the best one flagged: of many, one is best by chance.

    No rows without trials.
    """
    trials = [r for r in records if r.identity.trial is not None]
    names = list(search.ranges)
    best = best_trial(trials, search)
    columns = (
        TableColumn(translate("trials.trial", lang), right=True),
        *(TableColumn(f"`{name}`", right=True) for name in names),
        TableColumn(_metric_name(search), right=True),
        TableColumn(translate("steps", lang), right=True),
        TableColumn(translate("trials.time", lang), right=True),
        TableColumn(translate("trials.end", lang)),
    )
    body = tuple(_row(r, names, search, best is r, lang) for r in trials)
    return Table(columns, body, _remarks(trials, search, best, lang)) if body else Table((), ())


def _metric_name(search: SearchView) -> str:
    return f"`{search.metric}`" + (f" ({search.split})" if search.split else "")


def trial_metric(record: RunRecord, search: SearchView) -> MetricRecord | None:
    """The search's metric of a completed trial; None for all others."""
    if record.exit.cause != "completed":
        return None
    for metric in record.metrics:
        if metric.name == search.metric and search.split in ("", metric.split):
            return metric
    if search.metric == LOSS and LOSS in record.train:
        value = record.train[LOSS]
        return MetricRecord(name=LOSS, value=value, split="train", n=1, higher_is_better=False)
    return None


def best_trial(records: Sequence[RunRecord], search: SearchView) -> RunRecord | None:
    """The trial with the best metric; of equal ones the first."""
    values = [
        (r, m.value) for r in records if (m := trial_metric(r, search)) and m.value == m.value
    ]
    if not values:
        return None
    sign = -1 if search.direction == "minimize" else 1
    return max(values, key=lambda pair: sign * pair[1])[0]


def _row(
    record: RunRecord, names: Sequence[str], search: SearchView, best: bool, lang: str
) -> tuple[TableCell, ...]:
    trial, metric = record.identity.trial, trial_metric(record, search)
    settings = trial.settings if trial else {}
    value = TableCell("–", "value")
    if metric is not None:
        text = formats.interval(metric.value, metric.low, metric.high)
        value = TableCell(text, "value", (translate("trials.best", lang),) if best else ())
    return (
        TableCell(str(trial.number if trial else 0), "value"),
        *(TableCell(formats.setting(settings.get(name))) for name in names),
        value,
        TableCell(_steps(record, lang), "value"),
        run_cells.reading_cell(record.timing.end_to_end_seconds, formats.duration),
        _exit_cell(record, lang),
    )


def _steps(record: RunRecord, lang: str) -> str:
    done, planned = formats.count(record.steps), formats.count(record.planned_steps)
    return done if done == planned else translate("of", lang).format(done, planned)


def _exit_cell(record: RunRecord, lang: str) -> TableCell:
    """`completed`, or the reason: of a pruned trial with its step."""
    ended = record.exit
    return TableCell((ended.cause != "completed" and ended.detail) or cause(ended.cause, lang))


def _remarks(
    trials: Sequence[RunRecord], search: SearchView, best: RunRecord | None, lang: str
) -> tuple[TableCell, ...]:
    counted = (translate("trials.counted", lang), len(trials), search.trials)
    sentence = counted[0].format(*counted[1:], search.sampler, search.seed, search.pruner)
    ranges = "; ".join(f"{name}: {words}" for name, words in search.ranges.items())
    remarks = [
        TableCell(sentence, "value"),
        TableCell(translate("trials.ranges", lang).format(ranges)),
    ]
    if best is not None:
        remarks.append(TableCell(_best_remark(trials, search, best, lang), "value"))
    if search.importances:
        parts = ", ".join(f"{name} {formats.percent(v)}" for name, v in search.importances.items())
        remarks.append(TableCell(translate("trials.importances", lang).format(parts)))
    if search.trouble:
        remarks.append(TableCell(translate("trials.trouble", lang).format(search.trouble)))
    return tuple(remarks)


def _best_remark(
    trials: Sequence[RunRecord], search: SearchView, best: RunRecord, lang: str
) -> str:
    """The best of many trials is biased: number of others whose intervals overlap with its."""
    top = trial_metric(best, search)
    others = [m for r in trials if r is not best and (m := trial_metric(r, search)) is not None]
    number = best.identity.trial.number if best.identity.trial else 0
    if top is None or top.low is None:
        return translate("trials.about best without interval", lang).format(number, len(others))
    overlapping = sum(1 for m in others if _overlap(top, m))
    return translate("trials.about best", lang).format(number, overlapping, len(others))


def _overlap(a: MetricRecord, b: MetricRecord) -> bool:
    """Whether two intervals overlap; a value without one counts as a point."""
    low_a, high_a = (a.value if x is None else x for x in (a.low, a.high))
    low_b, high_b = (b.value if x is None else x for x in (b.low, b.high))
    return low_a <= high_b and low_b <= high_a
