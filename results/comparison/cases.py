"""Single items (queries, questions, media) of two runs: which one answers better, and where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from results.comparison.predictions import find_subset
from results.comparison.scores import read_items
from results.records.schema import MetricRecord, RunRecord
from results.text.metric_names import headline_metric

KINDS: Final = ("b better", "a better", "both 0")
MAX_TEXT: Final = 300
"""Maximum length of a text of a case."""
MAX_ITEMS: Final = 10
"""Entries of a list, such as found passages, that are kept."""


class ItemCase(NamedTuple):
    """One item: its score by both runs, and what each wrote about it."""

    kind: str
    """Of `KINDS`."""
    id: str
    a: float
    b: float
    a_line: dict[str, Any]
    b_line: dict[str, Any]


class CaseComparison(NamedTuple):
    """Items of one metric that both runs scored."""

    split: str
    metric: str
    subset: str
    """Whose records the items are."""
    counts: dict[str, int]
    """Items by kind, and `equal`: all others."""
    cases: tuple[ItemCase, ...]

    def as_row(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**self._asdict(), "cases": [case._asdict() for case in self.cases]}


def compare_cases(
    a: RunRecord, b: RunRecord, log_root: Path, limit: int, metric: str = ""
) -> CaseComparison | None:
    """Items that the runs score differently, the largest differences first, and common failures.

    Args:
        a: The reference.
        b: What is compared with it.
        log_root: Where the score files lie.
        limit: Cases of each kind at most.
        metric: `name@split`; empty: the headline of `a`.

    Returns:
        None where a score file or the metric is missing on a side.
    """
    metric_a = _find_metric(a, metric)
    metric_b = _find_metric(b, _key(metric_a)) if metric_a else None
    if metric_a is None or metric_b is None:
        return None
    items_a, items_b = read_items(log_root, a, metric_a), read_items(log_root, b, metric_b)
    cases = [
        _make_case(item, score, items_b[item][0], line, items_b[item][1], metric_a)
        for item, (score, line) in items_a.items()
        if item in items_b
    ]
    if not cases:
        return None
    counts = {kind: sum(case.kind == kind for case in cases) for kind in (*KINDS, "equal")}
    chosen: list[ItemCase] = []
    for kind in KINDS:
        ordered = sorted((c for c in cases if c.kind == kind), key=_by_difference)
        chosen += ordered[:limit]
    subset = find_subset(a, metric_a.split)
    return CaseComparison(metric_a.split, metric_a.name, subset, counts, tuple(chosen))


def _find_metric(record: RunRecord, key: str) -> MetricRecord | None:
    if not key:
        return headline_metric([m for m in record.metrics if m.scores_file] or record.metrics)
    return next((m for m in record.metrics if key in (_key(m), m.name)), None)


def _key(metric: MetricRecord) -> str:
    return f"{metric.name}@{metric.split}"


def _make_case(
    item: str,
    a: float,
    b: float,
    a_line: dict[str, Any],
    b_line: dict[str, Any],
    metric: MetricRecord,
) -> ItemCase:
    gain = b - a if metric.higher_is_better else a - b
    kind = "b better" if gain > 0 else "a better" if gain < 0 else "equal"  # of NaN nothing is said
    kind = "both 0" if a == b == 0 and metric.higher_is_better else kind
    return ItemCase(kind, item, a, b, _shorten_line(a_line), _shorten_line(b_line))


def _by_difference(case: ItemCase) -> tuple[float, float, str]:
    """Large differences first; of equal ones those whose ranks are far from each other."""
    ranks = [line.get("rank") for line in (case.a_line, case.b_line)]
    far = abs(_rank(ranks[0]) - _rank(ranks[1]))
    return -abs(case.a - case.b), -far, case.id


def _rank(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 1e6


def _shorten_line(line: dict[str, Any]) -> dict[str, Any]:
    """The line without its further scores; long texts and lists are cut."""
    kept: dict[str, Any] = {}
    for name, value in line.items():
        if isinstance(value, str):
            kept[name] = value[:MAX_TEXT]
        elif isinstance(value, Sequence):
            kept[name] = [str(entry)[:MAX_TEXT] for entry in value[:MAX_ITEMS]]
        elif name == "rank" or not isinstance(value, int | float):
            kept[name] = value
    return kept
