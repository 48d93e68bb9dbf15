"""Rows of the Plan screen."""

from __future__ import annotations

from workbench.tui.view_models import plan_rows
from workbench.tui.view_models.catalog import Catalogs, EngineEntry, SubsetEntry
from workbench.tui.view_models.cells import GridCell
from workbench.tui.view_models.plan_draft import PlanDraft


def test_a_subset_of_another_engine_is_dim_throughout() -> None:
    engine = EngineEntry("captioning", form="captions")
    fits, other, broken = (
        SubsetEntry("a", rows=5, form="captions"),
        SubsetEntry("b", rows=5, form="passages", problem="no data"),
        SubsetEntry("c", problem="its file is wrong"),
    )
    known = Catalogs(engines=(engine,), subsets=(fits, other, broken))
    assert [known.is_for(s, "captioning") for s in known.subsets] == [True, False, True]
    rows = plan_rows.subset_rows(known, PlanDraft(engine="captioning", subsets=("a",)))
    assert rows[0][1] == GridCell("a", "strong")
    assert {cell.tone for cell in rows[1][1:] if isinstance(cell, GridCell)} == {"dim"}
    assert rows[1][-1] == GridCell("passages", "dim")
    assert rows[2][-1] == GridCell("missing", "error")
