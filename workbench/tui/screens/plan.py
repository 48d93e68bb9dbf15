"""Plan screen: choose subsets, models, engine and settings, preview the runs, start them.

The screen holds one `PlanDraft` and paints from it. Catalogs are read and plans checked in
threads; the suite is started by a subprocess ( `cli_commands`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Button, Footer, Static

from workbench.tui.screens import plan_panels
from workbench.tui.screens.dialogs import ChoiceDialog, ConfirmDialog
from workbench.tui.system import cli_commands
from workbench.tui.view_models import plan_rows
from workbench.tui.view_models.catalog import Catalogs
from workbench.tui.view_models.form_fields import Setting
from workbench.tui.view_models.plan_draft import (
    PlanDraft,
    PlanPreview,
    check_draft,
    draft_from_table,
    save_draft,
)
from workbench.tui.widgets.form import SettingsForm
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.plan_preview import PlanFileView
from workbench.tui.widgets.top_bar import Heading, Pick, TopBar

if TYPE_CHECKING:
    from workbench.tui.app import WorkbenchApp

CHECK_SECONDS = 0.15
"""Delay between the last change and the next check of the plan."""
VIEWS = ("settings", "runs", "file")


class CatalogsRead(Message):
    """The catalogs were read."""

    def __init__(self, catalogs: Catalogs) -> None:
        super().__init__()
        self.catalogs = catalogs


class Checked(Message):
    """The draft was expanded."""

    def __init__(self, draft: PlanDraft, preview: PlanPreview) -> None:
        super().__init__()
        self.draft, self.preview = draft, preview


class PlanScreen(Screen[None]):
    """Edits a plan draft, shows its runs and plan file, and starts the suite."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5,ctrl+r", "start", "Start", key_display="F5", priority=True),
        Binding("p", "presets", "Preset"),
        Binding("e", "engines", "Engine"),
        Binding("v", "view", "Settings/runs"),
    ]

    def __init__(self) -> None:
        super().__init__(classes="view-settings")
        self.catalogs: Catalogs | None = None
        self.draft = PlanDraft()
        self.preview: PlanPreview | None = None
        self._check_timer: Timer | None = None
        self._starting = False
        self._focused_list = "subsets"
        """Id of the list that the description below is about."""

    @property
    def bench(self) -> WorkbenchApp:
        """The app, by its own type."""
        return cast("WorkbenchApp", self.app)

    def compose(self) -> ComposeResult:
        """Choices at the left, settings in the middle, runs and plan file at the right."""
        yield TopBar("plan")
        with Horizontal(id="plan-body"):
            with Vertical(id="plan-choices"):
                yield Pick("Start from", "p", id="pick-preset")
                yield Pick("Engine", "e", id="pick-engine")
                yield Heading("Subsets", id="subsets-heading")
                yield Grid(plan_rows.SUBSETS, notice="Loading subsets …", id="subsets")
                yield Heading("Models", id="models-heading")
                yield Grid(plan_rows.MODELS, notice="Loading models …", id="models")
                yield Static("", id="choice-about")
            with Vertical(id="plan-settings"):
                yield Heading("Settings", id="settings-heading")
                yield SettingsForm(id="settings")
            with Vertical(id="plan-preview"):
                with Vertical(id="plan-runs"):
                    yield Heading("Runs", id="runs-heading")
                    yield Grid(plan_rows.RUNS, notice="Checking the plan …", id="runs")
                with Vertical(id="plan-file"):
                    yield Heading("Plan file", id="file-heading")
                    yield PlanFileView()
        with Horizontal(id="plan-status"):
            yield Static("", id="verdict")
            yield Button("Start", id="start", compact=True, disabled=True)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Read the catalogs after the first frame."""
        self.query_one("#subsets", Grid).focus()
        self.call_after_refresh(self._read_catalogs)

    def on_screen_resume(self) -> None:
        """Update the top bar, which changed on another screen; runs may have ended."""
        self.bench.show_busy_suites()
        if self.catalogs is not None:
            self._read_trained(self.catalogs)

    # -- catalogs ------------------------------------------------------------------------

    @work(thread=True, exclusive=True, group="catalogs")
    def _read_catalogs(self) -> None:
        from workbench.tui.view_models import catalog

        self.post_message(
            CatalogsRead(catalog.read_catalogs(self.bench.cache_root, self.bench.log_root))
        )

    @work(thread=True, exclusive=True, group="catalogs")
    def _read_trained(self, catalogs: Catalogs) -> None:
        from workbench.tui.view_models import catalog

        others = tuple(entry for entry in catalogs.models if not entry.trained)
        models = (*others, *catalog.read_trained_models(self.bench.log_root))
        if models != catalogs.models:
            self.post_message(CatalogsRead(replace(catalogs, models=models)))

    @on(CatalogsRead)
    def _show_catalogs(self, event: CatalogsRead) -> None:
        first = self.catalogs is None
        self.catalogs = event.catalogs
        if first:
            self._start_from(event.catalogs.presets[0].name if event.catalogs.presets else "")
        else:
            self._paint()

    def _start_from(self, name: str) -> None:
        catalogs = self.catalogs or Catalogs()
        preset = next((p for p in catalogs.presets if p.name == name), None)
        keys = tuple(s.name for s in catalogs.suite)
        table = preset.table if preset else {"subsets": (), "models": ()}
        self.draft = draft_from_table(table, keys, name if preset else "")
        self._choose_engine(self.draft.engine or next((e.name for e in catalogs.engines), ""))
        for listed, chosen in (("#subsets", self.draft.subsets), ("#models", self.draft.models)):
            grid = self.query_one(listed, Grid)
            indexes = [index for index, key in enumerate(grid.keys) if key in chosen]
            for index in (*indexes[-1:], *indexes[:1]):  # all of them in view if they fit
                grid.cursor = index

    def _choose_engine(self, name: str) -> None:
        engine = (self.catalogs or Catalogs()).engine(name)
        if engine is None:
            self.change(replace(self.draft, engine=name))
            return
        other = name != self.draft.engine
        names = {s.name for s in engine.settings}
        task = self.draft.task if self.draft.task in engine.tasks else engine.tasks[0]
        kept = {k: v for k, v in self.draft.settings.items() if not other or k in names}
        more = () if other and self.draft.engine else self.draft.more_engines
        self.change(
            replace(
                self.draft, engine=name, more_engines=more, task=task,
                needs_data=engine.needs_data, settings=kept,
            )
        )  # fmt: skip

    # --  painting --------------- -----------------------------------------------------------

    def change(self, draft: PlanDraft) -> None:
        """Set a new draft: paint it now, check it after `CHECK_SECONDS`."""
        self.draft = draft
        self._paint()
        if self._check_timer is not None:
            self._check_timer.stop()
        self._check_timer = self.set_timer(CHECK_SECONDS, self._check)

    def _paint(self) -> None:
        catalogs, draft = self.catalogs or Catalogs(), self.draft
        self.query_one("#pick-preset", Pick).value = draft.preset or "an empty plan"
        engine = catalogs.engine(draft.engine)
        self.query_one("#pick-engine", Pick).value = (
            ", ".join((draft.engine, *draft.more_engines)) or "none"
        )
        plan_panels.paint_subsets(self, catalogs, draft)
        plan_panels.paint_models(self, catalogs, draft)
        self._show_description(self.query_one(f"#{self._focused_list}", Grid))
        settings = catalogs.suite
        values = {**draft.suite, **draft.settings}
        if engine is not None:
            settings = (*settings, *engine.task_settings, *engine.settings)
            values |= {"task": draft.task} if draft.task != engine.tasks[0] else {}
        self.query_one(SettingsForm).show(settings, values, catalogs.model_defaults(draft.models))
        changed = len(draft.suite) + len(draft.settings)
        heading = self.query_one("#settings-heading", Heading)
        heading.remark = f"{changed} changed" if changed else "all defaults"

    @work(thread=True, exclusive=True, group="check")
    def _check(self) -> None:
        draft = self.draft
        preview = check_draft(draft, self.bench.cache_root, self.bench.log_root)
        self.post_message(Checked(draft, preview))

    @on(Checked)
    def _show_check(self, event: Checked) -> None:
        if event.draft is not self.draft:
            return  # a newer check is running
        self.preview = preview = event.preview
        plan_panels.paint_runs(self, preview)
        arguments = (
            cli_commands.run_arguments(preview.file, self.bench.log_root) if preview.file else None
        )
        self.query_one(PlanFileView).show(
            preview.toml, cli_commands.command_line(arguments) if arguments else ""
        )
        self._show_summary()

    def _show_summary(self) -> None:
        text, failed = plan_rows.describe_preview(self.preview)
        line = self.query_one("#verdict", Static)
        line.set_class(failed, "failed")
        line.update(Text(text, no_wrap=True, overflow="ellipsis"))
        button = self.query_one("#start", Button)
        button.disabled = failed or self._starting or not self.preview or not self.preview.runs
        runs = plan_rows.count_words(len(self.preview.runs) if self.preview else 0, "run")
        button.label = Text("Starting …" if self._starting else f"F5  Start {runs}")

    # -- actions ---------- ----------------------------------------------------------------

    @on(Grid.Toggled, "#subsets")
    @on(Grid.Chosen, "#subsets")
    def _toggle_subset(self, event: Grid.Moved) -> None:
        if event.grid.key:
            self.change(self.draft.toggle_subset(event.grid.key))

    @on(Grid.Toggled, "#models")
    @on(Grid.Chosen, "#models")
    def _toggle_model(self, event: Grid.Moved) -> None:
        if event.grid.key:
            self.change(self.draft.toggle_model(event.grid.key))

    @on(Grid.Moved, "#subsets")
    @on(Grid.Moved, "#models")
    def _moved(self, event: Grid.Moved) -> None:
        if event.grid.id == self._focused_list:
            self._show_description(event.grid)

    def on_descendant_focus(self) -> None:
        """Describe the current entry of the list that has the focus."""
        if isinstance(self.focused, Grid) and self.focused.id in ("subsets", "models"):
            self._focused_list = self.focused.id
            self._show_description(self.focused)

    def _show_description(self, grid: Grid) -> None:
        text, failed = plan_rows.describe_entry(
            self.catalogs or Catalogs(), grid.id or "", grid.key
        )
        line = self.query_one("#choice-about", Static)
        line.set_class(failed, "failed")
        line.update(Text(text))

    @on(SettingsForm.Changed)
    def _setting_changed(self, event: SettingsForm.Changed) -> None:
        name = event.setting.name
        if name == "task":
            self.change(replace(self.draft, task=str(event.value)))
            return
        of_suite = any(s.name == name for s in (self.catalogs or Catalogs()).suite)
        values: dict[str, Any] = dict(self.draft.suite if of_suite else self.draft.settings)
        values.pop(name, None)
        if not event.is_default:
            values[name] = event.value
        if of_suite:
            self.change(replace(self.draft, suite=values))
        else:
            self.change(replace(self.draft, settings=values))

    @on(SettingsForm.ChoiceRequested)
    async def _choice_wanted(self, event: SettingsForm.ChoiceRequested) -> None:
        setting: Setting = event.setting
        rows = [(choice,) for choice in setting.choices]
        columns = (replace(plan_rows.NAMES, width=24),)

        def on_choice(chosen: str | None) -> None:
            if chosen is not None:
                self.query_one(SettingsForm).set_value(setting, chosen)

        here = str(event.value or "")
        self.app.push_screen(
            ChoiceDialog(setting.name, columns, rows, setting.choices, here=here), on_choice
        )

    @on(Pick.Opened, "#pick-preset")
    def action_presets(self) -> None:
        """Choose a preset to start from."""
        presets = (self.catalogs or Catalogs()).presets
        rows, keys = plan_rows.preset_rows(presets)

        def on_choice(chosen: str | None) -> None:
            if chosen is not None:
                self._start_from(chosen)

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
                self._choose_engine(chosen)

        keys = [e.name for e in engines]
        dialog = ChoiceDialog("Engine", plan_rows.LISTED, rows, keys, here=self.draft.engine)
        self.app.push_screen(dialog, on_choice)

    def check_action(
        self,
        action: str,
        parameters: tuple[object, ...],  # noqa: ARG002 - Textual's signature
    ) -> bool | None:
        """Enable`v` on narrow screens only; wide ones show all panes."""
        return action != "view" or self.has_class("-narrow")

    def action_view(self) -> None:
        """Show the next of the three panes of a narrow screen."""
        now = next((v for v in VIEWS if self.has_class(f"view-{v}")), VIEWS[0])
        new = VIEWS[(VIEWS.index(now) + 1) % len(VIEWS)]
        self.remove_class(f"view-{now}").add_class(f"view-{new}")

    # -- start -----------------------------------------------------------------------------

    @on(Button.Pressed, "#start")
    def action_start(self) -> None:
        """Ask for confirmation, then start the suite."""
        if self._starting or not self.preview or not self.preview.runs or self.preview.problems:
            self.notify(plan_rows.describe_preview(self.preview)[0], severity="error")
            return
        file = self.preview.file or Path()
        command = cli_commands.command_line(cli_commands.run_arguments(file, self.bench.log_root))
        count = len(self.preview.runs)
        runs = (
            f"{count} runs, one after the other. They go on" if count > 1 else "1 run. It goes on"
        )
        text = f"{runs} when you leave this screen or the connection drops.\n\n{command}"

        def on_answer(yes: bool | None) -> None:
            if yes:
                self._start()

        self.app.push_screen(
            ConfirmDialog("Start this suite?", text, "Start", "Not yet"), on_answer
        )

    @work(exclusive=True, group="start")
    async def _start(self) -> None:
        self._starting = True
        self._show_summary()
        try:
            path = save_draft(self.draft, self.bench.log_root)
            outcome = await cli_commands.run_workbench(
                cli_commands.run_arguments(path, self.bench.log_root)
            )
        except (OSError, ValueError) as error:
            outcome = cli_commands.CommandResult(-1, "", str(error))
        self._starting = False
        self._show_summary()
        self._show_outcome(outcome)

    def _show_outcome(self, outcome: cli_commands.CommandResult) -> None:
        from results.text.sanitize import clean

        name = outcome.output.strip().splitlines()[-1:] or [""]
        if outcome.code != 0 or not name[0]:
            reason = clean(outcome.error).strip() or f"it ended with code {outcome.code}"
            self.notify(reason, title="The suite was not started", severity="error", timeout=20)
            return
        self.bench.show_suite(self.bench.log_root / name[0].strip())
