"""Footer of the Live screen: what can be ordered now, then the keys of the run under the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from workbench.suites.state import is_unfinished
from workbench.tui.view_models import control_actions

if TYPE_CHECKING:
    from workbench.suites.state import RunView, SuiteState

ALWAYS_LAST: Final = {
    "suites": "Suites", "reference": "Earlier run", "copy": "Copy", "palette": "Commands",
    "jump": "Jump", "log_root": "Log root",
}  # fmt: skip


def list_titles(suite: SuiteState | None, view: RunView | None) -> dict[str, str]:
    """Action -> title, the most important first; `view`: the run under the cursor."""
    if suite is None:
        return dict(ALWAYS_LAST)
    return {
        **(_ended_keys(suite) if suite.ended else _busy_keys(suite, view)),
        **(_run_keys(suite, view) if view is not None else {}),
        "view": "Metrics",
        **ALWAYS_LAST,
    }


def _ended_keys(suite: SuiteState) -> dict[str, str]:
    open_runs = [
        view.state for view in suite.runs
        if is_unfinished(view.state) and view.spec.run_id not in suite.orders.removed
    ]  # fmt: skip
    if not open_runs and not suite.to_come:
        return {}
    all_failed = all(state.end is not None and state.cause != "stopped" for state in open_runs)
    return {"steer('resume')": "Rerun failed" if open_runs and all_failed else "Resume"}


def _busy_keys(suite: SuiteState, view: RunView | None) -> dict[str, str]:
    titles = {"steer('stop')": "Stop"}
    if suite.current is not None:
        titles["steer('skip')"] = "Skip"
    if view is not None and view.state.status == "queued":
        titles["steer('cancel')"] = "Cancel"
    titles["steer('pause')"] = "Resume" if control_actions.is_paused(suite) else "Pause"
    return titles


def _run_keys(suite: SuiteState, view: RunView) -> dict[str, str]:
    titles: dict[str, str] = {}
    if view.spec.run_id in suite.orders.removed:
        titles["steer('restore')"] = "Take back"
    failed = view.state.end is not None and view.state.cause not in ("completed", "pruned")
    titles["choose"] = "Failure" if failed else "Details"
    if view.state.status == "queued":
        return titles
    titles |= {"mark_row": "Mark", "chart('zoom')": "Zoom", "audit": "Audit"}
    if view.state.end is not None:
        titles["experiment"] = "Experiment"
    return titles | {"log('find')": "Find in log"}
