"""Comparison of two runs: differences of their metrics with intervals, and of their settings.

Where both runs left their per-query scores, the same queries are compared with each other (paired
bootstrap); otherwise only the two intervals are known. Either way the interval is over queries: it
does not include the variation between seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from results import statistics
from results.records.schema import MetricRecord, RunRecord
from results.tables.metrics import CHANCE, split_name
from results.tables.table import Table, TableCell, TableColumn
from results.text import formats
from results.text.translations import translate


class MetricDelta(NamedTuple):
    """One metric of both runs; `difference` is b - a."""

    a: MetricRecord
    b: MetricRecord
    difference: statistics.Difference

    @property
    def verdict(self) -> str:
        """`b better`, `a better`, `not distinguishable`, or `no interval`."""
        if self.difference.low is None:
            return "no interval"
        if not self.difference.distinguishable:
            return "not distinguishable"
        return "b better" if (self.difference.delta > 0) == self.a.higher_is_better else "a better"


class RunComparison(NamedTuple):
    """All metrics that both runs have, and everything else in which they differ."""

    deltas: tuple[MetricDelta, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    unequal: tuple[str, ...]
    """`lr: 0.0005 ≠ 0.001`: settings, seed, versions, machine."""


def compare(a: RunRecord, b: RunRecord, log_root: Path | None = None) -> RunComparison:
    """Every metric of both runs; paired where `log_root` holds the scores of both."""
    metrics_a, metrics_b = _metrics(a), _metrics(b)
    deltas = tuple(
        MetricDelta(
            metric, metrics_b[key], metric_difference((a, metric), (b, metrics_b[key]), log_root)
        )
        for key, metric in metrics_a.items()
        if key in metrics_b
    )
    return RunComparison(
        deltas,
        tuple(f"{name} on {split}" for name, split in metrics_a if (name, split) not in metrics_b),
        tuple(f"{name} on {split}" for name, split in metrics_b if (name, split) not in metrics_a),
        tuple(_find_unequal(a, b)),
    )


def table(comparison: RunComparison, lang: str = "en") -> Table:
    """The deltas as rows, with the list of what else differs below."""
    titles = ("split", "metric", "a", "b", "delta", "verdict", "method")
    columns = tuple(
        TableColumn(translate(f"compare.{t}", lang), t in ("a", "b", "delta")) for t in titles
    )
    rows = tuple(
        (
            TableCell(d.a.split, "code"),
            TableCell(d.a.name),
            TableCell(formats.interval(d.a.value, d.a.low, d.a.high), "value"),
            TableCell(formats.interval(d.b.value, d.b.low, d.b.high), "value"),
            TableCell(_format_signed(d.difference), "value"),
            TableCell(translate(f"compare.{d.verdict}", lang), "strong"),
            TableCell(d.difference.method),
        )
        for d in comparison.deltas
    )
    remarks = [TableCell(translate("compare.remark", lang), "value")]
    for key, names in (("only a", comparison.only_a), ("only b", comparison.only_b)):
        if names:
            remarks.append(TableCell(f"{translate(f'compare.{key}', lang)}: {', '.join(names)}"))
    if comparison.unequal:
        remarks.append(
            TableCell(f"{translate('compare.unequal', lang)}: {'; '.join(comparison.unequal)}")
        )
    return Table(columns, rows, tuple(remarks))


def _format_signed(difference: statistics.Difference) -> str:
    text = formats.interval(difference.delta, difference.low, difference.high)
    return f"+{text}" if difference.delta > 0 else text


def _metrics(record: RunRecord) -> dict[tuple[str, str], MetricRecord]:
    return {(m.name, m.split): m for m in record.metrics if split_name(m.name).variant != CHANCE}


def metric_difference(
    a: tuple[RunRecord, MetricRecord], b: tuple[RunRecord, MetricRecord], log_root: Path | None
) -> statistics.Difference:
    """b - a of one metric; paired where `log_root` holds the scores of both."""
    if log_root is not None:
        first, second = read_scores(log_root, *a), read_scores(log_root, *b)
        if len(first) > 1 and first.keys() == second.keys():
            return statistics.paired_difference(
                list(first.values()), [second[query] for query in first]
            )
    (va, la, ha), (vb, lb, hb) = ((m.value, m.low, m.high) for _, m in (a, b))
    if la is None or ha is None or lb is None or hb is None:
        return statistics.Difference(vb - va, None, None, "no scores and no intervals")
    return statistics.unpaired_difference((va, la, ha), (vb, lb, hb))


def read_scores(log_root: Path, record: RunRecord, metric: MetricRecord) -> dict[str, float]:
    """Score by query id from the run's score file; empty when there is none to be had.

    A line is `{"id": …, "recall@1": …, …}`; in the file of a variant its scores go by the plain
    name. A file outside of the log root is not read, whatever the record says.
    """
    if not metric.scores_file or not record.folder:
        return {}
    root = log_root.resolve()
    path = (root / record.folder / metric.scores_file).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        return {}
    names = (metric.name, split_name(metric.name).base)
    score_of_query: dict[str, float] = {}
    with path.open("rb") as file:
        for line in file:
            data = _parse_object(line)
            value = next((data[name] for name in names if name in data), None)
            if "id" in data and isinstance(value, int | float):
                score_of_query[str(data["id"])] = float(value)
    return score_of_query


def _parse_object(line: bytes) -> dict[str, Any]:
    """The line's JSON object; empty for a torn line, whose query then stays unpaired."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _find_unequal(a: RunRecord, b: RunRecord) -> Iterator[str]:
    facts_a, facts_b = _facts(a), _facts(b)
    for name in dict.fromkeys([*facts_a, *facts_b]):
        value_a, value_b = facts_a.get(name), facts_b.get(name)
        if value_a != value_b:
            texts = ("–" if value is None else value for value in (value_a, value_b))
            yield f"{name}: {' ≠ '.join(map(str, texts))}"


def _facts(record: RunRecord) -> dict[str, Any]:
    identity, environment = record.identity, record.environment
    return {
        **{n: getattr(identity, n) for n in ("engine", "task", "subset", "model", "seed")},
        "subset fingerprint": identity.subset_fingerprint,
        "model revision": identity.model_revision,
        **identity.params,
        **{n: getattr(environment, n) for n in ("device", "threads", "cpu", "git_commit")},
        **environment.versions,
    }
