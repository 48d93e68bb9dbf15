"""Published expectations (time, accuracy) of a plan, found by its runs, not by its name."""

from __future__ import annotations

from pathlib import Path

from results.records import published
from results.records.published import Expectation
from workbench.memory_estimate import plan_estimate
from workbench.planning.plan import PlanError, SuitePlan


def plan_expectations(
    plan: SuitePlan, cache_root: Path, *, any_rows: bool = False
) -> list[Expectation]:
    """The published expectations of a plan's runs, each once; reads no data and no weights.

    None for a cost probe, a search or a plan with overrides, and unless `any_rows` none for a
    subset that is built with another number of rows.
    """
    trains = plan.task in (None, "train") and plan.cost_probe is None and plan.search is None
    if not trains or plan.overrides:
        return []
    try:
        specs = plan_estimate.expand_runs(plan, cache_root)
    except PlanError:
        return []
    expectations: dict[str, Expectation] = {}
    for spec in specs:
        expectation = published.find_expectation(spec.engine, spec.subset, spec.model, spec.params)
        if expectation is None or spec.task != "train":
            continue
        rows = None if any_rows else plan_estimate.count_rows(spec.subset, cache_root)
        if rows is None or expectation.has_rows(rows):
            expectations[expectation.preset] = expectation
    return list(expectations.values())


def describe_expectations(plan: SuitePlan, cache_root: Path, *, any_rows: bool = False) -> str:
    """`plan_expectations` and their source as a sentence; empty: there are none."""
    expectations = plan_expectations(plan, cache_root, any_rows=any_rows)
    shown = "; ".join(expectation.describe() for expectation in expectations)
    return f"published, not measured here: {shown}" if shown else ""
