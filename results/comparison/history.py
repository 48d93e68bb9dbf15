"""Runs beside earlier ones, rankings, and judged criteria: the comparisons of a document.

Everything is computed here, once, so that a report is a function of its view alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from results import significance
from results.comparison import criteria, experiments
from results.comparison.differences import find_differences
from results.comparison.document_view import (
    NOT_STATED,
    JudgedCriterion,
    RankedRuns,
    Ranking,
    RunChange,
    ValueChange,
)
from results.comparison.groups import (
    CostChange,
    MetricChange,
    RunGroup,
    compare_groups,
    compare_metric,
)
from results.records import cost_forecasts, published_runs
from results.records.schema import RunRecord
from results.text import formats
from results.text.metric_names import choose_headline

UNSET: Final = "–"
MAX_PLACES: Final = 12
"""Places of a ranking that are tested and shown."""

RunIds = Mapping[tuple[str, str], str]
"""(suite, run id) -> id in the document."""
Verdict = Literal["better", "worse", "equal", "not distinguishable", "no interval"]


def compare_runs(
    record: RunRecord,
    other: RunRecord,
    relation: experiments.Relation,
    run: str,
    log_root: Path | None = None,
) -> RunChange:
    """A run against an earlier one, by the comparison of `workbench results compare`.

    Args:
        record: The run.
        other: The earlier one; differences are the run's value less its value.
        relation: What the earlier one is to the run.
        run: The run's id in the document.
        log_root: Where score files lie; None: no paired tests.
    """
    sides = RunGroup("before", (other,)), RunGroup("after", (record,))
    comparison = compare_groups(*sides, log_root)
    settings = tuple(
        (name, _format_setting(before, other), _format_setting(after, record))
        for name, before, after in experiments.changed_settings(other, record)
    )
    kinds = [d.kind for d in find_differences(sides) if d.kind != "settings"]
    return RunChange(
        run=run,
        baseline=f"{other.identity.suite}/{other.identity.run_id}",
        label=other.identity.label,
        relation=relation,
        values=(
            *map(_metric_change, comparison.metrics), *map(_cost_change, comparison.costs),
        ),
        settings=settings,
        others=tuple(dict.fromkeys(kinds)),
    )  # fmt: skip


def compare_with_period(
    records: Sequence[RunRecord], earlier: Sequence[RunRecord], ids: RunIds, log_root: Path | None
) -> Iterator[RunChange]:
    """Each completed run beside the nearest one of an earlier period, where there is one."""
    for record in _completed(records):
        if other := experiments.find_earlier(record, earlier):
            yield compare_runs(record, other, "earlier", _id(record, ids), log_root)


def compare_with_baselines(
    records: Sequence[RunRecord],
    log_records: Sequence[RunRecord],
    named: Mapping[tuple[str, str], str],
    ids: RunIds,
    log_root: Path | None,
) -> Iterator[tuple[RunChange, RunRecord, RunRecord]]:
    """Each completed run beside its baseline, with both records.

    Args:
        records: The runs.
        log_records: Candidates, the runs among them.
        named: (suite, run id) -> the baseline that its plan names.
        ids: See `RunIds`.
        log_root: Where score files lie.
    """
    for record in _completed(records):
        name = named.get((record.identity.suite, record.identity.run_id), "")
        if pair := experiments.find_baseline(record, log_records, name):
            change = compare_runs(record, pair[0], pair[1], _id(record, ids), log_root)
            yield change, record, pair[0]


def judge_criteria(
    texts: Iterable[str], record: RunRecord, baseline: RunRecord | None
) -> tuple[JudgedCriterion, ...]:
    """The criteria of a run, judged."""
    judgements = [criteria.judge(text, record, baseline) for text in texts]
    return tuple(
        JudgedCriterion(
            text=j.text, value=j.reading.value, low=j.reading.low, high=j.reading.high,
            verdict=j.verdict, certain=j.certain,
        )
        for j in judgements
    )  # fmt: skip


def rank_runs(
    records: Sequence[RunRecord], ids: RunIds, log_root: Path | None = None
) -> Iterator[Ranking]:
    """A ranking for each split on which several groups of runs were evaluated.

    Groups are runs that differ by their seed. Folds answer other questions each and have no
    ranking. Differences from the best are paired where scores exist, and adjusted by Holm.
    """
    ranked = [r for r in _completed(records) if not _is_fold(r)]
    for engine, split in dict.fromkeys(
        (r.identity.engine, m.split) for r in ranked for m in r.metrics if m.split != "train"
    ):
        of_engine = [r for r in ranked if r.identity.engine == engine]
        ranking = _rank_split(of_engine, split, ids, log_root)
        if ranking is not None:
            yield ranking


def _rank_split(
    records: Sequence[RunRecord], split: str, ids: RunIds, log_root: Path | None
) -> Ranking | None:
    metrics = [m for r in records for m in r.metrics if m.split == split]
    name = _common_headline(records, split)
    directions = {m.name: m.higher_is_better for m in metrics}
    groups = [
        group
        for group in _group_seeds(records)
        if all(any((m.split, m.name) == (split, name) for m in r.metrics) for r in group.records)
    ]
    means = {group.title: _mean(group, split, name) for group in groups}
    groups = [group for group in groups if math.isfinite(means[group.title])]
    if len(groups) < 2:
        return None
    groups.sort(key=lambda group: means[group.title], reverse=directions[name])
    groups = groups[:MAX_PLACES]
    tests = [compare_metric(groups[0], other, split, name, log_root) for other in groups[1:]]
    adjusted = significance.adjust_by_holm([test.p for test in tests])
    places = [_place(groups[0], split, name, ids, "best")]
    for group, test, p in zip(groups[1:], tests, adjusted, strict=True):
        verdict: Literal["worse", "not distinguishable", "no interval"] = "not distinguishable"
        if test.difference.low is None:
            verdict = "no interval"
        elif test.difference.distinguishable and (p or 0.0) < significance.ALPHA:
            verdict = "worse"
        places.append(_place(group, split, name, ids, verdict))
    return Ranking(split=split, metric=name, places=tuple(places))


def _common_headline(records: Sequence[RunRecord], split: str) -> str:
    """The headline among the metrics that most runs of the split have."""
    counts: dict[str, int] = {}
    for record in records:
        for name in dict.fromkeys(m.name for m in record.metrics if m.split == split):
            counts[name] = counts.get(name, 0) + 1
    most = max(counts.values(), default=0)
    return choose_headline(split, [name for name, count in counts.items() if count == most])


def _place(
    group: RunGroup,
    split: str,
    name: str,
    ids: RunIds,
    verdict: Literal["best", "worse", "not distinguishable", "no interval"],
) -> RankedRuns:
    metrics = [m for r in group.records for m in r.metrics if (m.split, m.name) == (split, name)]
    single = metrics[0] if len(metrics) == 1 else None
    return RankedRuns(
        runs=tuple(_id(record, ids) for record in group.records),
        value=_mean(group, split, name),
        low=single.low if single else None,
        high=single.high if single else None,
        n=metrics[0].n,
        verdict=verdict,
    )


def _mean(group: RunGroup, split: str, name: str) -> float:
    values = [
        m.value for r in group.records for m in r.metrics if (m.split, m.name) == (split, name)
    ]
    return sum(values) / len(values)


def _group_seeds(records: Sequence[RunRecord]) -> list[RunGroup]:
    """Runs of a suite with equal names and settings, whatever their seed and repetition."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        i = record.identity
        key = repr(
            (i.suite, i.engine, i.task, i.subset, i.model, i.label, sorted(i.params.items()))
        )
        groups.setdefault(key, []).append(record)
    return [RunGroup(key, tuple(members)) for key, members in groups.items()]


