"""Panels of the Plan screen: subsets, models and runs in their grids, with headings."""

from __future__ import annotations

from textual.dom import DOMNode

from workbench.tui.view_models.catalog import Catalogs
from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow
from workbench.tui.view_models.plan_draft import PlanDraft, PlanPreview
from workbench.tui.view_models.plan_rows import OFF, ON, RUNS, subset_rows
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.top_bar import Heading


def paint_subsets(screen: DOMNode, catalogs: Catalogs, draft: PlanDraft) -> None:
    """Show the subsets; chosen ones are marked."""
    grid = screen.query_one("#subsets", Grid)
    heading = screen.query_one("#subsets-heading", Heading)
    if not draft.needs_data:
        grid.show_notice(f"The engine {draft.engine} needs no subset.")
        heading.remark = ""
        return
    rows = subset_rows(catalogs, draft)
    _show_rows(grid, rows, [e.name for e in catalogs.subsets], "No subset is known.", catalogs)
    heading.remark = f"{len(draft.subsets)} of {len(rows)}"


def paint_models(screen: DOMNode, catalogs: Catalogs, draft: PlanDraft) -> None:
    """Show the models of the engine; chosen ones are marked."""
    grid = screen.query_one("#models", Grid)
    heading = screen.query_one("#models-heading", Heading)
    if not draft.needs_data:
        grid.show_notice(f"The engine {draft.engine} needs no model.")
        heading.remark = ""
        return
    fitting = [m for m in catalogs.models if not m.engines or draft.engine in m.engines]
    rows: list[GridRow] = [
        (
            ON if entry.name in draft.models else GridCell("✗", "error") if entry.problem else OFF,
            GridCell(entry.name, "strong" if entry.name in draft.models else ""),
            GridCell(entry.summary or entry.problem, "dim" if entry.summary else "error"),
        )
        for entry in fitting
    ]
    _show_rows(
        grid, rows, [m.name for m in fitting], "No model is known for this engine.", catalogs
    )
    heading.remark = f"{len(draft.models)} of {len(rows)}"


def paint_runs(screen: DOMNode, preview: PlanPreview) -> None:
    """Show the runs of the plan, or its problems."""
    grid, heading = screen.query_one("#runs", Grid), screen.query_one("#runs-heading", Heading)
    if preview.problems:
        heading.title, heading.remark = "Problems", str(len(preview.problems))
        grid.set_columns((GridColumn("text", "", 20, grow=400),))
        grid.show([(GridCell(problem, "error"),) for problem in preview.problems])
        return
    heading.title, heading.remark = "Runs", str(len(preview.runs))
    grid.set_columns(RUNS)
    rows: list[GridRow] = [
        (
            GridCell(str(number), "dim"),
            run.subset,
            run.model,
            GridCell(run.engine, "dim"),
            str(run.seed),
            str(run.repeat + 1),
        )
        for number, run in enumerate(preview.runs, 1)
    ]
    grid.show(rows, [run.run_id for run in preview.runs])


def _show_rows(
    grid: Grid, rows: list[GridRow], keys: list[str], empty: str, catalogs: Catalogs
) -> None:
    if rows:
        grid.show(rows, keys)
    else:
        problem = catalogs.problems[0] if catalogs.problems else empty
        grid.show_notice(problem, failed=bool(catalogs.problems))
