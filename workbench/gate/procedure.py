"""Steps of `workbench gate`: measure in turns, decide, compare alarms with noise, confirm them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from results.comparison import gate
from results.comparison.costs import COSTS
from results.comparison.gate import GateCheck, Verdict
from results.records.schema import RunRecord
from results.text.metric_names import headline_metric
from workbench import paths
from workbench.gate import measure, noise
from workbench.gate.measure import GatePairs, GateSide
from workbench.reporting import run_groups
from workbench.suites.suite import SuiteError

FOLDER = "gate"
"""Below the log root: a log root for each measurement."""


class GateRule(NamedTuple):
    """What is checked."""

    names: tuple[str, ...]
    """Costs and metrics; empty: `step` and the metric shown in lists."""
    threshold: float
    """Accepted harm: 0.05 is 5 %."""


def check_stored(log_root: Path, baseline: str, candidate: str, rule: GateRule) -> list[GateCheck]:
    """Checks of two runs, or two labels of several seeds, from their records.

    Raises:
        SuiteError: a name fits no completed run, or a metric is not in both.
    """
    groups = run_groups.find_groups(log_root, [baseline, candidate])
    return _check(GatePairs(*groups), rule, log_root, paired=False)


def check_measured(
    baseline: GateSide, candidate: GateSide, pairs: int, rule: GateRule, log_root: Path,
    report: Callable[[str], None],
) -> list[GateCheck]:  # fmt: skip
    """Checks of two sides that are measured now.

    Equal sides are a measurement of the machine's noise, which is kept. An alarm is raised only
    above that noise (measured now where none is kept), and if a second measurement repeats it.

    Raises:
        SuiteError: a side does not start or is several runs, or a metric is not in both.
        IncompleteRunError: a run did not complete.
    """
    for side in dict.fromkeys((baseline, candidate)):
        measure.check_side(side, log_root)
    folder = log_root / FOLDER / time.strftime("%Y%m%d-%H%M%S")
    first = measure.measure_pairs(baseline, candidate, pairs, folder, report)
    checks = _check(first, rule, folder, paired=True)
    kept = noise.noise_file(paths.cache_root(), first.baseline.records[0])
    if baseline[1:] == candidate[1:]:
        noise.add_ratios(kept, *first)
        report("both sides are equal: their differences are kept as this machine's noise")
        return checks
    if not _has_cost_alarm(checks):
        return checks
    ratios = noise.read_ratios(kept)
    if min((len(ratios.get(c.name, ())) for c in checks if c.is_cost), default=pairs) < pairs:
        report("an alarm; no noise is kept for this machine and run: two equal sides are measured")
        ratios = noise.add_ratios(
            kept, *measure.measure_pairs(baseline, baseline, pairs, folder, report)
        )
    checks = [
        gate.apply_noise_floor(c, gate.noise_bound(ratios[c.name], pairs))
        if c.is_cost and len(ratios.get(c.name, ())) > 1 else c
        for c in checks
    ]  # fmt: skip
    if not _has_cost_alarm(checks):
        return checks
    report("an alarm above the noise: measured once more to confirm it")
    second = measure.measure_pairs(baseline, candidate, pairs, folder, report)
    return gate.confirm(checks, _check(second, rule, folder, paired=True))


def _check(pairs: GatePairs, rule: GateRule, log_root: Path, *, paired: bool) -> list[GateCheck]:
    names = rule.names or _default_names(pairs.baseline.records[0])
    try:
        return gate.check_sides(*pairs, names, rule.threshold, log_root=log_root, paired=paired)
    except ValueError as error:
        raise SuiteError(str(error)) from None


def _default_names(record: RunRecord) -> Sequence[str]:
    metric = headline_metric(record.metrics)
    names = ["step"] if COSTS["step"](record).value is not None else []
    return [*names, f"{metric.name}@{metric.split}"] if metric else names


def _has_cost_alarm(checks: Sequence[GateCheck]) -> bool:
    return any(check.is_cost and check.verdict is Verdict.WORSE for check in checks)
