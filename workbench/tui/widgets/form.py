"""Settings form: a list of settings, an editor line, and a description of the current setting.

One list instead of forty input boxes: it is one stop of the Tab key and fits into 24 lines. Space
or Enter opens a group, toggles a switch, opens the choices, or edits a value in the line below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import on
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, Static

from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow
from workbench.tui.view_models.form_fields import (
    Setting,
    SettingError,
    format_value,
    is_default_value,
    next_value,
    parse_value,
)
from workbench.tui.view_models.plan import groups, parts
from workbench.tui.widgets.grid import Grid

COLUMNS: Final = (
    GridColumn("name", "setting", 16, grow=12, rank=0),
    GridColumn("value", "value", 12, grow=14, rank=1, right=True),
    GridColumn("limits", "", 15, grow=2, rank=2),
)
CHANGED: Final = "•"


class SettingsForm(Vertical):
    """List of settings with an editor; posts `Changed` and `ChoiceRequested`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("backspace,delete", "reset", "Default", show=False),
        Binding("escape", "cancel", "Cancel", show=False),
    ]

    class Changed(Message):
        """A setting has a new value; `is_default`: the plan need not contain it."""

        def __init__(self, setting: Setting, value: Any, *, is_default: bool) -> None:
            super().__init__()
            self.setting, self.value, self.is_default = setting, value, is_default

    class ChoiceRequested(Message):
        """The list of choices of a setting is to be opened."""

        def __init__(self, setting: Setting, value: Any) -> None:
            super().__init__()
            self.setting, self.value = setting, value

    class GroupsChanged(Message):
        """A group was opened or closed."""

    class PartsRequested(Message):
        """The parts of a setting that is a table, or a list of tables, are to be opened."""

        def __init__(self, setting: Setting, value: Any) -> None:
            super().__init__()
            self.setting, self.value = setting, value

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._settings: tuple[Setting, ...] = ()
        self._values: dict[str, Any] = {}
        self._model_defaults: Mapping[str, Mapping[str, Any]] = {}
        self._editing: Setting | None = None
        self.opened = {groups.OFTEN}
        """Titles of the groups that are open."""
        self._search = ""
        self.describe_earlier: Callable[[str], str] = lambda _: ""
        """Name of a setting -> earlier values with their results."""

    def compose(self) -> ComposeResult:
        """List, description, editor."""
        with Container(id="settings-main"):
            yield Grid(COLUMNS, header=False, notice="Loading settings …", id="settings-grid")
            yield Static("", id="settings-about")
        with Horizontal(id="settings-editor"):
            yield Static("", id="settings-prompt")
            yield Input(compact=True, id="settings-input")

    def show(
        self,
        settings: Sequence[Setting],
        values: Mapping[str, Any],
        model_defaults: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Show these settings; `values` has those that differ from the default.

        `model_defaults`: setting -> model -> default of this model.
        """
        self._settings, self._values = tuple(settings), dict(values)
        self._model_defaults = model_defaults or {}
        self._paint()
        if not self._editing:
            self._show_description()

    def _paint(self) -> None:
        """Show the groups, or what the search finds in all of them."""
        grid = self.query_one(Grid)
        rows: list[GridRow] = []
        keys: list[str] = []
        if self._search:
            fitting = groups.search_settings(self._settings, self._search)
            rows, keys = [self._row(s) for s in fitting], [s.name for s in fitting]
        else:
            for group in groups.group_settings(self._settings, self._values, self.opened):
                is_open = group.title in self.opened
                count = "" if is_open else f" {len(group.settings)}"
                rows.append((GridCell(f"{'▾' if is_open else '▸'} {group.title}{count}", "dim"),))
                keys.append(group.key)
                if is_open:
                    rows += [self._row(setting) for setting in group.settings]
                    keys += [setting.name for setting in group.settings]
        if rows or not self._search:
            grid.show(rows, keys)
        else:
            grid.show_notice("No setting has all these words; Esc clears the search.")

    def search(self, text: str) -> None:
        """Show the settings that have all words of the text; empty: the groups."""
        self._search = text.strip()
        self._paint()
        self.query_one(Grid).cursor = 0
        self._show_description()

    def reveal(self, name: str) -> None:
        """Open the group of a setting and place the cursor on it."""
        grid = self.query_one(Grid)
        if name not in grid.keys:
            setting = next((s for s in self._settings if s.name == name), None)
            self.opened.add((setting.group if setting else "") or groups.PLAN)
            self._search = ""
            self._paint()
        if name in grid.keys:
            grid.cursor = list(grid.keys).index(name)

    def focus_list(self) -> None:
        """Focus the list, its cursor on a setting."""
        grid = self.query_one(Grid)
        if groups.heading_title(grid.key or ""):
            grid.cursor = min(1, len(grid.keys) - 1)
        grid.focus()
        self._show_description()

    def value(self, setting: Setting) -> Any:
        """Current value; the engine's default if models have different defaults."""
        model_defaults = list(self._model_defaults.get(setting.name, {}).values())
        common = (
            model_defaults[0]
            if model_defaults and model_defaults.count(model_defaults[0]) == len(model_defaults)
            else None
        )
        default = setting.default if common is None else common
        return self._values.get(setting.name, default)

    def set_value(self, setting: Setting, value: Any) -> None:
        """Set a value and post `Changed`."""
        is_default = setting.name not in self._model_defaults and is_default_value(setting, value)
        self._change(setting, value, is_default=is_default)

    def _change(self, setting: Setting, value: Any, *, is_default: bool) -> None:
        if is_default:
            self._values.pop(setting.name, None)
        else:
            self._values[setting.name] = value
        self.show(self._settings, self._values, self._model_defaults)
        self.post_message(self.Changed(setting, value, is_default=is_default))

    @property
    def current(self) -> Setting | None:
        """The setting under the cursor."""
        key = self.query_one(Grid).key
        return next((s for s in self._settings if s.name == key), None)

    def _row(self, setting: Setting) -> GridRow:
        value, changed = self.value(setting), setting.name in self._values
        mark = CHANGED if changed else " "
        name = GridCell(f"{mark} {setting.name}", "strong" if changed else "")
        tone = "accent" if changed else ("dim" if value in (None, "", [], ()) else "")
        limits = "" if setting.kind == "switch" else setting.limits
        shown = _format_field(setting, value)
        if (
            not changed
            and len({str(v) for v in self._model_defaults.get(setting.name, {}).values()}) > 1
        ):
            shown, tone = "by model", "dim"
        return name, GridCell(shown, tone), GridCell(limits, "dim")

    # -- editing ---------------------------------------------------------------------------

    @on(Grid.Chosen)
    @on(Grid.Toggled)
    def _open(self, event: Grid.Moved) -> None:
        event.stop()
        if title := groups.heading_title(event.grid.key or ""):
            self.opened ^= {title}
            self._paint()
            self.post_message(self.GroupsChanged())
            return
        setting = self.current
        if setting is None or (setting.kind == "other" and not setting.parts):
            return
        if setting.kind == "other":
            self.post_message(self.PartsRequested(setting, self.value(setting)))
        elif setting.kind == "switch":
            self.set_value(setting, next_value(setting, self.value(setting)))
        elif setting.kind == "choice":
            self.post_message(self.ChoiceRequested(setting, self.value(setting)))
        else:
            self._edit(setting)

    def _edit(self, setting: Setting) -> None:
        self._editing = setting
        self.add_class("editing")
        self.query_one("#settings-prompt", Static).update(Text(f" {setting.name} › "))
        field = self.query_one(Input)
        field.value = format_value(self.value(setting))
        field.cursor_position = len(field.value)
        field.focus()
        self._show_description()

    @on(Input.Submitted)
    def _store_input(self, event: Input.Submitted) -> None:
        event.stop()
        setting = self._editing
        if setting is None:
            return
        try:
            value = parse_value(setting, event.value)
        except SettingError as error:
            self._show_sentence(str(error), failed=True)
            return
        self._leave()
        self.set_value(setting, value)

    @on(Input.Changed)
    def _forgive(self, event: Input.Changed) -> None:
        event.stop()
        self._show_description()

    def action_cancel(self) -> None:
        """Leave the editor without a change."""
        if not self._editing:
            raise SkipAction  # the screen may have a search to leave
        self._leave()

    def _leave(self) -> None:
        self._editing = None
        self.remove_class("editing")
        self.query_one(Grid).focus()
        self._show_description()

    def action_reset(self) -> None:
        """Back to the default."""
        setting = self.current
        if setting is not None and not self._editing and setting.name in self._values:
            self._change(setting, setting.default, is_default=True)

    # -- the sentence ----------------------------------------------------------------------

    @on(Grid.Moved)
    def _moved(self, event: Grid.Moved) -> None:
        event.stop()
        if not self._editing:
            self._show_description()

    def _show_description(self) -> None:
        setting = self._editing or self.current
        if setting is None:
            title = groups.heading_title(self.query_one(Grid).key or "")
            self._show_sentence("Enter opens or closes the group." if title else "")
            return
        default = format_value(setting.default) or "not set"
        tail = "" if setting.required else f" Default: {default}."
        if by := self._model_defaults.get(setting.name):
            tail = f" By model: {', '.join(f'{m} {format_value(v)}' for m, v in by.items())}."
        about = setting.about.rstrip(".")
        text = f"{about}.{tail}" if about else tail.strip()
        limits = f" Limits: {setting.limits}." if setting.limits else ""
        earlier = self.describe_earlier(setting.name)
        self._show_sentence(f"{text}{limits}" + (f"\n{earlier}" if earlier else ""))

    def _show_sentence(self, text: str, *, failed: bool = False) -> None:
        line = self.query_one("#settings-about", Static)
        line.set_class(failed, "failed")
        line.update(Text(text))


def _format_field(setting: Setting, value: Any) -> str:
    if value in setting.words:
        return format_value(value)
    if setting.kind == "switch":
        return "on" if value else "off"
    if setting.kind == "choice":
        return f"{format_value(value) or 'not set'} ▾"
    if setting.kind == "other":
        return f"{parts.describe_parts(setting, value)} ▾" if setting.parts else "in the plan file"
    return format_value(value) or "not set"
