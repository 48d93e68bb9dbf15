"""Panels of the Plan screen: subsets, models, runs and costs, painted from the draft."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping
from typing import Final

from rich.text import Text
from textual.dom import DOMNode
from textual.widgets import Static

from workbench.tui.view_models.catalog import Catalogs
from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow
from workbench.tui.view_models.plan import choices, matrix
from workbench.tui.view_models.plan_draft import PlanDraft, PlanPreview
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.top_bar import Heading

NAME_CELLS: Final = 8
"""Width of the names in the cost box."""
LISTS = {"subsets": choices.list_subsets, "models": choices.list_models}


def paint_choices(
    screen: DOMNode,
    catalogs: Catalogs,
    draft: PlanDraft,
    lists: Mapping[str, choices.ListState],
) -> None:
    """Show subsets and models."""
    remarks = choices.count_usable(catalogs, draft)
    for (name, make_rows), remark in zip(LISTS.items(), remarks, strict=True):
        grid = screen.query_one(f"#{name}", Grid)
        heading = screen.query_one(f"#{name}-heading", Heading)
        if not draft.needs_data:
            grid.show_notice(f"The engine {draft.engine} needs no {name.removesuffix('s')}.")
            heading.remark = ""
            continue
        text = lists[name].text
        rows, keys = make_rows(catalogs, draft, lists[name])
        heading.remark = f"/ {text}" if text else remark
        if rows:
            grid.show(rows, keys)
            continue
        problem = catalogs.problems[0] if catalogs.problems else ""
        empty = f"No {name.removesuffix('s')} has all these words." if text else "None is known."
        grid.show_notice(problem or empty, failed=bool(problem))


def paint_runs(screen: DOMNode, preview: PlanPreview) -> None:
    """Show the runs of the plan with their costs, or all of its problems, wrapped."""
    grid, heading = screen.query_one("#runs", Grid), screen.query_one("#runs-heading", Heading)
    if preview.problems:
        heading.title, heading.remark = "Problems", f"{len(preview.problems)}, Enter: all"
        grid.set_columns((GridColumn("text", "", 20, grow=400),))
        width = max(20, grid.size.width - 4)
        rows: list[GridRow] = []
        for problem in preview.problems:
            rows += [(GridCell(line, "error"),) for line in textwrap.wrap(problem, width)]
        grid.header = grid.by_cell = False
        grid.show(rows, [str(row) for row in range(len(rows))])
        return
    columns, rows, keys = matrix.run_grid(preview.cells)
    heading.title, heading.remark = "Runs", matrix.describe_count(preview.cells)
    grid.header, grid.by_cell = True, matrix.PEAK in keys
    grid.set_columns(columns)
    grid.show(rows, keys)


def paint_costs(screen: DOMNode, preview: PlanPreview, *, keep: bool, after: str = "") -> None:
    """Show what the runs will cost; `after`: suite that is to end first."""
    box = screen.query_one("#costs", Static)
    if preview.problems or not preview.runs:
        box.update(Text("Nothing can start; see the problems.", style="dim"))
        return
    run_costs = [run.cost for run in preview.runs]
    lines = matrix.describe_costs(run_costs, preview.machine, time.time(), keep=keep)
    if after:
        lines = [(n, f"waits for the end of {after}" if n == "device" else t) for n, t in lines]
    if preview.equal_suite:
        lines.append(("again", f"the same plan is {preview.equal_suite}"))
    text, width = Text(), max(20, box.size.width - NAME_CELLS)
    for name, value in lines:
        text.append(f"{name:<{NAME_CELLS}}", style="dim")
        text.append(f"\n{'':<{NAME_CELLS}}".join(textwrap.wrap(value, width)) + "\n")
    box.update(text)
