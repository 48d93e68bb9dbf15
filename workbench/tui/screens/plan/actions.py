"""Actions of the Plan screen: presets, engine, search, data root, command, start.

`PlanActions` holds the draft and what the actions change; `PlanScreen` composes and paints.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from textual import on, work
from textual.screen import Screen
from textual.widgets import Button, Input

from workbench.tui.screens.copying import CopyChoice
from workbench.tui.screens.dialogs import ChoiceDialog, TextDialog
from workbench.tui.screens.plan import start
from workbench.tui.system import cli_commands
from workbench.tui.view_models import plan_rows
from workbench.tui.view_models.catalog import Catalogs
from workbench.tui.view_models.plan import matrix
from workbench.tui.view_models.plan_draft import PlanDraft, PlanPreview
from workbench.tui.widgets.form import SettingsForm
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.top_bar import Pick

if TYPE_CHECKING:
    from workbench.tui.app import WorkbenchApp

VIEWS: Final = ("settings", "runs", "file")
"""Panes that take turns below the lists of a narrow screen."""
SUITE: Final = "suite:"
"""Begins the key of a suite in the list of what a plan can start from."""
NEWEST_SUITES: Final = 20


class PlanActions(Screen[None]):
    """The draft of a plan, and the actions on it."""

    def __init__(self) -> None:
        super().__init__(classes="view-settings")
        self.catalogs: Catalogs | None = None
        self.draft = PlanDraft()
        self.preview: PlanPreview | None = None
        self.checked_draft: PlanDraft | None = None
        """The draft that `preview` is of; another one: a check is running."""
        self.pending_start: bool | None = None
        """A start that waits for that check, True: of cost probes; None: there is none."""
        self.keep = True
        """Runs that are done with equal settings are not run again."""
        self.texts: dict[str, str] = {}
        """List -> words to find in it, until Esc."""
        self.starting = False
        self._searched = "subsets"
        """List that the search is about."""

    @property
    def bench(self) -> WorkbenchApp:
        """The app, by its own type."""
        return cast("WorkbenchApp", self.app)

    @abstractmethod
    def change(self, draft: PlanDraft) -> None:
        """Set a new draft."""

    @abstractmethod
    def start_from(self, name: str) -> None:
        """Set the draft of a preset or a suite."""

    @abstractmethod
    def choose_engine(self, name: str) -> None:
        """Set the engine of the draft."""

    @abstractmethod
    def paint(self) -> None:
        """Show the draft."""

    @abstractmethod
    def show_preview(self) -> None:
        """Show runs, costs and command."""

    # -- what a plan starts from -----------------------------------------------------------

    @on(Pick.Opened, "#pick-preset")
    def action_presets(self) -> None:
        """Choose a preset, or the plan of an earlier suite, to start from."""
        presets = (self.catalogs or Catalogs()).presets
        rows, keys = plan_rows.preset_rows(presets)
        for entry in (self.bench.suites or ())[:NEWEST_SUITES]:
            rows.insert(-1, plan_rows.suite_row(entry.name, entry.about, entry.state))
            keys.insert(-1, f"{SUITE}{entry.folder.name}")

        def on_choice(chosen: str | None) -> None:
            if chosen is not None:
                self.start_from(chosen)

        title = plan_rows.PRESETS_TITLE
        dialog = ChoiceDialog(title, plan_rows.PRESETS, rows, keys, here=self.draft.preset)
        self.app.push_screen(dialog, on_choice)

    @on(Pick.Opened, "#pick-engine")
    def action_engines(self) -> None:
        """Choose another engine."""
        engines = (self.catalogs or Catalogs()).engines
        rows = [(e.name, e.summary) for e in engines]

        def on_choice(chosen: str | None) -> None:
            if chosen is not None:
                self.choose_engine(chosen)

        keys = [e.name for e in engines]
        dialog = ChoiceDialog("Engine", plan_rows.LISTED, rows, keys, here=self.draft.engine)
        self.app.push_screen(dialog, on_choice)

    def action_data_root(self) -> None:
        """Ask for the folder with the data of subsets that do not ship."""

        def on_text(text: str | None) -> None:
            settings = {k: v for k, v in self.draft.settings.items() if k != "data_root"}
            if text:
                self.change(replace(self.draft, settings={**settings, "data_root": text}))

        now = str(self.draft.settings.get("data_root") or "")
        self.app.push_screen(
            TextDialog("Folder of the data (data_root)", now or "/data/ReT-M2KR"), on_text
        )

    # -- view and search -------------------------------------------------------------------

    def action_settings(self) -> None:
        """Focus the settings."""
        if self.has_class("-narrow"):
            self._show_view("settings")
        self.query_one(SettingsForm).focus_list()

    def action_view(self) -> None:
        """Show the next pane of a narrow screen; on a wide one costs or the plan file."""
        if not self.has_class("-narrow"):
            self.toggle_class("show-file")
            return
        now = next((v for v in VIEWS if self.has_class(f"view-{v}")), VIEWS[0])
        self._show_view(VIEWS[(VIEWS.index(now) + 1) % len(VIEWS)])

    def _show_view(self, view: str) -> None:
        self.remove_class(*(f"view-{name}" for name in VIEWS)).add_class(f"view-{view}")

    def action_find(self) -> None:
        """Find words in the list that has the focus: subsets, models or settings."""
        focused = self.focused
        name = focused.id if isinstance(focused, Grid) else ""
        self._searched = name if name in ("subsets", "models") else "settings"
        self.add_class("finding")
        field = self.query_one("#plan-find", Input)
        field.value = self.texts.get(self._searched, "")
        field.focus()

    @on(Input.Changed, "#plan-find")
    def _find_words(self, event: Input.Changed) -> None:
        if self.has_class("finding"):
            self._set_text(event.value)

    def _set_text(self, text: str) -> None:
        self.texts[self._searched] = text
        if self._searched == "settings":
            self.query_one(SettingsForm).search(text)
        else:
            self.paint()

    @on(Input.Submitted, "#plan-find")
    def _leave_find(self) -> None:
        self.remove_class("finding")
        listed = "settings-grid" if self._searched == "settings" else self._searched
        self.query_one(f"#{listed}", Grid).focus()

    def action_clear_find(self) -> None:
        """Leave the search and show the whole list again."""
        if not self.has_class("finding"):
            focused = self.focused.id if self.focused is not None else ""
            self._searched = "settings" if focused == "settings-grid" else focused or ""
        if self.texts.get(self._searched):
            self._set_text("")
        if self.has_class("finding"):
            self._leave_find()

    # -- command and start -----------------------------------------------------------------

    def command(self) -> list[str]:
        """Arguments of the command that F5 runs; empty: the plan has problems."""
        if self.preview is None or self.preview.file is None or self.preview.problems:
            return []
        return start.start_arguments(self.preview, self.bench.log_root, keep=self.keep)

    def action_keep(self) -> None:
        """Run what is done with equal settings again, or keep it."""
        self.keep = not self.keep
        self.show_preview()

    def copy_choices(self) -> list[CopyChoice]:
        """The command that starts the plan, and the plan file."""
        arguments = self.command()
        command = cli_commands.command_line(arguments) if arguments else ""
        file = self.preview.toml if self.preview else ""
        return [CopyChoice("command", command), CopyChoice("plan file", file)]

    @on(Button.Pressed, "#start")
    def action_start(self) -> None:
        """Ask for confirmation, then start the suite."""
        self._ask_start(probe=False)

    def action_probe(self) -> None:
        """Start cost probes of the plan's runs instead of the runs."""
        self._ask_start(probe=True)

    def _ask_start(self, *, probe: bool) -> None:
        if self.checked_draft is not self.draft and not self.starting:
            self.pending_start = probe  # what was just typed belongs to it
            return
        preview = self.preview
        if self.starting or not preview or not preview.runs or preview.problems:
            self.notify(plan_rows.describe_preview(preview)[0], severity="error")
            return
        if not probe and not matrix.count_open(preview.runs, keep=self.keep):
            self.notify("Every run is done with equal settings; f runs them again.")
            return
        arguments = start.start_arguments(preview, self.bench.log_root, keep=self.keep, probe=probe)
        start.ask_start(self.bench, preview, arguments, lambda: self._start(arguments))

    def ask_pending_start(self) -> None:
        """Ask now for a start that waited for its check."""
        probe, self.pending_start = self.pending_start, None
        if probe is not None:
            self._ask_start(probe=probe)

    @work(exclusive=True, group="start")
    async def _start(self, arguments: list[str]) -> None:
        self.starting = True
        self.show_preview()
        await start.start_suite(self.bench, self.draft, arguments)
        self.starting = False
        self.show_preview()
