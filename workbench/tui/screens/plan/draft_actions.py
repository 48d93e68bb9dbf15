"""Changes of the draft of a plan: runs left out, order, undo, saved presets, kept drafts."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final, cast

from textual import on

from workbench.tui.screens.dialogs import ChoiceDialog, TextDialog
from workbench.tui.screens.footer_keys import FooterKeys
from workbench.tui.screens.plan import footers, parts
from workbench.tui.view_models import plan_rows
from workbench.tui.view_models.catalog import Catalogs
from workbench.tui.view_models.plan import choices, matrix
from workbench.tui.view_models.plan_draft import (
    PlanDraft,
    PlanPreview,
    PreviewRun,
    save_preset,
)
from workbench.tui.widgets.form import SettingsForm
from workbench.tui.widgets.grid import Grid

if TYPE_CHECKING:
    from workbench.tui.app import WorkbenchApp

MAX_DRAFTS: Final = 20
"""Log roots whose drafts are kept."""
MAX_UNDO: Final = 100
DRAFTS: Final = "drafts"
LAYOUT_CLASSES: Final = frozenset(("view-settings", "view-runs", "view-file", "show-file"))
"""Classes of the screen that say which pane is shown."""


class DraftActions(FooterKeys):
    """The draft of a plan and its preview, and what changes the draft."""

    def __init__(self) -> None:
        super().__init__(classes="view-settings")
        self.catalogs: Catalogs | None = None
        self.draft = PlanDraft()
        self.origin = PlanDraft()
        """What the draft was started from."""
        self.preview: PlanPreview | None = None
        self.undo_stack: list[PlanDraft] = []
        self.after = ""
        """Suite that is to end before the first run; empty: none."""
        self.keep = True
        """Runs that are done with equal settings are not run again."""
        self.opened: dict[str, set[str]] = {"subsets": set(), "models": set()}
        """List -> folds that are open."""
        self.pins: dict[str, set[str]] = {"subsets": set(), "models": set()}
        """List -> names that stand first."""
        self.texts: dict[str, str] = {}
        """List -> words to find in it, until Esc."""

    @property
    def bench(self) -> WorkbenchApp:
        """The app, by its own type."""
        return cast("WorkbenchApp", self.app)

    @abstractmethod
    def change(self, draft: PlanDraft) -> None:
        """Set a new draft."""

    @abstractmethod
    def show_preview(self) -> None:
        """Show runs, costs and command."""

    @abstractmethod
    def reload_catalogs(self) -> object:
        """Read all catalogs."""

    # -- layout ----------------------------------------------------------------------------

    @property
    def shown_lists(self) -> dict[str, choices.ListState]:
        """What the lists of subsets and models show."""
        return {
            name: choices.ListState(self.opened[name], self.pins[name], self.texts.get(name, ""))
            for name in self.opened
        }

    def remember_layout(self) -> None:
        """Keep folds, pins, open groups and view for the next session."""
        layout: dict[str, Any] = {
            "opened": {name: sorted(folds) for name, folds in self.opened.items()},
            "pins": {name: sorted(pins) for name, pins in self.pins.items()},
            "groups": sorted(self.query_one("#settings", SettingsForm).opened),
            "classes": sorted(self.classes & LAYOUT_CLASSES),
        }
        self.bench.remember("plan", layout)

    def recall_layout(self) -> None:
        """The layout of the last session."""
        layout = self.bench.memory.get("plan")
        if not isinstance(layout, dict):
            return
        try:
            for kept, lists in ((layout["opened"], self.opened), (layout["pins"], self.pins)):
                for name in lists:
                    lists[name] = set(map(str, kept[name]))
            form = self.query_one("#settings", SettingsForm)
            form.opened = set(map(str, layout["groups"]))
            classes = LAYOUT_CLASSES & set(layout["classes"])
        except (KeyError, TypeError):  # of another version
            return
        if classes:
            self.remove_class(*LAYOUT_CLASSES).add_class(*classes)

    @on(SettingsForm.GroupsChanged)
    def _keep_groups(self) -> None:
        self.remember_layout()

    def action_pin(self) -> None:
        """Let the subset or model under the cursor stand first, or no more."""
        grid = self.focused
        name = grid.key if isinstance(grid, Grid) and grid.id in self.pins else None
        if not isinstance(grid, Grid) or not name or choices.fold_name(name):
            self.notify("* pins a subset or model in its list.")
            return
        self.pins[grid.id or ""] ^= {name}
        self.remember_layout()
        self.paint()

    @abstractmethod
    def paint(self) -> None:
        """Show the draft."""

    def footer_titles(self) -> dict[str, str]:
        """Keys of the list that has the focus, then those that the plan's state asks for."""
        return footers.list_titles(self)

    # -- kept drafts -----------------------------------------------------------------------

    def keep_draft(self) -> None:
        """Keep the draft for the next session if it is not what it was started from."""
        drafts = self.bench.memory.get(DRAFTS)
        kept = dict(drafts) if isinstance(drafts, dict) else {}
        root = str(self.bench.log_root.absolute())
        kept.pop(root, None)
        if self.draft.count_changes(self.origin):
            kept[root] = self.draft.as_memory()
        self.bench.remember(DRAFTS, dict(list(kept.items())[-MAX_DRAFTS:]))

    def recall_draft(self) -> PlanDraft | None:
        """The draft of this log root of an earlier session; None: there is none."""
        drafts = self.bench.memory.get(DRAFTS)
        root = str(self.bench.log_root.absolute())
        return PlanDraft.from_memory(drafts.get(root)) if isinstance(drafts, dict) else None

    def push_undo(self) -> None:
        """Keep the present draft for `u`."""
        self.undo_stack = [*self.undo_stack, self.draft][-MAX_UNDO:]

    def action_undo(self) -> None:
        """Take the last change of the plan back."""
        if not self.undo_stack:
            self.notify("There is no change to take back.")
            return
        draft = self.undo_stack.pop()
        self.change(draft)
        self.undo_stack.pop()  # the change back is none

    def action_save(self) -> None:
        """Save the plan as a preset of one's own."""

        def on_text(name: str | None) -> None:
            if name is None:
                return
            try:
                path = save_preset(self.draft, name)
            except (OSError, ValueError) as error:
                self.notify(str(error), title="Not saved", severity="error")
                return
            self.notify(f"{path}\nworkbench run --preset {path.stem}", title="Preset saved")
            self.reload_catalogs()

        self.app.push_screen(TextDialog("Save the plan as a preset: its name", "weekly"), on_text)

    # -- runs ------------------------------------------------------------------------------

    @property
    def current_run(self) -> PreviewRun | None:
        """The run under the cursor of the runs; None: there is none, or another list has the
        focus."""
        grid = self.query_one("#runs", Grid)
        if self.preview is None or self.focused is not grid:
            return None
        column = grid.column_key if grid.by_cell else None
        return matrix.find_cell(self.preview.cells, grid.key, column)

    def action_exclude(self) -> None:
        """Leave the run under the cursor out, or take that back."""
        run = self.current_run
        if run is None or self.preview is None:
            self.notify("x leaves out the run under the cursor of Runs.")
            return
        if not run.excluded:
            self.change(self.draft.exclude_cells(matrix.select_cell(run, self.preview.cells)))
            return
        draft = self.draft.restore_cell(matrix.name_cell(run))
        if draft == self.draft:
            self.notify("The plan leaves it out under another name; see exclude in the settings.")
        self.change(draft)

    def action_move_name(self, kind: str, by: int) -> None:
        """Move subset or model of the run under the cursor earlier or later."""
        run, preview = self.current_run, self.preview
        if run is None or preview is None:
            self.notify("K J < > reorder the runs under the cursor of Runs.")
            return
        names = getattr(self.draft, kind)
        attribute = kind.removesuffix("s")
        shown = list(dict.fromkeys(getattr(cell, attribute) for cell in preview.cells))
        if len(shown) != len(names):
            self.notify(f"The plan's [[run]] blocks say the order of its {kind}.")
            return
        at = shown.index(getattr(run, attribute))
        self.change(self.draft.move_name(kind, names[at], by))
        grid = self.query_one("#runs", Grid)
        if kind == "models" and grid.by_cell:
            grid.cell = max(1, min(grid.cell + by, len(names)))

    # -- queue -----------------------------------------------------------------------------

    def action_queue(self) -> None:
        """Choose the suite whose end the runs wait for."""
        busy = [suite for suite in self.bench.suites or () if suite.busy]
        if not busy and not self.after:
            self.notify("No suite is at work or queued: F5 starts at once.")
            return
        rows = [(suite.folder.name, suite.state) for suite in busy]
        rows.append(("at once", "wait for the device only"))
        keys = [*(suite.folder.name for suite in busy), ""]

        def on_choice(name: str | None) -> None:
            if name is not None:
                self.after = name
                self.show_preview()

        here = self.after or keys[0]
        title = "Start when it has ended"
        dialog = ChoiceDialog(title, plan_rows.LISTED, rows, keys, here=here)
        self.app.push_screen(dialog, on_choice)

    # -- parts -----------------------------------------------------------------------------

    @on(SettingsForm.PartsRequested)
    def _edit_parts(self, event: SettingsForm.PartsRequested) -> None:
        engine = (self.catalogs or Catalogs()).engine(self.draft.engine)
        form = self.query_one("#settings", SettingsForm)

        def on_change(value: Any) -> None:
            form.set_value(event.setting, value)

        parts.edit_parts(self.app, event.setting, event.value, engine, on_change)
