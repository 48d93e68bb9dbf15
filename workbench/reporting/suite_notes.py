"""Texts about a suite from its plan and its notes, for the report.

The plan is read without validation: a report needs the texts of old plans that are invalid now.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from results.comparison.criteria import parse_criterion
from results.records.code_changes import CodeChange
from results.records.notes import RunNotes
from results.records.suite_view import RecipeWords, RunWords, SuiteWords


def collect_words(folder: Path | None, noted: RunNotes) -> SuiteWords:
    """Texts of a suite; notes take precedence over the plan. `folder`: see `collect_run_words`."""
    table = read_plan_table(folder) if folder else {}

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


def read_code_changes(folder: Path) -> tuple[CodeChange, ...]:
    """`[[change]]` of the suite's plan; those without a title are left out."""
    tables = read_plan_table(folder).get("change", ())
    return tuple(
        CodeChange(**{
            name: text
            for name in CodeChange.model_fields
            if isinstance(text := table.get(name), str)
        })
        for table in (tables if isinstance(tables, list) else ())
        if isinstance(table, dict) and _clean_text(table.get("title"))
    )  # fmt: skip


def collect_run_words(
    folder: Path | None, labels: Mapping[str, str], noted: Mapping[str, RunNotes]
) -> dict[str, RunWords]:
    """Texts of each run that has any: of its variant, of the plan, and noted ones.

    Args:
        folder: The suite; None: it was imported and has no plan.
        labels: Run id -> label.
        noted: Notes by run id.
    """
    table = read_plan_table(folder) if folder else {}
    variants = {
        _clean_text(variant.get("label")): variant
        for variant in table.get("variant", ())
        if isinstance(variant, dict)
    }
    words = {}
    for run, label in labels.items():
        variant, standing = variants.get(label, {}), noted.get(run, RunNotes())
        expected = [_clean_text(part.get("expected")) for part in (variant, table)]
        words[run] = RunWords(
            expected=next(filter(None, expected), ""),
            criteria=tuple(dict.fromkeys((*_read_criteria(variant), *_read_criteria(table)))),
            baseline=_clean_text(variant.get("baseline")),
            conclusion=standing.conclusion,
            next_steps=standing.next_steps,
            public_score=standing.public_score,
        )
    return {run: text for run, text in words.items() if text != RunWords()}


def _read_criteria(part: Mapping[str, Any]) -> list[str]:
    """Criteria of a plan or a variant; those that cannot be read are left out."""
    value = part.get("criteria", ())
    texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    valid = []
    for text in map(_clean_text, texts):
        with contextlib.suppress(ValueError):
            parse_criterion(text)
            valid.append(text)
    return valid


def read_plan_table(folder: Path) -> dict[str, Any]:
    """The suite's plan, not validated; empty where it cannot be read."""
    try:
        return tomllib.loads((folder / "plan.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


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
