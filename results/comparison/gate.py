"""Whether a candidate is worse than a baseline by more than a threshold, with a verdict for CI.

Every check is of one number, the harm: the relative change to the worse (0.05 is 5 % slower, or 5 %
less of a metric that should be high). An alarm needs its whole interval above the threshold and a p
below 5 % after Holm's correction over all checks; metrics of which only intervals are stored have
no p.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from statistics import fmean, stdev
from typing import Final, NamedTuple

from results import significance
from results.comparison.costs import COSTS
from results.comparison.groups import MetricChange, RunGroup, compare_groups
from results.records.schema import RunRecord
from results.significance import Significance
from results.statistics import Difference

MIN_PROCESSES: Final = 5
"""Fresh processes that a cost needs on each side: one process says nothing about the next."""


NOT_CONFIRMED: Final = "a second measurement did not confirm it"


class Verdict(StrEnum):
    """Outcome of a check, or of all."""

    PASS = "pass"  # noqa: S105
    WORSE = "worse"
    INCONCLUSIVE = "inconclusive"
    NOTHING_MEASURED = "nothing measured"


class GateCheck(NamedTuple):
    """One cost or metric of both sides."""

    name: str
    """A cost (`step`, seconds; `rss`, bytes) or `metric@split`."""
    baseline: float
    candidate: float
    harm: Difference
    """Relative change to the worse; without limits, `method` is the reason."""
    p: float | None
    n: int
    detectable: float | None
    """Smallest harm that these data would show with a power of 80 %."""
    is_cost: bool
    verdict: Verdict = Verdict.INCONCLUSIVE
    reason: str = ""
    """Why it is inconclusive."""


def check_sides(
    baseline: RunGroup,
    candidate: RunGroup,
    names: Sequence[str],
    threshold: float,
    *,
    log_root: Path | None = None,
    paired: bool = False,
) -> list[GateCheck]:
    """All checks that both sides allow, with their verdicts.

    Args:
        baseline: Its runs.
        candidate: Its runs; where `paired`, they took turns with those of the baseline.
        names: Costs (`step`, `rss`, …) and metrics (`recall@1`, `recall@1@emoji_val`).
        threshold: Harm that is accepted, 0.05 for 5 %.
        log_root: Where score files lie.
        paired: Runs were measured in turns.

    Raises:
        ValueError: a name fits no cost and no metric of both sides, or pairs lack a run.
    """
    checks = [
        *_check_costs(baseline, candidate, names, paired=paired),
        *_check_metrics(baseline, candidate, names, log_root),
    ]
    names_of_checks = {name for check in checks for name in (check.name, _base(check.name))}
    if missing := [name for name in names if name not in names_of_checks]:
        raise ValueError(f"{', '.join(missing)}: no cost or metric that both sides have")
    adjusted = significance.adjust_by_holm([check.p for check in checks])
    return [_decide(check, p, threshold) for check, p in zip(checks, adjusted, strict=True)]


def summarize(checks: Sequence[GateCheck]) -> Verdict:
    """The worst verdict; `nothing measured` without any check."""
    for verdict in (Verdict.WORSE, Verdict.INCONCLUSIVE, Verdict.PASS):
        if any(check.verdict is verdict for check in checks):
            return verdict
    return Verdict.NOTHING_MEASURED


def apply_noise_floor(check: GateCheck, noise: float) -> GateCheck:
    """The check, inconclusive if its harm is within what equal code differs by on this machine."""
    if check.verdict is not Verdict.WORSE or not check.is_cost or check.harm.delta > noise:
        return check
    reason = f"within the noise of this machine, ±{noise:.1%} between equal sides"
    return check._replace(verdict=Verdict.INCONCLUSIVE, reason=reason)


def confirm(first: Sequence[GateCheck], second: Sequence[GateCheck]) -> list[GateCheck]:
    """Checks of the first measurement; an alarm that the second did not repeat is inconclusive."""
    repeated = {check.name for check in second if check.verdict is Verdict.WORSE}
    return [
        check._replace(verdict=Verdict.INCONCLUSIVE, reason=NOT_CONFIRMED)
        if check.is_cost and check.verdict is Verdict.WORSE and check.name not in repeated
        else check
        for check in first
    ]  # fmt: skip


def noise_bound(log_ratios: Sequence[float], pairs: int) -> float:
    """Harm that the mean of `pairs` pairs of equal sides stays below in 97.5 % of the cases.

    Raises:
        ValueError: fewer than two ratios.
    """
    from scipy import stats

    count = len(log_ratios)
    if count < 2:
        raise ValueError("one pair says nothing about noise")
    reach = float(stats.t.ppf(1 - significance.ALPHA / 2, count - 1))
    return math.expm1(reach * stdev(log_ratios) * math.sqrt(1 / pairs + 1 / count))


def _check_costs(
    baseline: RunGroup, candidate: RunGroup, names: Sequence[str], *, paired: bool
) -> Iterator[GateCheck]:
    other_machines = (
        _other_machine(baseline.records[0], record)
        for record in (*baseline.records, *candidate.records)
    )
    other_machine = next(filter(None, other_machines), "")
    for name in (name for name in COSTS if name in names):
        first, second = (_cost_values(group.records, name) for group in (baseline, candidate))
        if paired:
            first, second = _blank_unpaired(first, second)
        first, second = list(filter(None, first)), list(filter(None, second))
        if not first or not second:
            continue
        reason = other_machine
        if not reason and min(len(first), len(second)) < MIN_PROCESSES:
            counts = f"{len(first)} and {len(second)}"
            reason = f"{MIN_PROCESSES} processes a side are needed; there are {counts}"
        mean_a, mean_b = fmean(first), fmean(second)
        unknown = Difference(mean_b / mean_a - 1, None, None, reason)
        test = Significance(unknown, None, None, min(len(first), len(second)))
        if not reason:
            test = significance.compare_ratios(first, second, paired=paired)
        yield GateCheck(
            name, mean_a, mean_b, test.difference, test.p, test.n, test.detectable, is_cost=True
        )


def _cost_values(records: Sequence[RunRecord], name: str) -> list[float]:
    """The cost of each run; 0: it has none, or none above 0."""
    return [max(COSTS[name](record).value or 0.0, 0.0) for record in records]


def _blank_unpaired(
    first: Sequence[float], second: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Both sides with 0 where either run of a pair has no cost."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} runs cannot be paired")
    pairs = [(x, y) if x and y else (0.0, 0.0) for x, y in zip(first, second, strict=True)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _other_machine(first: RunRecord, second: RunRecord) -> str:
    """Why costs of the two cannot be compared; empty: the same kind of machine."""
    for title, read in (
        ("CPU", lambda record: record.environment.cpu),
        ("number of cores", lambda record: record.environment.cores),
        ("GPUs", lambda record: [gpu.name for gpu in record.environment.run_gpus]),
    ):
        if read(first) != read(second):
            return f"measured on machines with another {title}: {read(first)}, {read(second)}"
    return ""


def _check_metrics(
    baseline: RunGroup, candidate: RunGroup, names: Sequence[str], log_root: Path | None
) -> Iterator[GateCheck]:
    for change in compare_groups(baseline, candidate, log_root, every_metric=True).metrics:
        name = f"{change.name}@{change.split}"
        if name in names or change.name in names:
            yield _metric_check(name, change)


def _metric_check(name: str, change: MetricChange) -> GateCheck:
    test, baseline, candidate = change.test, change.a.value or 0.0, change.b.value or 0.0
    difference, scale = test.difference, abs(baseline)
    if not scale:
        harm = Difference(math.nan, None, None, "the baseline is 0: no relative change")
        return GateCheck(name, baseline, candidate, harm, None, test.n, None, is_cost=False)
    sign = -1 / scale if change.higher_is_better else 1 / scale
    low, high = difference.low, difference.high
    if low is not None and high is not None:
        low, high = sorted((sign * low, sign * high))
    delta = sign * difference.delta + 0.0  # not -0.0
    harm = Difference(delta, low, high, difference.method)
    detectable = None if test.detectable is None else test.detectable / scale
    return GateCheck(name, baseline, candidate, harm, test.p, test.n, detectable, is_cost=False)


def _decide(check: GateCheck, p: float | None, threshold: float) -> GateCheck:
    """The check with its verdict; `p`: adjusted by Holm."""
    check, (delta, low, high, method) = check._replace(p=p), check.harm
    if low is None or high is None:
        return check._replace(reason=method)
    if high <= threshold:
        return check._replace(verdict=Verdict.PASS)
    if low > threshold and (p is None or p < significance.ALPHA):
        return check._replace(verdict=Verdict.WORSE)
    if low > threshold:
        reason = f"p = {p:.2g} after Holm's correction over all checks"
        return check._replace(reason=reason)
    needed = significance.needed_count(check.n, (high - low) / 2, delta - threshold)
    more = f"; about {needed} would tell" if needed and needed < 100 * check.n else ""
    reason = f"{threshold:.1%} lies within [{low:+.1%}, {high:+.1%}] of {check.n}{more}"
    return check._replace(reason=reason)


def _base(name: str) -> str:
    """`recall@1@emoji_val` → `recall@1`."""
    return name.rpartition("@")[0] or name
