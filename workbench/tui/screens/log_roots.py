"""Choosing another log root: one that was open before, or a folder by its path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench.tui.screens.dialogs import ChoiceDialog, TextDialog
from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow

if TYPE_CHECKING:
    from workbench.tui.app import WorkbenchApp

MAX_ROOTS: Final = 10
TITLE: Final = "Log root: the folder with suites, records and plans"
OTHER: Final = "other"
"""Key of the row that asks for a path."""


def ask_log_root(app: WorkbenchApp) -> None:
    """Offer the log roots that were open before, and any other folder."""
    roots = list_roots(app)
    rows: list[GridRow] = [(str(root), _describe(root, app.log_root)) for root in roots]
    rows.append(("another folder …", GridCell("type its path", "dim")))
    keys = [*map(str, roots), OTHER]
    columns = (GridColumn("root", "", 24, grow=60), GridColumn("about", "", 12))

    def on_choice(key: str | None) -> None:
        if key == OTHER:
            _ask_path(app)
        elif key is not None:
            open_root(app, Path(key))

    app.push_screen(ChoiceDialog(TITLE, columns, rows, keys, here=str(app.log_root)), on_choice)


def list_roots(app: WorkbenchApp) -> list[Path]:
    """The present log root, and those that were open before."""
    texts = app.memory.get("log_roots")
    before = [Path(text) for text in texts if text] if isinstance(texts, list) else []
    return list(dict.fromkeys([app.log_root.absolute(), *before]))[:MAX_ROOTS]


def _ask_path(app: WorkbenchApp) -> None:
    def on_text(text: str | None) -> None:
        if text:
            open_root(app, Path(text))

    app.push_screen(TextDialog(TITLE, str(app.log_root)), on_text)


def open_root(app: WorkbenchApp, folder: Path) -> None:
    """Open a log root, or say that there is no such folder."""
    root = folder.expanduser().absolute()
    if not root.is_dir():
        app.notify(f"{root} is no folder.", title="Log root", severity="error")
        return
    roots = list_roots(app)
    app.remember("log_roots", [str(r) for r in dict.fromkeys([root, *roots])][:MAX_ROOTS])
    app.open_log_root(root)


def _describe(root: Path, present: Path) -> GridCell:
    if root == present.absolute():
        return GridCell("shown now", "accent")
    return GridCell("", "") if root.is_dir() else GridCell("is gone", "error")
