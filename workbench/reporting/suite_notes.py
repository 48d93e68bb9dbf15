"""Texts about a suite from its plan and its notes, for the report.

The plan is read without validation: a report needs the texts of old plans that are invalid now.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from results.records.notes import RunNotes
from results.records.suite_view import RecipeWords, SuiteWords


def collect_words(folder: Path, noted: RunNotes) -> SuiteWords:
    """Texts of a suite; notes take precedence over the plan."""
    try:
        table = tomllib.loads((folder / "plan.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        table = {}

    def text(name: str) -> str:
        return getattr(noted, name) or _clean_text(table.get(name))

    return SuiteWords(
        title=text("title"),
        goal=text("goal"),
        background=text("background"),
        conclusion=noted.conclusion,
        next_steps=noted.next_steps,
        events=noted.events,
        links=noted.links,
        reasons={**read_planned_reasons(table), **noted.reasons},
    )


def read_planned_reasons(table: Mapping[str, Any]) -> dict[str, str]:
    """`why` of a plan, by subset or model (empty: all), and of its variants by label."""
    reason_table = table.get("why")
    reasons = {"": _clean_text(reason_table)} if isinstance(reason_table, str) else {}
    if isinstance(reason_table, dict):
        reasons |= {name: _clean_text(text) for name, text in reason_table.items()}
    for variant in table.get("variant", ()):
        if isinstance(variant, dict) and (reason := _clean_text(variant.get("why"))):
            reasons[_clean_text(variant.get("label"))] = reason
    return {name: reason for name, reason in reasons.items() if reason}


def read_recipe_words(subsets: Iterable[str]) -> dict[str, RecipeWords]:
    """Title and notes of each subset that has a recipe."""
    from datasets_mm import catalog
    from datasets_mm.recipes.recipe import RecipeError

    words = {}
    for name in dict.fromkeys(subsets):
        try:
            recipe = catalog.load(name)
        except (LookupError, OSError, RecipeError):
            continue
        words[name] = RecipeWords(title=recipe.title, notes=recipe.notes)
    return words


def _clean_text(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""
