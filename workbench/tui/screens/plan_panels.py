"""The Plan screen's panels: shows subsets, models and runs in their grids, with their headings."""

from __future__ import annotations

from textual.dom import DOMNode

from workbench.tui.view_models.catalog import Catalogue
from workbench.tui.view_models.cells import Cell, Column, Row
from workbench.tui.view_models.plan_draft import Draft, Preview
from workbench.tui.view_models.plan_rows import OFF, ON, RUNS, subset_rows
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.top_bar import Heading


def paint_subsets(screen: DOMNode, catalogue: Catalogue, draft: Draft) -> None:
    """Show the subsets, those chosen marked."""
    grid = screen.query_one("#subsets", Grid)
    heading = screen.query_one("#subsets-heading", Heading)
    if not draft.needs_data:
        grid.say(f"The engine {draft.engine} needs no subset.")
        heading.remark = ""
        return
    rows = subset_rows(catalogue, draft)
    _show(grid, rows, [e.name for e in catalogue.subsets], "No subset is known.", catalogue)
    heading.remark = f"{len(draft.subsets)} of {len(rows)}"


def paint_models(screen: DOMNode, catalogue: Catalogue, draft: Draft) -> None:
    """Show the models that the engine can use, those chosen marked."""
    grid = screen.query_one("#models", Grid)
    heading = screen.query_one("#models-heading", Heading)
    if not draft.needs_data:
        grid.say(f"The engine {draft.engine} needs no model.")
        heading.remark = ""
        return
    fitting = [m for m in catalogue.models if not m.engines or draft.engine in m.engines]
    rows: list[Row] = [
        (
            ON if entry.name in draft.models else Cell("✗", "error") if entry.problem else OFF,
            Cell(entry.name, "strong" if entry.name in draft.models else ""),
            Cell(entry.summary or entry.problem, "dim" if entry.summary else "error"),
        )
        for entry in fitting
    ]
    _show(grid, rows, [m.name for m in fitting], "No model is known for this engine.", catalogue)
    heading.remark = f"{len(draft.models)} of {len(rows)}"


def paint_runs(screen: DOMNode, preview: Preview) -> None:
    """Show the runs that would start, or why none would."""
    grid, heading = screen.query_one("#runs", Grid), screen.query_one("#runs-heading", Heading)
    if preview.problems:
        heading.title, heading.remark = "Problems", str(len(preview.problems))
        grid.lay_out((Column("text", "", 20, grow=400),))
        grid.show([(Cell(problem, "error"),) for problem in preview.problems])
        return
    heading.title, heading.remark = "Runs", str(len(preview.runs))
    grid.lay_out(RUNS)
    rows: list[Row] = [
        (
            Cell(str(number), "dim"),
            run.subset,
            run.model,
            Cell(run.engine, "dim"),
            str(run.seed),
            str(run.repeat + 1),
        )
        for number, run in enumerate(preview.runs, 1)
    ]
    grid.show(rows, [run.run_id for run in preview.runs])


def _show(grid: Grid, rows: list[Row], keys: list[str], empty: str, catalogue: Catalogue) -> None:
    if rows:
        grid.show(rows, keys)
    else:
        problem = catalogue.problems[0] if catalogue.problems else empty
        grid.say(problem, failed=bool(catalogue.problems))
