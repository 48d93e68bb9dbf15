"""Documented expectations (time, accuracy) of a plan, by what it runs: never by its name."""

from __future__ import annotations

from pathlib import Path

from results.tables import published
from results.tables.published import Expectation
from workbench.memory_estimate import plan_estimate
from workbench.planning.plan import PlanError, SuitePlan


def of_plan(asked: SuitePlan, cache_root: Path) -> list[Expectation]:
    """The expectations of a plan's runs, each once. Data and weights need not be here.

    A subset that is built with another number of rows has none; a costing run, a search and a plan
    with overrides have none either.
    """
    trains = asked.task in (None, "train") and asked.cost_probe is None and asked.search is None
    if not trains or asked.overrides:
        return []
    try:
        specs = plan_estimate.runs(asked, cache_root)
    except PlanError:
        return []
    recipes: dict[str, Expectation] = {}
    for spec in specs:
        recipe = published.expected(spec.engine, spec.subset, spec.model, spec.params)
        if recipe is None or spec.task != "train":
            continue
        rows = plan_estimate.rows_of(spec.subset, cache_root)
        if rows is None or recipe.has_rows(rows):
            recipes[recipe.preset] = recipe
    return list(recipes.values())


def sentence(asked: SuitePlan, cache_root: Path) -> str:
    """What the document expects of the plan, and whose figures these are; empty: nothing."""
    recipes = of_plan(asked, cache_root)
    shown = "; ".join(recipe.words() for recipe in recipes)
    return f"expected by the VQA notebook, not measured here: {shown}" if shown else ""
