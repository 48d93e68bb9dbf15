"""What people say about a suite, in its plan and in notes, for its report.

Apart from `plan`, which refuses a plan that cannot run: a report needs the texts of any plan that
was once run, so they are read leniently here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from results.records.notes import Standing
from results.records.suite_view import RecipeWords, SuiteWords


def of(folder: Path, noted: Standing) -> SuiteWords:
    """The texts of a suite; what was noted comes before what the plan says."""
    try:
        table = tomllib.loads((folder / "plan.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        table = {}

    def text(name: str) -> str:
        return getattr(noted, name) or _text(table.get(name))

    return SuiteWords(
        title=text("title"),
        goal=text("goal"),
        background=text("background"),
        conclusion=noted.conclusion,
        next_steps=noted.next_steps,
        events=noted.events,
        links=noted.links,
        reasons={**planned_reasons(table), **noted.reasons},
    )


def planned_reasons(table: Mapping[str, Any]) -> dict[str, str]:
    """`why` of a plan, by subset or model, and that of each of its variants."""
    why = table.get("why")
    reasons = {"": _text(why)} if isinstance(why, str) else {}
    if isinstance(why, dict):
        reasons |= {name: _text(text) for name, text in why.items()}
    for variant in table.get("variant", ()):
        if isinstance(variant, dict) and (said := _text(variant.get("why"))):
            reasons[_text(variant.get("label"))] = said
    return {name: said for name, said in reasons.items() if said}


def recipes(subsets: Iterable[str]) -> dict[str, RecipeWords]:
    """Title and notes of each subset whose recipe is known here."""
    from datasets_mm import catalog
    from datasets_mm.recipes.recipe import RecipeError

    found = {}
    for name in dict.fromkeys(subsets):
        try:
            recipe = catalog.load(name)
        except (LookupError, OSError, RecipeError):
            continue
        found[name] = RecipeWords(title=recipe.title, notes=recipe.notes)
    return found


def _text(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""
