"""The Plan screen's catalogues and preview as rows and sentences. Pure."""

from __future__ import annotations

from typing import Final

from workbench.tui.view_models import quantities as q
from workbench.tui.view_models.catalog import Catalogue, PresetEntry, SubsetEntry
from workbench.tui.view_models.cells import Cell, CellLike, Column, Row
from workbench.tui.view_models.plan_draft import Draft, Preview

NAMES: Final = Column("name", "name", 16, grow=20)
SUBSETS: Final = (
    Column("mark", "", 1, rank=0),
    Column("name", "subset", 15, grow=14, rank=0),
    Column("rows", "queries", 8, right=True, rank=1),
    Column("corpus", "corpus", 8, right=True, rank=3),
    Column("state", "", 9, rank=2),
)
MODELS: Final = (
    Column("mark", "", 1, rank=0),
    Column("name", "model", 15, grow=14, rank=0),
    Column("about", "", 16, grow=40, rank=1),
)
RUNS: Final = (
    Column("number", "", 2, right=True, rank=0),
    Column("subset", "subset", 13, grow=14, rank=0),
    Column("model", "model", 12, grow=14, rank=0),
    Column("engine", "engine", 10, rank=3),
    Column("seed", "seed", 6, right=True, rank=1),
    Column("repeat", "repeat", 6, right=True, rank=2),
)
LISTED: Final = (
    Column("name", "name", 16, grow=14, rank=0),
    Column("about", "", 24, grow=60, rank=1),
)
PRESETS_TITLE: Final = "Start from; with time (on a T4) and accuracy that a document expects"
PRESETS: Final = (
    LISTED[0],
    Column("expected", "expected", 20, rank=1),
    Column("about", "", 24, grow=60, rank=2),
)
ON: Final = Cell("●", "accent")
OFF: Final = Cell("○", "dim")


def subset_rows(catalogue: Catalogue, draft: Draft) -> list[Row]:
    """Every subset; those of other engines are dim."""
    return [
        _subset_row(
            entry,
            chosen=entry.name in draft.subsets,
            fits=catalogue.is_for(entry, draft.engine),
        )
        for entry in catalogue.subsets
    ]


def _subset_row(entry: SubsetEntry, *, chosen: bool, fits: bool) -> Row:
    if not fits:  # dim throughout; the plan's check says which engine it is for
        told = [Cell(q.count(n), "dim") for n in (entry.rows, entry.corpus_rows)]
        mark = ON if chosen else Cell(" ")
        return (mark, Cell(entry.name, "dim"), *told, Cell(entry.form, "dim"))
    return (
        ON if chosen else OFF,
        Cell(entry.name, "strong" if chosen else ""),
        _count(entry.rows),
        _count(entry.corpus_rows),
        _state(entry.problem, built=entry.built),
    )


def about(catalogue: Catalogue, kind: str, key: str | None) -> tuple[str, bool]:
    """What is known of one subset or model, and whether it is a complaint."""
    if kind == "models":
        model = next((m for m in catalogue.models if m.name == key), None)
        if model is None:
            return "", False
        named = f"{model.name}: {model.summary}" if model.trained else model.summary
        return model.problem or named, bool(model.problem)
    subset = next((s for s in catalogue.subsets if s.name == key), None)
    if subset is None:
        return "", False
    if subset.problem:
        return subset.problem, True
    parts = [subset.title, "" if subset.built else "built at its first use", subset.license]
    return " · ".join(part for part in parts if part), False


def verdict(preview: Preview | None) -> tuple[str, bool]:
    """One line about the plan, and whether it is a complaint."""
    if preview is None:
        return " Checking …", False
    if preview.problems:
        more = f"  (and {len(preview.problems) - 1} more)" if len(preview.problems) > 1 else ""
        return f" {preview.problems[0]}{more}", True
    runs = preview.runs
    parts = [
        many(len({r.subset for r in runs}), "subset"),
        many(len({r.model for r in runs}), "model"),
    ]
    seeds, repeats = len({r.seed for r in runs}), len({r.repeat for r in runs})
    parts += [many(seeds, "seed")] if seeds > 1 else []
    parts += [many(repeats, "repeat")] if repeats > 1 else []
    expected = f" · notebook expects {preview.expected} on a T4" if preview.expected else ""
    return f" {many(len(runs), 'run')}: {' × '.join(parts)}{expected}", False


def presets(entries: tuple[PresetEntry, ...]) -> tuple[list[Row], list[str]]:
    """The presets, and an empty plan as the last."""
    rows: list[Row] = [(p.name, p.expected, Cell(p.about, "dim")) for p in entries]
    rows.append(("empty plan", "", Cell("nothing chosen, all settings at their defaults", "dim")))
    return rows, [*(p.name for p in entries), ""]


def _count(number: int | None) -> CellLike:
    return Cell(q.count(number), "dim" if number is None else "")


def _state(problem: str, *, built: bool) -> CellLike:
    if problem:
        return Cell("missing", "error")
    return Cell("built", "") if built else Cell("not built", "dim")


def many(number: int, word: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
