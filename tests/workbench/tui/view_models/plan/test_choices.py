"""Subsets and models: what can be used first, the rest folded with what it lacks."""

from __future__ import annotations

from workbench.tui.view_models.catalog import Catalogs, EngineEntry, ModelChoice, SubsetEntry
from workbench.tui.view_models.cells import CellLike, GridCell
from workbench.tui.view_models.plan import choices
from workbench.tui.view_models.plan.choices import ListState
from workbench.tui.view_models.plan_draft import PlanDraft

KNOWN = Catalogs(
    engines=(EngineEntry("captioning", form="captions"),),
    subsets=(
        SubsetEntry("a", rows=5, form="captions"),
        SubsetEntry("b", rows=5, form="passages", problem="no data"),
        SubsetEntry("c", problem="its file is wrong"),
        SubsetEntry("d", form="captions", problem="not there; give --set data_root"),
        SubsetEntry("e", form="captions", built=True, rows=2, expected_rows=9),
    ),
    models=(
        ModelChoice("m", "small"),
        ModelChoice("n", "large", problem="no weights"),
        ModelChoice("run:x", "trained", trained=True),
        ModelChoice("other", engines=("vqa",)),
    ),
)
DRAFT = PlanDraft(engine="captioning", subsets=("a",), models=("m",))


def test_usable_subsets_come_first_and_folds_say_what_is_missing() -> None:
    rows, keys = choices.list_subsets(KNOWN, DRAFT)
    assert keys == ["e", "a", "fold:engine", "fold:other", "fold:data"]
    assert rows[1][1] == GridCell("a", "strong")
    assert rows[0][-1] == GridCell("a copy", "warn")
    assert "data_root" in rows[-1][-1].text
    rows, keys = choices.list_subsets(KNOWN, DRAFT, ListState(("data", "engine")))
    assert keys == ["e", "a", "fold:engine", "b", "fold:other", "fold:data", "d"]
    assert {cell.tone for cell in rows[3][1:] if isinstance(cell, GridCell)} == {"dim"}


def test_a_chosen_subset_is_never_folded() -> None:
    chosen = PlanDraft(engine="captioning", subsets=("b", "d"))
    assert choices.list_subsets(KNOWN, chosen)[1][:4] == ["e", "a", "b", "d"]


def test_models_of_the_engine_and_words_to_find() -> None:
    assert choices.list_models(KNOWN, DRAFT)[1] == ["m", "run:x", "fold:weights"]
    assert choices.list_models(KNOWN, DRAFT, ListState(text="large"))[1] == ["n"]
    assert choices.list_subsets(KNOWN, DRAFT, ListState(text="passages"))[1] == ["b"]
    assert choices.count_usable(KNOWN, DRAFT) == (
        "1 of 2 (5 known)",
        "1 of 2 (3 known)",
    )
    assert choices.fold_name("fold:data") == "data"
    assert choices.fold_name("data") == ""


def test_pinned_names_stand_first_and_in_no_fold() -> None:
    shown = ListState(pins=("n", "run:x"))
    rows, keys = choices.list_models(KNOWN, DRAFT, shown)
    assert keys == ["n", "run:x", "m"]
    assert [cell_text(row[1]) for row in rows] == ["n *", "run:x *", "m"]


def cell_text(cell: CellLike) -> str:
    return cell.text if isinstance(cell, GridCell) else cell
