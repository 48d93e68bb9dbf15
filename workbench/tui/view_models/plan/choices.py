"""Lists of subsets and models on the Plan screen: what can be used first, the rest folded. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from workbench.suites import quantities as q
from workbench.tui.view_models.catalog import Catalogs, ModelChoice, SubsetEntry
from workbench.tui.view_models.cells import CellLike, GridCell, GridRow
from workbench.tui.view_models.plan_draft import PlanDraft

ON: Final = GridCell("●", "accent")
OFF: Final = GridCell("○", "dim")
_FOLD: Final = "fold:"
FOLDS: Final = {
    "data": "need data (i: data_root)",
    "other": "miss something",
    "engine": "of other engines",
    "weights": "miss weights, packages",
}
"""Fold -> what its entries lack and how to get it."""


@dataclass(frozen=True, slots=True)
class ListState:
    """What a list shows of its entries."""

    opened: Collection[str] = ()
    """Folds that are open."""
    pins: Collection[str] = ()
    """Names that stand first, and in no fold."""
    text: str = ""
    """Words to find."""


SHUT: Final = ListState()


@dataclass(frozen=True, slots=True)
class Choice:
    """One row that can be chosen, and where it stands."""

    name: str
    row: GridRow
    fold: str = ""
    """Fold that it is in; empty: it can be used, or is chosen."""
    haystack: str = ""


def list_subsets(
    catalogs: Catalogs, draft: PlanDraft, shown: ListState = SHUT
) -> tuple[list[GridRow], list[str]]:
    """Rows and keys of the subsets."""
    entries = sorted(catalogs.subsets, key=lambda e: not e.built)
    choices = [_subset_choice(catalogs, entry, draft) for entry in entries]
    return _fold_rows(choices, shown)


def list_models(
    catalogs: Catalogs, draft: PlanDraft, shown: ListState = SHUT
) -> tuple[list[GridRow], list[str]]:
    """Rows and keys of the engine's models, as `list_subsets`."""
    fitting = [m for m in catalogs.models if not m.engines or draft.engine in m.engines]
    choices = [_model_choice(entry, draft) for entry in sorted(fitting, key=lambda m: m.trained)]
    return _fold_rows(choices, shown)


def count_usable(catalogs: Catalogs, draft: PlanDraft) -> tuple[str, str]:
    """Remarks of the two headings: `2 of 5 (33 known)`: chosen, of the
    usable."""
    subsets = [_subset_choice(catalogs, entry, draft) for entry in catalogs.subsets]
    fitting = [m for m in catalogs.models if not m.engines or draft.engine in m.engines]
    models = [_model_choice(entry, draft) for entry in fitting]
    counts = ((len(draft.subsets), subsets), (len(draft.models), models))
    first, second = (
        f"{chosen} of {sum(not c.fold for c in choices)} ({len(choices)} known)"
        for chosen, choices in counts
    )
    return first, second


def fold_name(key: str | None) -> str:
    """Name of the fold of a row's key; empty: the row is an entry."""
    return key.removeprefix(_FOLD) if key and key.startswith(_FOLD) else ""


def _subset_choice(catalogs: Catalogs, entry: SubsetEntry, draft: PlanDraft) -> Choice:
    chosen, fits = entry.name in draft.subsets, catalogs.is_for(entry, draft.engine)
    fold = ""
    if not chosen:
        needs = "data" if "data_root" in entry.problem else "other" if entry.problem else ""
        fold = needs if fits else "engine"
    state: CellLike = GridCell("built", "") if entry.built else GridCell("–", "dim")
    if not fits:
        state = GridCell(entry.form, "dim")
    elif entry.problem:
        state = GridCell("missing", "error")
    elif entry.expected_rows:
        state = GridCell("a copy", "warn")
    row = (
        ON if chosen else OFF if fits else GridCell(" "),
        GridCell(entry.name, "strong" if chosen else "" if fits else "dim"),
        GridCell(q.count(entry.rows), "" if fits and entry.rows is not None else "dim"),
        GridCell(q.count(entry.corpus_rows), "" if fits else "dim"),
        state,
    )
    return Choice(entry.name, row, fold, f"{entry.name} {entry.title} {entry.form}".lower())


def _model_choice(entry: ModelChoice, draft: PlanDraft) -> Choice:
    chosen = entry.name in draft.models
    row = (
        ON if chosen else GridCell("✗", "error") if entry.problem else OFF,
        GridCell(entry.name, "strong" if chosen else ""),
        GridCell(entry.summary or entry.problem, "dim" if entry.summary else "error"),
    )
    fold = "weights" if entry.problem and not chosen else ""
    return Choice(entry.name, row, fold, f"{entry.name} {entry.summary}".lower())


def _pin(choice: Choice) -> Choice:
    """The entry with the sign of a pin, in no fold."""
    name = choice.row[1]
    text, tone = (name.text, name.tone) if isinstance(name, GridCell) else (name, "")
    row = (choice.row[0], GridCell(f"{text} *", tone), *choice.row[2:])
    return replace(choice, row=row, fold="")


def _fold_rows(choices: Sequence[Choice], shown: ListState) -> tuple[list[GridRow], list[str]]:
    words = shown.text.lower().split()
    pinned = [_pin(choice) for choice in choices if choice.name in shown.pins]
    choices = [*pinned, *(choice for choice in choices if choice.name not in shown.pins)]
    if words:
        fitting = [choice for choice in choices if all(w in choice.haystack for w in words)]
        return [choice.row for choice in fitting], [choice.name for choice in fitting]
    usable = [choice for choice in choices if not choice.fold]
    rows, keys = [choice.row for choice in usable], [choice.name for choice in usable]
    for fold in dict.fromkeys(choice.fold for choice in choices if choice.fold):
        group = [choice for choice in choices if choice.fold == fold]
        mark = "▾" if fold in shown.opened else "▸"
        rows.append((GridCell(mark, "dim"), GridCell(f"{len(group)} {FOLDS[fold]}", "dim")))
        keys.append(f"{_FOLD}{fold}")
        if fold in shown.opened:
            rows += [choice.row for choice in group]
            keys += [choice.name for choice in group]
    return rows, keys
