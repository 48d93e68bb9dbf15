"""Rows and sentences of the Plan screen. Pure."""

from __future__ import annotations

from typing import Final

from workbench.output_language import translate
from workbench.tui.view_models.catalog import Catalogs, PresetEntry
from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow
from workbench.tui.view_models.plan_draft import PlanPreview

NAMES: Final = GridColumn("name", "name", 16, grow=20)
SUBSETS: Final = (
    GridColumn("mark", "", 1, rank=0),
    GridColumn("name", "subset", 15, grow=14, rank=0, middle_cut=True),
    GridColumn("rows", "queries", 7, right=True, rank=1),
    GridColumn("corpus", "corpus", 8, right=True, rank=3),
    GridColumn("state", "", 7, grow=2, rank=2),
)
MODELS: Final = (
    GridColumn("mark", "", 1, rank=0),
    GridColumn("name", "model", 15, grow=45, rank=0, middle_cut=True),
    GridColumn("about", "", 20, grow=20, rank=1),
)
LISTED: Final = (
    GridColumn("name", "name", 16, grow=14, rank=0),
    GridColumn("about", "", 24, grow=60, rank=1),
)
PRESETS_TITLE: Final = "Start from; with time (on a T4) and accuracy that a document expects"
PRESETS: Final = (
    LISTED[0],
    GridColumn("expected", "expected", 20, rank=1),
    GridColumn("about", "", 24, grow=60, rank=2),
)

FILE_ROW: Final[GridRow] = ("plan file …", "", GridCell("a plan's TOML, by its path", "dim"))


def describe_entry(catalogs: Catalogs, kind: str, key: str | None) -> tuple[str, bool]:
    """(description of a subset or model, whether it is a problem)."""
    if kind == "models":
        model = next((m for m in catalogs.models if m.name == key), None)
        if model is None:
            return "", False
        named = f"{model.name}: {model.summary}" if model.trained else model.summary
        return translate(model.problem) or named, bool(model.problem)
    subset = next((s for s in catalogs.subsets if s.name == key), None)
    if subset is None:
        return "", False
    if subset.problem:
        return translate(subset.problem), True
    source = subset.origin if subset.built else "built at its first use"
    parts = [source, subset.title, subset.license]
    return " · ".join(part for part in parts if part), False


def describe_preview(preview: PlanPreview | None) -> tuple[str, bool]:
    """(summary of the plan, whether it is a problem)."""
    if preview is None:
        return " Checking …", False
    if preview.problems:
        more = f"  (and {len(preview.problems) - 1} more)" if len(preview.problems) > 1 else ""
        return f" {translate(preview.problems[0])}{more}", True
    runs = preview.runs
    parts = [
        count_words(len({r.subset for r in runs}), "subset"),
        count_words(len({r.model for r in runs}), "model"),
    ]
    seeds, repeats = len({r.seed for r in runs}), len({r.repeat for r in runs})
    parts += [count_words(seeds, "seed")] if seeds > 1 else []
    parts += [count_words(repeats, "repeat")] if repeats > 1 else []
    left_out = sum(cell.excluded for cell in preview.cells)
    minus = f", {left_out} left out" if left_out else ""
    expected = f" · notebook expects {preview.expected} on a T4" if preview.expected else ""
    return f" {count_words(len(runs), 'run')}: {' × '.join(parts)}{minus}{expected}", False


def preset_rows(entries: tuple[PresetEntry, ...]) -> tuple[list[GridRow], list[str]]:
    """Rows and keys of the presets, and an empty plan as the last."""
    rows: list[GridRow] = [(p.name, p.expected, GridCell(p.about, "dim")) for p in entries]
    rows.append(
        ("empty plan", "", GridCell("nothing chosen, all settings at their defaults", "dim"))
    )
    return rows, [*(p.name for p in entries), ""]


def suite_row(name: str, about: str, state: str) -> GridRow:
    """Row of an earlier suite among the presets."""
    return (name, state, GridCell(about, "dim"))


def count_words(number: int, word: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
