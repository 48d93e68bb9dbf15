"""Two runs side by side: how much better, how sure, and what else was different.

Apart from the tables, which put runs beside each other without judging. Where both runs left their
per-query scores, the same queries are compared with each other (paired bootstrap); otherwise only
the two intervals are known. Either way the interval is over queries: it does not know how much
another seed would have changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from results import statistics
from results.records.schema import Metric, RunRecord
from results.tables.metrics import CHANCE, split_name
from results.tables.table import Cell, Column, Table
from results.text import formats
from results.text.translations import say


class Delta(NamedTuple):
    """One metric of both runs; `difference` is b - a."""

    a: Metric
    b: Metric
    difference: statistics.Difference

    @property
    def verdict(self) -> str:
        """`b better`, `a better`, `not distinguishable`, or `no interval`."""
        if self.difference.low is None:
            return "no interval"
        if not self.difference.distinguishable:
            return "not distinguishable"
        return "b better" if (self.difference.delta > 0) == self.a.higher_is_better else "a better"


class Comparison(NamedTuple):
    """All metrics that both runs have, and everything else in which they differ."""

    deltas: tuple[Delta, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    unequal: tuple[str, ...]
    """`lr: 0.0005 ≠ 0.001`: settings, seed, versions, machine."""


def compare(a: RunRecord, b: RunRecord, log_root: Path | None = None) -> Comparison:
    """Every metric of both runs; paired where `log_root` holds the scores of both."""
    ours, theirs = _metrics(a), _metrics(b)
    deltas = tuple(
        Delta(mine, theirs[key], difference((a, mine), (b, theirs[key]), log_root))
        for key, mine in ours.items()
        if key in theirs
    )
    return Comparison(
        deltas,
        tuple(f"{name} on {split}" for name, split in ours if (name, split) not in theirs),
        tuple(f"{name} on {split}" for name, split in theirs if (name, split) not in ours),
        tuple(_unequal(a, b)),
    )


def table(found: Comparison, lang: str = "en") -> Table:
    """The deltas as rows, with the list of what else differs below."""
    titles = ("split", "metric", "a", "b", "delta", "verdict", "method")
    columns = tuple(Column(say(f"compare.{t}", lang), t in ("a", "b", "delta")) for t in titles)
    rows = tuple(
        (
            Cell(d.a.split, "code"),
            Cell(d.a.name),
            Cell(formats.interval(d.a.value, d.a.low, d.a.high), "value"),
            Cell(formats.interval(d.b.value, d.b.low, d.b.high), "value"),
            Cell(_signed(d.difference), "value"),
            Cell(say(f"compare.{d.verdict}", lang), "strong"),
            Cell(d.difference.method),
        )
        for d in found.deltas
    )
    remarks = [Cell(say("compare.remark", lang), "value")]
    for key, names in (("only a", found.only_a), ("only b", found.only_b)):
        if names:
            remarks.append(Cell(f"{say(f'compare.{key}', lang)}: {', '.join(names)}"))
    if found.unequal:
        remarks.append(Cell(f"{say('compare.unequal', lang)}: {'; '.join(found.unequal)}"))
    return Table(columns, rows, tuple(remarks))


def _signed(found: statistics.Difference) -> str:
    text = formats.interval(found.delta, found.low, found.high)
    return f"+{text}" if found.delta > 0 else text


def _metrics(record: RunRecord) -> dict[tuple[str, str], Metric]:
    return {(m.name, m.split): m for m in record.metrics if split_name(m.name).variant != CHANCE}


def difference(
    a: tuple[RunRecord, Metric], b: tuple[RunRecord, Metric], log_root: Path | None
) -> statistics.Difference:
    """b - a of one metric; paired where `log_root` holds the scores of both."""
    if log_root is not None:
        first, second = scores(log_root, *a), scores(log_root, *b)
        if len(first) > 1 and first.keys() == second.keys():
            return statistics.paired_difference(
                list(first.values()), [second[query] for query in first]
            )
    (va, la, ha), (vb, lb, hb) = ((m.value, m.low, m.high) for _, m in (a, b))
    if la is None or ha is None or lb is None or hb is None:
        return statistics.Difference(vb - va, None, None, "no scores and no intervals")
    return statistics.unpaired_difference((va, la, ha), (vb, lb, hb))


def scores(log_root: Path, record: RunRecord, metric: Metric) -> dict[str, float]:
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
    found: dict[str, float] = {}
    with path.open("rb") as file:
        for line in file:
            data = _object(line)
            value = next((data[name] for name in names if name in data), None)
            if "id" in data and isinstance(value, int | float):
                found[str(data["id"])] = float(value)
    return found


def _object(line: bytes) -> dict[str, Any]:
    """The line's JSON object; empty for a torn line, whose query then stays unpaired."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _unequal(a: RunRecord, b: RunRecord) -> Iterator[str]:
    ours, theirs = _facts(a), _facts(b)
    for name in dict.fromkeys([*ours, *theirs]):
        mine, other = ours.get(name), theirs.get(name)
        if mine != other:
            yield f"{name}: {'–' if mine is None else mine} ≠ {'–' if other is None else other}"


def _facts(record: RunRecord) -> dict[str, Any]:
    who, where = record.identity, record.environment
    return {
        **{n: getattr(who, n) for n in ("engine", "task", "subset", "model", "seed")},
        "subset fingerprint": who.subset_fingerprint,
        "model revision": who.model_revision,
        **who.params,
        **{n: getattr(where, n) for n in ("device", "threads", "cpu", "git_commit")},
        **where.versions,
    }
