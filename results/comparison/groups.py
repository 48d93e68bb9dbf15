"""Comparison of two runs, or of two groups of runs that differ by their seeds.

One run on each side: the same items are compared with each other (paired); the interval is over
items and says nothing about the noise of training. Two or more seeds on each side: Welch's t over
seeds, whose interval holds that noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from results import significance, statistics
from results.comparison.costs import COSTS
from results.comparison.scores import ItemScores, read_scores
from results.records.schema import MetricRecord, Reading, RunRecord
from results.significance import Significance
from results.statistics import Difference
from results.text.metric_names import CHANCE, is_shown, split_name


class RunGroup(NamedTuple):
    """Runs with equal settings but for seed and repeat."""

    title: str
    records: tuple[RunRecord, ...]


def first_of_seeds(records: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """A record for each seed (and fold): repeats of a seed are no further samples of the
    training's noise. Their values are equal, and would claim certainty."""
    by_seed: dict[tuple[int, Any], RunRecord] = {}
    for record in records:
        identity = record.identity
        by_seed.setdefault((identity.seed, identity.params.get("fold")), record)
    return tuple(by_seed.values())


class MetricChange(NamedTuple):
    """One metric of both sides; the difference is b - a."""

    split: str
    name: str
    a: Reading
    b: Reading
    test: Significance
    p: float | None
    """Adjusted by Holm over all metrics of the comparison."""
    higher_is_better: bool = True

    @property
    def verdict(self) -> str:
        """`b better`, `a better`, `equal`, `not distinguishable`, or `no interval`."""
        difference = self.test.difference
        if difference.low is None:
            return "no interval"
        if difference.low == difference.high == 0:
            return "equal"
        if not difference.distinguishable or (self.p or 0.0) >= significance.ALPHA:
            return "not distinguishable"
        return "b better" if (difference.delta > 0) == self.higher_is_better else "a better"

    def as_row(self) -> dict[str, Any]:
        """The change as plain values, for JSON and data frames."""
        test = self.test
        return {
            "split": self.split, "metric": self.name, "a": self.a.value, "b": self.b.value,
            "delta": test.difference.delta, "low": test.difference.low,
            "high": test.difference.high, "p": test.p, "p_holm": self.p,
            "detectable": test.detectable, "n": test.n, "clusters": test.clusters,
            "method": test.difference.method, "verdict": self.verdict,
        }  # fmt: skip


class CostChange(NamedTuple):
    """One cost of both sides."""

    name: str
    a: Reading
    b: Reading
    difference: Difference

    @property
    def verdict(self) -> str:
        """`b less`, `a less`, `not distinguishable`, or `no interval`."""
        if self.difference.low is None:
            return "no interval"
        if not self.difference.distinguishable:
            return "not distinguishable"
        return "b less" if self.difference.delta < 0 else "a less"

    def as_row(self) -> dict[str, Any]:
        """The change as plain values, for JSON."""
        return {
            "name": self.name, "a": self.a.value, "b": self.b.value,
            "delta": self.difference.delta, "low": self.difference.low,
            "high": self.difference.high, "verdict": self.verdict,
        }  # fmt: skip


class UnmeasuredCost(NamedTuple):
    """A cost that at least one run of the comparison lacks; the reasons of a and of b."""

    name: str
    a: str | None
    """None: measured in all of its runs."""
    b: str | None


