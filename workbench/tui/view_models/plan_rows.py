"""Rows and sentences of the Plan screen. Pure."""

from __future__ import annotations

from typing import Final

from workbench.output_language import translate
from workbench.suites import quantities as q
from workbench.tui.view_models.catalog import Catalogs, PresetEntry, SubsetEntry
from workbench.tui.view_models.cells import CellLike, GridCell, GridColumn, GridRow
from workbench.tui.view_models.plan_draft import PlanDraft, PlanPreview

NAMES: Final = GridColumn("name", "name", 16, grow=20)
SUBSETS: Final = (
    GridColumn("mark", "", 1, rank=0),
    GridColumn("name", "subset", 15, grow=14, rank=0, middle_cut=True),
    GridColumn("rows", "queries", 8, right=True, rank=1),
    GridColumn("corpus", "corpus", 8, right=True, rank=3),
    GridColumn("state", "", 9, rank=2),
)
MODELS: Final = (
    GridColumn("mark", "", 1, rank=0),
    GridColumn("name", "model", 15, grow=14, rank=0, middle_cut=True),
    GridColumn("about", "", 16, grow=40, rank=1),
)
RUNS: Final = (
    GridColumn("number", "", 2, right=True, rank=0),
    GridColumn("subset", "subset", 13, grow=14, rank=0, middle_cut=True),
    GridColumn("model", "model", 12, grow=14, rank=0, middle_cut=True),
    GridColumn("engine", "engine", 10, rank=3),
    GridColumn("seed", "seed", 6, right=True, rank=1),
    GridColumn("repeat", "repeat", 6, right=True, rank=2),
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
ON: Final = GridCell("●", "accent")
OFF: Final = GridCell("○", "dim")


def subset_rows(catalogs: Catalogs, draft: PlanDraft) -> list[GridRow]:
    """Every subset; those of other engines are dim."""
    return [
        _subset_row(
            entry,
            chosen=entry.name in draft.subsets,
            fits=catalogs.is_for(entry, draft.engine),
        )
        for entry in catalogs.subsets
    ]


def _subset_row(entry: SubsetEntry, *, chosen: bool, fits: bool) -> GridRow:
    if not fits:  # dim throughout; the plan's check says which engine it is for
        counts = [GridCell(q.count(n), "dim") for n in (entry.rows, entry.corpus_rows)]
        mark = ON if chosen else GridCell(" ")
        return (mark, GridCell(entry.name, "dim"), *counts, GridCell(entry.form, "dim"))
    return (
        ON if chosen else OFF,
        GridCell(entry.name, "strong" if chosen else ""),
        _count(entry.rows),
        _count(entry.corpus_rows),
        GridCell("a copy", "error")
        if entry.expected_rows
        else _state(entry.problem, built=entry.built),
    )


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
    expected = f" · notebook expects {preview.expected} on a T4" if preview.expected else ""
    return f" {count_words(len(runs), 'run')}: {' × '.join(parts)}{expected}", False


def preset_rows(entries: tuple[PresetEntry, ...]) -> tuple[list[GridRow], list[str]]:
    """Rows and keys of the presets, and an empty plan as the last."""
    rows: list[GridRow] = [(p.name, p.expected, GridCell(p.about, "dim")) for p in entries]
    rows.append(
        ("empty plan", "", GridCell("nothing chosen, all settings at their defaults", "dim"))
    )
    return rows, [*(p.name for p in entries), ""]


def _count(number: int | None) -> CellLike:
    return GridCell(q.count(number), "dim" if number is None else "")


def _state(problem: str, *, built: bool) -> CellLike:
    if problem:
        return GridCell("missing", "error")
    return GridCell("built", "") if built else GridCell("not built", "dim")


def count_words(number: int, word: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
