"""Actions of the Plan screen: presets, engine, search, data root, command, start.

`PlanActions` holds the draft and what the actions change; `PlanScreen` composes and paints.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Final

from textual import on, work
from textual.widget import Widget
from textual.widgets import Button, Input, Static

from workbench.tui.screens.copying import CopyChoice
from workbench.tui.screens.dialogs import ChoiceDialog, TextDialog
from workbench.tui.screens.plan import start
from workbench.tui.screens.plan.draft_actions import DraftActions
from workbench.tui.system import cli_commands
from workbench.tui.view_models import plan_rows
from workbench.tui.view_models.catalog import Catalogs
from workbench.tui.view_models.plan import matrix
from workbench.tui.view_models.plan_draft import PlanDraft
from workbench.tui.widgets.find_input import FindInput
from workbench.tui.widgets.form import SettingsForm
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.plan_preview import PlanFileView
from workbench.tui.widgets.top_bar import Pick

VIEWS: Final = ("settings", "runs", "file")
"""Panes that take turns below the lists of a narrow screen."""
SUITE: Final = "suite:"
"""Begins the key of a suite in the list of what a plan can start from."""
FILE: Final = "file:"
"""Begins the path of a plan file; alone: the row that asks for one."""
NEWEST_SUITES: Final = 20


class PlanActions(DraftActions):
    """The actions on the plan that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.checked_draft: PlanDraft | None = None
        """The draft that `preview` is of; another one: a check is running."""
        self.pending_start: bool | None = None
        """A start that waits for that check, True: of cost probes; None: there is none."""
        self.starting = False
        self._searched = "subsets"
        """List that the search is about."""

    @abstractmethod
    def start_from(self, name: str) -> None:
        """Set the draft of a preset or a suite."""

    @abstractmethod
    def choose_engine(self, name: str, base: PlanDraft | None = None) -> None:
        """Set the engine of the draft, or of another one."""

    # -- what a plan starts from -----------------------------------------------------------

    @on(Pick.Opened, "#pick-preset")
    def action_presets(self) -> None:
        """Choose a preset, or the plan of an earlier suite, to start from."""
        presets = (self.catalogs or Catalogs()).presets
        rows, keys = plan_rows.preset_rows(presets)
        for entry in (self.bench.suites or ())[:NEWEST_SUITES]:
            rows.insert(-1, plan_rows.suite_row(entry.name, entry.about, entry.state))
            keys.insert(-1, f"{SUITE}{entry.folder.name}")
        rows.insert(-1, plan_rows.FILE_ROW)
        keys.insert(-1, FILE)

        def on_choice(chosen: str | None) -> None:
            if chosen == FILE:
                self._ask_file()
            elif chosen is not None:
                self.start_from(chosen)

        title = plan_rows.PRESETS_TITLE
        dialog = ChoiceDialog(title, plan_rows.PRESETS, rows, keys, here=self.draft.preset)
        self.app.push_screen(dialog, on_choice)

    def _ask_file(self) -> None:
        def on_text(text: str | None) -> None:
            if text:
                self.start_from(f"{FILE}{text}")

        plans = self.bench.log_root / "plans"
        self.app.push_screen(TextDialog("Path of a plan file", f"{plans}/weekly.toml"), on_text)

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
            self.remember_layout()
            return
        now = next((v for v in VIEWS if self.has_class(f"view-{v}")), VIEWS[0])
        view = VIEWS[(VIEWS.index(now) + 1) % len(VIEWS)]
        self._show_view(view)
        shown: dict[str, Widget] = {
            "settings": self.query_one("#settings-grid"), "runs": self.query_one("#runs"),
            "file": self.query_one(PlanFileView),
        }  # fmt: skip
        self.call_after_refresh(shown[view].focus)

    def _show_view(self, view: str) -> None:
        self.remove_class(*(f"view-{name}" for name in VIEWS)).add_class(f"view-{view}")
        self.remember_layout()
        self.call_after_refresh(self.show_preview)  # problems are wrapped to the pane

    def action_find(self) -> None:
        """Find words in the list that has the focus: subsets, models or settings."""
        focused = self.focused
        name = focused.id if isinstance(focused, Grid) else ""
        self._searched = name if name in ("subsets", "models") else "settings"
        self.add_class("finding")
        earlier = self.bench.earlier_texts(self._searched)
        self.query_one("#plan-find", FindInput).open(self.texts.get(self._searched, ""), earlier)

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
            if self._searched:
                self.query_one(f"#{self._searched}", Grid).cursor = 0

    @on(Input.Submitted, "#plan-find")
    def _leave_find(self) -> None:
        self.bench.remember_text(self._searched, self.texts.get(self._searched, ""))
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
        return self._start_arguments(probe=False)

    def _start_arguments(self, *, probe: bool) -> list[str]:
        assert self.preview is not None  # noqa: S101 - the caller has looked
        return start.start_arguments(
            self.preview, self.bench.log_root, keep=self.keep, probe=probe, after=self.after
        )

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
            self.query_one("#verdict", Static).update("Checking the plan; then it asks …")
            return
        preview = self.preview
        if self.starting or not preview or not preview.runs or preview.problems:
            self.notify(plan_rows.describe_preview(preview)[0], severity="error")
            return
        if not probe and not matrix.count_open(preview.runs, keep=self.keep):
            self.notify("Every run is done with equal settings; f runs them again.")
            return
        arguments = self._start_arguments(probe=probe)
        start.ask_start(self.bench, preview, arguments, lambda: self._start(arguments))

    def ask_pending_start(self) -> None:
        """Ask now for a start that waited for its check."""
        probe, self.pending_start = self.pending_start, None
        if probe is not None:
            self._ask_start(probe=probe)

    def on_screen_suspend(self) -> None:
        """Withdraw a start that still waits: its question would open over another screen."""
        self.pending_start = None

    @work(exclusive=True, group="start")
    async def _start(self, arguments: list[str]) -> None:
        self.starting = True
        self.show_preview()
        await start.start_suite(self.bench, self.draft, arguments)
        self.after = ""
        self.starting = False
        self.show_preview()
