"""The table of a search: every trial with its settings, its metric, and how it ended.

Apart from the tables of runs, which name a run by what was asked; a trial is named by what the
search chose. Pure functions of records and of what the search says of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from results.records.schema import Metric, RunRecord
from results.records.suite_view import SearchView
from results.tables import run_cells
from results.tables.table import Cell, Column, Table
from results.text import formats
from results.text.translations import cause, say

LOSS: Final = "loss"


def table(records: Sequence[RunRecord], search: SearchView, lang: str = "en") -> Table:
    """One row a trial, in their order; the best one's metric in bold. No rows without trials."""
    shown = [r for r in records if r.identity.trial is not None]
    names = list(search.ranges)
    best = best_of(shown, search)
    columns = (
        Column(say("trials.trial", lang), right=True),
        *(Column(f"`{name}`", right=True) for name in names),
        Column(_metric_name(search), right=True),
        Column(say("steps", lang), right=True),
        Column(say("trials.time", lang), right=True),
        Column(say("trials.end", lang)),
    )
    body = tuple(_row(r, names, search, best is r, lang) for r in shown)
    return Table(columns, body, _remarks(shown, search, best, lang)) if body else Table((), ())


def _metric_name(search: SearchView) -> str:
    return f"`{search.metric}`" + (f" ({search.split})" if search.split else "")


def metric_of(record: RunRecord, search: SearchView) -> Metric | None:
    """What the search wanted of a completed trial; None of all others."""
    if record.exit.cause != "completed":
        return None
    for metric in record.metrics:
        if metric.name == search.metric and search.split in ("", metric.split):
            return metric
    if search.metric == LOSS and LOSS in record.train:
        value = record.train[LOSS]
        return Metric(name=LOSS, value=value, split="train", n=1, higher_is_better=False)
    return None


def best_of(records: Sequence[RunRecord], search: SearchView) -> RunRecord | None:
    """The trial with the best metric; of equal ones the first."""
    found = [(r, m.value) for r in records if (m := metric_of(r, search)) and m.value == m.value]
    if not found:
        return None
    sign = -1 if search.direction == "minimize" else 1
    return max(found, key=lambda pair: sign * pair[1])[0]


def _row(
    record: RunRecord, names: Sequence[str], search: SearchView, best: bool, lang: str
) -> tuple[Cell, ...]:
    trial, metric = record.identity.trial, metric_of(record, search)
    settings = trial.settings if trial else {}
    value = Cell("–", "value")
    if metric is not None:
        text = formats.interval(metric.value, metric.low, metric.high)
        value = Cell(text, "strong", (say("trials.best", lang),)) if best else Cell(text, "value")
    return (
        Cell(str(trial.number if trial else 0), "value"),
        *(Cell(formats.setting(settings.get(name))) for name in names),
        value,
        Cell(_steps(record, lang), "value"),
        run_cells.reading(record.timing.end_to_end_seconds, formats.duration),
        _end(record, lang),
    )


def _steps(record: RunRecord, lang: str) -> str:
    done, planned = formats.count(record.steps), formats.count(record.planned_steps)
    return done if done == planned else say("of", lang).format(done, planned)


def _end(record: RunRecord, lang: str) -> Cell:
    """`completed`, or why not: a pruned trial says at which point."""
    ended = record.exit
    return Cell((ended.cause != "completed" and ended.detail) or cause(ended.cause, lang))


def _remarks(
    shown: Sequence[RunRecord], search: SearchView, best: RunRecord | None, lang: str
) -> tuple[Cell, ...]:
    counted = (say("trials.counted", lang), len(shown), search.trials)
    how = counted[0].format(*counted[1:], search.sampler, search.seed, search.pruner)
    ranges = "; ".join(f"{name}: {words}" for name, words in search.ranges.items())
    remarks = [Cell(how, "value"), Cell(say("trials.ranges", lang).format(ranges))]
    if best is not None:
        remarks.append(Cell(_about_best(shown, search, best, lang), "value"))
    if search.importances:
        parts = ", ".join(f"{name} {formats.percent(v)}" for name, v in search.importances.items())
        remarks.append(Cell(say("trials.importances", lang).format(parts)))
    if search.trouble:
        remarks.append(Cell(say("trials.trouble", lang).format(search.trouble)))
    return tuple(remarks)


def _about_best(shown: Sequence[RunRecord], search: SearchView, best: RunRecord, lang: str) -> str:
    """The best of many was lucky, too: how many others cannot be told from it."""
    top = metric_of(best, search)
    others = [m for r in shown if r is not best and (m := metric_of(r, search)) is not None]
    number = best.identity.trial.number if best.identity.trial else 0
    if top is None or top.low is None:
        return say("trials.about best without interval", lang).format(number, len(others))
    near = sum(1 for m in others if _overlap(top, m))
    return say("trials.about best", lang).format(number, near, len(others))


def _overlap(a: Metric, b: Metric) -> bool:
    """Whether two intervals meet; a value without one stands for itself."""
    low_a, high_a = (a.value if x is None else x for x in (a.low, a.high))
    low_b, high_b = (b.value if x is None else x for x in (b.low, b.high))
    return low_a <= high_b and low_b <= high_a