def _is_fold(record: RunRecord) -> bool:
    identity = record.identity
    return identity.task == "train" and (identity.params.get("folds") or 0) > 1


def _completed(records: Sequence[RunRecord]) -> list[RunRecord]:
    return [r for r in records if r.exit.cause == "completed" and cost_forecasts.is_measured(r)]


def _id(record: RunRecord, ids: RunIds) -> str:
    identity = record.identity
    return ids.get((identity.suite, identity.run_id), identity.run_id)


def _metric_change(change: MetricChange) -> ValueChange:
    difference = change.test.difference
    words: dict[str, Verdict] = {
        "b better": "better", "a better": "worse", "equal": "equal",
        "not distinguishable": "not distinguishable", "no interval": "no interval",
    }  # fmt: skip
    return ValueChange(
        name=change.name, split=change.split, before=change.a.value or 0.0,
        after=change.b.value or 0.0, delta=difference.delta, low=difference.low,
        high=difference.high, verdict=words[change.verdict],
    )  # fmt: skip


def _cost_change(change: CostChange) -> ValueChange:
    words: dict[str, Verdict] = {
        "b less": "better", "a less": "worse", "not distinguishable": "not distinguishable",
        "no interval": "no interval",
    }  # fmt: skip
    return ValueChange(
        name=change.name, before=change.a.value or 0.0, after=change.b.value or 0.0,
        delta=change.difference.delta, low=change.difference.low, high=change.difference.high,
        verdict=words[change.verdict],
    )  # fmt: skip


def _format_setting(value: object, record: RunRecord) -> str:
    if value is None:
        return NOT_STATED if published_runs.is_imported(record) else UNSET
    return formats.setting(value)
