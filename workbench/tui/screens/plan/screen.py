"""Plan screen: choose subsets, models, engine and settings, see runs and costs, start them.

The screen holds one `PlanDraft` and paints from it. Catalogs are read and plans checked in
threads; the suite is started by a subprocess ( `cli_commands`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Button, Static

from workbench.pricing import costs
from workbench.pricing.earlier import EarlierRuns
from workbench.tui.screens.dialogs import MessageDialog
from workbench.tui.screens.plan import panels
from workbench.tui.screens.plan.actions import FILE, SUITE, PlanActions
from workbench.tui.screens.plan.parts import ask_choice
from workbench.tui.system import cli_commands
from workbench.tui.view_models import plan_rows
from workbench.tui.view_models.catalog import Catalogs
from workbench.tui.view_models.plan import choices, matrix
from workbench.tui.view_models.plan_draft import (
    PlanDraft,
    PlanPreview,
    check_draft,
    draft_from_table,
    read_plan_table,
)
from workbench.tui.widgets.find_input import FindInput
from workbench.tui.widgets.footer import Footer
from workbench.tui.widgets.form import SettingsForm
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.plan_preview import PlanFileView
from workbench.tui.widgets.top_bar import Heading, Pick, TopBar

CHECK_SECONDS = 0.15
"""Delay between the last change and the next check of the plan."""


class CatalogsRead(Message):
    """The catalogs were read."""

    def __init__(self, catalogs: Catalogs) -> None:
        super().__init__()
        self.catalogs = catalogs


class Checked(Message):
    """The draft was expanded and priced."""

    def __init__(self, draft: PlanDraft, preview: PlanPreview) -> None:
        super().__init__()
        self.draft, self.preview = draft, preview


class PlanScreen(PlanActions):
    """Edits a plan draft, shows its runs, costs and plan file, and starts the suite."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5,ctrl+r", "start", "Start", key_display="F5", priority=True),
        Binding("p", "presets", "Preset"),
        Binding("e", "engines", "Engine"),
        Binding("s", "settings", "Settings"),
        Binding("slash", "find", "Find", key_display="/"),
        Binding("v", "view", "View"),
        Binding("i", "data_root", "Data root"),
        Binding("f", "keep", "Run done again"),
        Binding("P", "probe", "Measure cost"),
        Binding("Q", "queue", "Queue behind"),
        Binding("x", "exclude", "Leave out"),
        Binding("K", "move_name('subsets', -1)", "Earlier", key_display="K J < >"),
        Binding("J", "move_name('subsets', 1)", "Later"),
        Binding("less_than_sign", "move_name('models', -1)", "Model earlier", key_display="<"),
        Binding("greater_than_sign", "move_name('models', 1)", "Model later", key_display=">"),
        Binding("u", "undo", "Undo"),
        Binding("w", "save", "Save as preset"),
        Binding("asterisk", "pin", "Pin", key_display="*"),
        Binding("escape", "clear_find", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._check_timer: Timer | None = None
        self._focused_list = "subsets"
        """Id of the list that the description below is about."""
        self._earlier: EarlierRuns | None = None

    def compose(self) -> ComposeResult:
        """Subsets, models and runs above; settings and costs below; the command at the end."""
        yield TopBar("plan")
        with Horizontal(id="plan-picks"):
            yield Pick("Start from", "p", id="pick-preset")
            yield Pick("Engine", "e", id="pick-engine")
        with Container(id="plan-body"):
            with Vertical(id="plan-subsets"):
                yield Heading("Subsets", id="subsets-heading")
                yield Grid(plan_rows.SUBSETS, notice="Loading subsets …", id="subsets")
            with Vertical(id="plan-models"):
                yield Heading("Models", id="models-heading")
                yield Grid(plan_rows.MODELS, header=False, notice="Loading models …", id="models")
            with Vertical(id="plan-runs"):
                yield Heading("Runs", id="runs-heading")
                yield Grid(matrix.LIST, notice="Checking the plan …", id="runs")
            with Vertical(id="plan-settings"):
                yield Heading("Settings", id="settings-heading")
                yield SettingsForm(id="settings")
            with Vertical(id="plan-costs"):
                yield Heading("Cost", id="costs-heading")
                yield Static("", id="costs")
            with Vertical(id="plan-file"):
                yield Heading("Plan file", id="file-heading")
                yield PlanFileView()
        yield Static("", id="choice-about")
        yield FindInput(id="plan-find")
        yield Static("", id="plan-command")
        with Horizontal(id="plan-status"):
            yield Static("", id="verdict")
            yield Button("Start", id="start", compact=True, disabled=True)
        yield Footer()

    def on_mount(self) -> None:
        """Read the catalogs after the first frame."""
        self.query_one("#subsets", Grid).focus()
        self.recall_layout()
        self._earlier = EarlierRuns(self.bench.log_root)
        self.query_one(SettingsForm).describe_earlier = self._describe_earlier
        self.call_after_refresh(self.reload_catalogs)

    def on_screen_resume(self) -> None:
        """Update the top bar, which changed on another screen; runs may have ended."""
        self.bench.show_busy_suites()
        if self.catalogs is not None:
            self._read_trained(self.catalogs)
            self._check()

    def on_resize(self) -> None:
        """Wrap problems and costs to the new width."""
        self.call_after_refresh(self.show_preview)

    # -- catalogs ------------------------------------------------------------------------

    @work(thread=True, exclusive=True, group="all-catalogs")
    def reload_catalogs(self) -> None:
        """Read all catalogs."""
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

    @work(thread=True, exclusive=True, group="subsets")
    def _read_subsets(self, catalogs: Catalogs, data_root: str) -> None:
        """Read which subsets can be used with another data root."""
        from workbench.tui.view_models import catalog

        folder = Path(data_root).expanduser() if data_root else None
        subsets = catalog.read_subsets(self.bench.cache_root, [], folder)
        self.post_message(CatalogsRead(replace(catalogs, subsets=subsets)))

    @on(CatalogsRead)
    def _show_catalogs(self, event: CatalogsRead) -> None:
        first = self.catalogs is None
        self.catalogs = event.catalogs
        if first:
            kept = self.recall_draft()
            names = {preset.name for preset in event.catalogs.presets}
            first_preset = event.catalogs.presets[0].name if names else ""
            self.start_from(kept.preset if kept and kept.preset in names else first_preset)
            self.undo_stack.clear()
            if kept is not None:
                self.choose_engine(kept.engine, kept)
                self._scroll_to_chosen()
        else:
            self.paint()

    def start_from(self, name: str) -> None:
        """Set the draft of a preset or a suite; an empty name: an empty plan."""
        catalogs = self.catalogs or Catalogs()
        table: Mapping[str, Any] = {"subsets": (), "models": ()}
        preset = next((p for p in catalogs.presets if p.name == name), None)
        if preset is not None:
            table = preset.table
        elif name.startswith((SUITE, FILE)):
            suite = self.bench.log_root / name.removeprefix(SUITE) / "plan.toml"
            file = Path(name.removeprefix(FILE)).expanduser() if name.startswith(FILE) else suite
            try:
                table = read_plan_table(file)
            except ValueError as error:
                self.notify(str(error), title="This plan cannot be read", severity="error")
                return
        keys = tuple(s.key for s in catalogs.suite)
        draft = draft_from_table(table, keys, name.removeprefix(SUITE).removeprefix(FILE))
        self.choose_engine(draft.engine or next((e.name for e in catalogs.engines), ""), draft)
        self.origin = self.draft
        self.paint()
        self._scroll_to_chosen()

    def _scroll_to_chosen(self) -> None:
        for listed, chosen in (("#subsets", self.draft.subsets), ("#models", self.draft.models)):
            grid = self.query_one(listed, Grid)
            indexes = [index for index, key in enumerate(grid.keys) if key in chosen]
            for index in (*indexes[-1:], *indexes[:1]):  # all of them in view if they fit
                grid.cursor = index

    def choose_engine(self, name: str, base: PlanDraft | None = None) -> None:
        """Set the engine of the draft, or of `base`; settings that it does not have are dropped."""
        draft = base or self.draft
        engine = (self.catalogs or Catalogs()).engine(name)
        if engine is None:
            self.change(replace(draft, engine=name))
            return
        other = name != draft.engine
        names = {s.name for s in engine.settings}
        task = draft.task if draft.task in engine.tasks else engine.tasks[0]
        kept = {k: v for k, v in draft.settings.items() if not other or k in names}
        more = () if other and draft.engine else draft.more_engines
        self.change(
            replace(
                draft, engine=name, more_engines=more, task=task,
                needs_data=engine.needs_data, settings=kept,
            )
        )  # fmt: skip

    # --  painting --------------- -----------------------------------------------------------

    def change(self, draft: PlanDraft) -> None:
        """Set a new draft: paint it now, check it after `CHECK_SECONDS`."""
        if draft != self.draft:
            self.push_undo()
        before, self.draft = self.draft.settings.get("data_root"), draft
        root = draft.settings.get("data_root")
        if root != before and self.catalogs is not None:
            self._read_subsets(self.catalogs, str(root or ""))
        self.paint()
        if self._check_timer is not None:
            self._check_timer.stop()
        self._check_timer = self.set_timer(CHECK_SECONDS, self._check)

    def paint(self) -> None:
        """Show the draft."""
        catalogs, draft = self.catalogs or Catalogs(), self.draft
        changes = plan_rows.count_words(draft.count_changes(self.origin), "change")
        origin = draft.preset or "an empty plan"
        self.query_one("#pick-preset", Pick).value = (
            origin if changes.startswith("0") else f"{origin}, {changes}"
        )
        engine = catalogs.engine(draft.engine)
        self.query_one("#pick-engine", Pick).value = (
            ", ".join((draft.engine, *draft.more_engines)) or "none"
        )
        panels.paint_choices(self, catalogs, draft, self.shown_lists)
        self._show_description(self.query_one(f"#{self._focused_list}", Grid))
        settings = catalogs.suite
        suite = {s.name: draft.suite[s.key] for s in settings if s.key in draft.suite}
        values = {**suite, **draft.settings}
        if engine is not None:
            settings = (*settings, *engine.task_settings, *engine.settings)
            values |= {"task": draft.task} if draft.task != engine.tasks[0] else {}
        self.query_one(SettingsForm).show(settings, values, catalogs.model_defaults(draft.models))
        changed = len(draft.suite) + len(draft.settings)
        heading = self.query_one("#settings-heading", Heading)
        heading.remark = f"{changed} changed" if changed else "all defaults"

    @work(thread=True, exclusive=True, group="check")
    def _check(self) -> None:
        draft, earlier = self.draft, self._earlier
        if earlier is not None:
            preview = check_draft(draft, self.bench.cache_root, self.bench.log_root, earlier)
            self.post_message(Checked(draft, preview))

    @on(Checked)
    def _show_check(self, event: Checked) -> None:
        if event.draft is self.draft:  # else a newer check is running
            self.preview, self.checked_draft = event.preview, event.draft
            self.keep_draft()
            self.show_preview()
            self.ask_pending_start()

    def show_preview(self) -> None:
        """Show runs, costs, command and plan file."""
        preview = self.preview
        if preview is None:
            return
        panels.paint_runs(self, preview)
        panels.paint_costs(self, preview, keep=self.keep, after=self.after)
        arguments = self.command()
        command = f" $ {cli_commands.command_line(arguments)}" if arguments else ""
        self.query_one("#plan-command", Static).update(Text(command))
        self.query_one(PlanFileView).show(preview.toml)
        self._show_summary()
        self.update_footer()

    def _show_summary(self) -> None:
        text, failed = plan_rows.describe_preview(self.preview)
        line = self.query_one("#verdict", Static)
        line.set_class(failed, "failed")
        line.update(Text(text))
        button = self.query_one("#start", Button)
        button.disabled = failed or self.starting or not self.preview or not self.preview.runs
        count = matrix.count_open(self.preview.runs, keep=self.keep) if self.preview else 0
        runs = plan_rows.count_words(count, "run")
        label = f"F5  Start {runs}" if count else "F5  Start" if failed else "all is done"
        button.label = Text("Starting …" if self.starting else label)
        button.refresh(layout=True)

    def _describe_earlier(self, name: str) -> str:
        runs = self._earlier.runs if self._earlier is not None else ()
        return costs.describe_values(self.draft.engine, name, runs)

    # -- choices ---------- --------------------------------------------------------------

    @on(Grid.Toggled, "#subsets")
    @on(Grid.Chosen, "#subsets")
    @on(Grid.Toggled, "#models")
    @on(Grid.Chosen, "#models")
    def _toggle(self, event: Grid.Moved) -> None:
        key, name = event.grid.key, event.grid.id or ""
        if fold := choices.fold_name(key):
            self.opened[name] ^= {fold}
            self.remember_layout()
            self.paint()
        elif key:
            subsets = name == "subsets"
            self.change(self.draft.toggle_subset(key) if subsets else self.draft.toggle_model(key))

    @on(Grid.Chosen, "#runs")
    def _open_problems(self) -> None:
        """Show all problems whole, with the remedies in them."""
        if self.preview and self.preview.problems:
            text = "\n\n".join(self.preview.problems)
            self.app.push_screen(MessageDialog("Problems of this plan", text))

    @on(Grid.Moved, "#runs")
    def _moved_run(self) -> None:
        self.update_footer()

    @on(Grid.Moved, "#subsets")
    @on(Grid.Moved, "#models")
    def _moved(self, event: Grid.Moved) -> None:
        if event.grid.id == self._focused_list:
            self._show_description(event.grid)
        self.update_footer()

    def on_descendant_focus(self) -> None:
        """Describe the current entry of the list that has the focus."""
        if isinstance(self.focused, Grid) and self.focused.id in ("subsets", "models"):
            self._focused_list = self.focused.id
            self._show_description(self.focused)
        self.update_footer()

    def _show_description(self, grid: Grid) -> None:
        text, failed = plan_rows.describe_entry(
            self.catalogs or Catalogs(), grid.id or "", grid.key
        )
        line = self.query_one("#choice-about", Static)
        line.set_class(failed, "failed")
        line.update(Text(text))

    @on(SettingsForm.Changed)
    def _setting_changed(self, event: SettingsForm.Changed) -> None:
        setting = event.setting
        if setting.name == "task":
            self.change(replace(self.draft, task=str(event.value)))
            return
        of_suite = any(s.name == setting.name for s in (self.catalogs or Catalogs()).suite)
        values: dict[str, Any] = dict(self.draft.suite if of_suite else self.draft.settings)
        values.pop(setting.key, None)
        if not event.is_default:
            values[setting.key] = event.value
        if of_suite:
            self.change(replace(self.draft, suite=values))
        else:
            self.change(replace(self.draft, settings=values))

    @on(SettingsForm.ChoiceRequested)
    def _open_choice(self, event: SettingsForm.ChoiceRequested) -> None:
        ask_choice(self.app, self.query_one("#settings", SettingsForm), event.setting, event.value)
