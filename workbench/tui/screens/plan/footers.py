"""Footer of the Plan screen: the keys of the focused list, then those of the plan's state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.tui.view_models.plan import choices, groups
from workbench.tui.widgets.grid import Grid

if TYPE_CHECKING:
    from workbench.tui.screens.plan.draft_actions import DraftActions


def list_titles(screen: DraftActions) -> dict[str, str]:
    """Action -> title, the most important first."""
    titles = _list_keys(screen)
    if screen.preview is not None and not screen.preview.problems:
        titles = {"start": "Start", **titles}
    return {
        **titles,
        **_state_keys(screen),
        "find": "Find", "presets": "From", "settings": "Settings", "engines": "Engine",
        "view": "View", "save": "Save", "copy": "Copy", "palette": "Commands",
        "jump": "Jump", "log_root": "Log root",
    }  # fmt: skip


def _list_keys(screen: DraftActions) -> dict[str, str]:
    """What Space, Enter and letters do in the list that has the focus."""
    grid = screen.focused
    if not isinstance(grid, Grid):
        return {}
    if grid.id == "runs":
        return _run_keys(screen)
    if grid.id == "settings-grid":
        heading = groups.heading_title(grid.key or "")
        return {"choose": "Open" if heading else "Edit"} | ({} if heading else {"reset": "Default"})
    fold = choices.fold_name(grid.key)
    if fold == "data":
        return {"choose": "Open", "data_root": "Data root"}
    if fold:
        return {"choose": "Open"}
    pinned = grid.key in screen.pins.get(grid.id or "", ())
    return {"mark_row": "Choose", "pin": "Unpin" if pinned else "Pin"}


def _run_keys(screen: DraftActions) -> dict[str, str]:
    if screen.preview is not None and screen.preview.problems:
        return {"choose": "All problems"}
    run = screen.current_run
    if run is None:
        return {}
    title = "Take back" if run.excluded else "Leave out"
    return {"exclude": title, "move_name('subsets', -1)": "Reorder"}


def _state_keys(screen: DraftActions) -> dict[str, str]:
    """Keys that only some states of the plan need."""
    titles: dict[str, str] = {}
    preview = screen.preview
    if preview is None:
        return titles
    if any("data_root" in problem for problem in preview.problems):
        titles["data_root"] = "Data root"
    costs = [run.cost for run in preview.runs]
    if any(cost.done for cost in costs):
        titles["keep"] = "Run done again" if screen.keep else "Keep done"
    if screen.after or any(suite.busy for suite in screen.bench.suites or ()):
        titles["queue"] = "Queue behind"
    if costs and not any(cost.time for cost in costs):
        titles["probe"] = "Measure cost"
    if screen.undo_stack:
        titles["undo"] = "Undo"
    return titles