class GroupComparison(NamedTuple):
    """All that two groups have in common, measured."""

    a: RunGroup
    b: RunGroup
    metrics: tuple[MetricChange, ...]
    costs: tuple[CostChange, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    unmeasured: tuple[UnmeasuredCost, ...] = ()

    @property
    def over_seeds(self) -> bool:
        """Whether the intervals hold the noise of training."""
        return min(len(first_of_seeds(group.records)) for group in (self.a, self.b)) > 1


def compare_groups(
    a: RunGroup, b: RunGroup, log_root: Path | None = None, every_metric: bool = False
) -> GroupComparison:
    """Metrics and costs of both; paired where `log_root` holds the scores of both.

    Args:
        a: The reference.
        b: What is compared with it.
        log_root: Where score files lie; None: values and intervals of the records alone.
        every_metric: Variants (`recall@1[text only]`) and every cutoff too; by default those that
            tables show, since each further metric costs certainty (Holm).
    """
    first, second = (group._replace(records=first_of_seeds(group.records)) for group in (a, b))
    metrics_a, metrics_b = (_metrics(group, every_metric) for group in (first, second))
    common = [key for key in metrics_a if key in metrics_b]
    tests = [
        _test_metric(first, second, metrics_a[key], metrics_b[key], log_root) for key in common
    ]
    adjusted = significance.adjust_by_holm([test.p for test in tests])
    changes = tuple(
        MetricChange(
            *key, _mean_reading(metrics_a[key]), _mean_reading(metrics_b[key]), test, p,
            metrics_a[key][0].higher_is_better,
        )
        for key, test, p in zip(common, tests, adjusted, strict=True)
    )  # fmt: skip
    return GroupComparison(
        a, b, changes, tuple(_compare_costs(a, b)),
        tuple(f"{name} ({split})" for split, name in metrics_a if (split, name) not in metrics_b),
        tuple(f"{name} ({split})" for split, name in metrics_b if (split, name) not in metrics_a),
        tuple(_find_unmeasured_costs(a, b)),
    )  # fmt: skip


def compare_metric(
    a: RunGroup, b: RunGroup, split: str, name: str, log_root: Path | None = None
) -> Significance:
    """The difference b - a of one metric, which every run of both groups has."""
    a, b = (group._replace(records=first_of_seeds(group.records)) for group in (a, b))
    first, second = (
        [m for r in group.records for m in r.metrics if (m.split, m.name) == (split, name)]
        for group in (a, b)
    )
    return _test_metric(a, b, first, second, log_root)


def metric_difference(
    a: tuple[RunRecord, MetricRecord], b: tuple[RunRecord, MetricRecord], log_root: Path | None
) -> Difference:
    """b - a of one metric of two runs; paired where `log_root` holds the scores of both."""
    return _test_items([a], [b], log_root).difference


def _metrics(group: RunGroup, every_metric: bool) -> dict[tuple[str, str], list[MetricRecord]]:
    """Metrics that every run of the group has, by split and name."""
    metrics: dict[tuple[str, str], list[MetricRecord]] = {}
    for record in group.records:
        for metric in record.metrics:
            variant = split_name(metric.name).variant
            if variant != CHANCE and (every_metric or is_shown(metric.name)):
                metrics.setdefault((metric.split, metric.name), []).append(metric)
    return {key: of_runs for key, of_runs in metrics.items() if len(of_runs) == len(group.records)}


def _test_metric(
    a: RunGroup,
    b: RunGroup,
    metrics_a: Sequence[MetricRecord],
    metrics_b: Sequence[MetricRecord],
    log_root: Path | None,
) -> Significance:
    if min(len(metrics_a), len(metrics_b)) > 1:
        return significance.compare_seeds(*([m.value for m in ms] for ms in (metrics_a, metrics_b)))
    first = list(zip(a.records, metrics_a, strict=True))
    second = list(zip(b.records, metrics_b, strict=True))
    return _test_items(first, second, log_root)


MeasuredRun = tuple[RunRecord, MetricRecord]


def _test_items(
    a: Sequence[MeasuredRun], b: Sequence[MeasuredRun], log_root: Path | None
) -> Significance:
    """b - a over items; of several runs of a side each item's mean. One side is one run."""
    if log_root is not None:
        first, second = (_mean_scores(side, log_root) for side in (a, b))
        if len(first.values) > 1 and first.values.keys() == second.values.keys():
            return significance.compare_pairs(
                list(first.values.values()),
                [second.values[item] for item in first.values],
                list(first.clusters.values()),
            )
    (va, la, ha), (vb, lb, hb) = (
        (reading.value or 0.0, reading.low, reading.high)
        for reading in (_mean_reading([metric for _, metric in side]) for side in (a, b))
    )
    if not math.isfinite(vb - va):
        difference = Difference(math.nan, None, None, "a value is not finite")
    elif la is None or ha is None or lb is None or hb is None:
        difference = Difference(vb - va, None, None, "no scores and no intervals")
    else:
        difference = statistics.unpaired_difference((va, la, ha), (vb, lb, hb))
    return Significance(difference, None, None, min(metric.n for _, metric in (*a, *b)))


def _mean_scores(side: Sequence[MeasuredRun], log_root: Path) -> ItemScores:
    """Mean score of each item over the runs; none where one run lacks an item of another."""
    of_runs = [read_scores(log_root, *run) for run in side]
    first = of_runs[0]
    if any(scores.values.keys() != first.values.keys() for scores in of_runs):
        return ItemScores({}, {})
    means = {item: fmean(scores.values[item] for scores in of_runs) for item in first.values}
    return ItemScores(means, first.clusters)


def _mean_reading(metrics: Sequence[MetricRecord]) -> Reading:
    """Mean over the runs; with an interval where there is one run."""
    if len(metrics) == 1:
        (metric,) = metrics
        return Reading(value=metric.value, low=metric.low, high=metric.high, method=metric.method)
    return Reading(value=fmean(m.value for m in metrics), method=f"mean of {len(metrics)} runs")


def _compare_costs(a: RunGroup, b: RunGroup) -> Iterator[CostChange]:
    for name, read in COSTS.items():
        sides = [[read(record) for record in group.records] for group in (a, b)]
        if any(reading.value is None for side in sides for reading in side):
            continue
        first, second = (_mean_cost(side) for side in sides)
        yield CostChange(name, first, second, _cost_difference(*sides))


def _find_unmeasured_costs(a: RunGroup, b: RunGroup) -> Iterator[UnmeasuredCost]:
    for name, read in COSTS.items():
        first, second = (
            next((r.reason for r in map(read, group.records) if r.value is None), None)
            for group in (a, b)
        )
        if (first, second) != (None, None):
            yield UnmeasuredCost(name, first, second)


def _mean_cost(readings: Sequence[Reading]) -> Reading:
    if len(readings) == 1:
        return readings[0]
    mean = fmean(reading.value or 0.0 for reading in readings)
    return Reading(value=mean, method=f"mean of {len(readings)} runs")


def _cost_difference(a: Sequence[Reading], b: Sequence[Reading]) -> Difference:
    values_a, values_b = ([r.value or 0.0 for r in side] for side in (a, b))
    if min(len(a), len(b)) > 1:
        return significance.compare_seeds(values_a, values_b).difference
    (first, second) = a[0], b[0]
    if len(values_a) != len(values_b):
        return Difference(fmean(values_b) - fmean(values_a), None, None, "single readings")
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return Difference(values_b[0] - values_a[0], None, None, "single readings")
    return statistics.unpaired_difference(
        (values_a[0], first.low, first.high), (values_b[0], second.low, second.high)
    )
