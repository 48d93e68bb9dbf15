"""The settings as one list: a cursor, a value to edit, and one sentence about the setting.

A list and not forty input boxes: it is one stop of the Tab key, values stand in one column, and it
fits 24 lines. Space or Enter turns a switch, opens the choices, or edits a value in the line below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, Static

from workbench.tui.view_models.cells import Cell, Column, Row
from workbench.tui.view_models.form_fields import Setting, SettingError, read, same, turned, write
from workbench.tui.widgets.grid import Grid

COLUMNS: Final = (
    Column("name", "setting", 16, grow=12, rank=0),
    Column("value", "value", 12, grow=14, rank=1, right=True),
    Column("limits", "", 9, grow=8, rank=2),
)
CHANGED: Final = "•"


class SettingsForm(Vertical):
    """Shows settings and posts what a person made of them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("backspace,delete", "reset", "Default", show=False),
        Binding("escape", "cancel", "Cancel", show=False),
    ]

    class Changed(Message):
        """A setting has a new value; `value` equal to the default means it need not be named."""

        def __init__(self, setting: Setting, value: Any, *, is_default: bool) -> None:
            super().__init__()
            self.setting, self.value, self.is_default = setting, value, is_default

    class ChoiceWanted(Message):
        """A list of choices should be opened."""

        def __init__(self, setting: Setting, value: Any) -> None:
            super().__init__()
            self.setting, self.value = setting, value

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._settings: tuple[Setting, ...] = ()
        self._values: dict[str, Any] = {}
        self._brought: Mapping[str, Mapping[str, Any]] = {}
        self._editing: Setting | None = None

    def compose(self) -> ComposeResult:
        """List, sentence, editor."""
        yield Grid(COLUMNS, header=False, notice="Loading settings …", id="settings-grid")
        yield Static("", id="settings-about")
        with Horizontal(id="settings-editor"):
            yield Static("", id="settings-prompt")
            yield Input(compact=True, id="settings-input")

    def show(
        self,
        settings: Sequence[Setting],
        values: Mapping[str, Any],
        brought: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Show these settings; `values` holds those that a person named.

        `brought` has, for a setting, the defaults that models bring along, by model.
        """
        self._settings, self._values = tuple(settings), dict(values)
        self._brought = brought or {}
        rows = [self._row(s) for s in self._settings]
        self.query_one(Grid).show(rows, [s.name for s in self._settings])
        if not self._editing:
            self._about()

    def value(self, setting: Setting) -> Any:
        """The value now; where models bring different ones, the engine's own default."""
        brought = list(self._brought.get(setting.name, {}).values())
        common = brought[0] if brought and brought.count(brought[0]) == len(brought) else None
        default = setting.default if common is None else common
        return self._values.get(setting.name, default)

    def put(self, setting: Setting, value: Any) -> None:
        """Take over a value and tell the screen."""
        is_default = setting.name not in self._brought and same(setting, value)
        self._change(setting, value, is_default=is_default)

    def _change(self, setting: Setting, value: Any, *, is_default: bool) -> None:
        if is_default:
            self._values.pop(setting.name, None)
        else:
            self._values[setting.name] = value
        self.show(self._settings, self._values, self._brought)
        self.post_message(self.Changed(setting, value, is_default=is_default))

    @property
    def current(self) -> Setting | None:
        """The setting under the cursor."""
        key = self.query_one(Grid).key
        return next((s for s in self._settings if s.name == key), None)

    def _row(self, setting: Setting) -> Row:
        value, changed = self.value(setting), setting.name in self._values
        mark = CHANGED if changed else " "
        name = Cell(f"{mark} {setting.name}", "strong" if changed else "")
        tone = "accent" if changed else ("dim" if value in (None, "", [], ()) else "")
        limits = "" if setting.kind == "switch" else setting.limits
        shown = _shown(setting, value)
        if not changed and len({str(v) for v in self._brought.get(setting.name, {}).values()}) > 1:
            shown, tone = "by model", "dim"
        return name, Cell(shown, tone), Cell(limits, "dim")

    # -- editing ---------------------------------------------------------------------------

    @on(Grid.Chosen)
    @on(Grid.Toggled)
    def _open(self, event: Grid.Moved) -> None:
        event.stop()
        setting = self.current
        if setting is None or setting.kind == "other":
            return
        if setting.kind == "switch":
            self.put(setting, turned(setting, self.value(setting)))
        elif setting.kind == "choice":
            self.post_message(self.ChoiceWanted(setting, self.value(setting)))
        else:
            self._edit(setting)

    def _edit(self, setting: Setting) -> None:
        self._editing = setting
        self.add_class("editing")
        self.query_one("#settings-prompt", Static).update(Text(f" {setting.name} › "))
        field = self.query_one(Input)
        field.value = write(self.value(setting))
        field.cursor_position = len(field.value)
        field.focus()
        self._about()

    @on(Input.Submitted)
    def _take(self, event: Input.Submitted) -> None:
        event.stop()
        setting = self._editing
        if setting is None:
            return
        try:
            value = read(setting, event.value)
        except SettingError as error:
            self._say(str(error), failed=True)
            return
        self._leave()
        self.put(setting, value)

    @on(Input.Changed)
    def _forgive(self, event: Input.Changed) -> None:
        event.stop()
        self._about()

    def action_cancel(self) -> None:
        """Leave the editor without a change."""
        if self._editing:
            self._leave()

    def _leave(self) -> None:
        self._editing = None
        self.remove_class("editing")
        self.query_one(Grid).focus()
        self._about()

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
            self._about()

    def _about(self) -> None:
        setting = self._editing or self.current
        if setting is None:
            self._say("")
            return
        default = write(setting.default) or "not set"
        tail = "" if setting.required else f" Default: {default}."
        if by := self._brought.get(setting.name):
            tail = f" By model: {', '.join(f'{m} {write(v)}' for m, v in by.items())}."
        about = setting.about.rstrip(".")
        self._say(f"{about}.{tail}" if about else tail.strip())

    def _say(self, text: str, *, failed: bool = False) -> None:
        line = self.query_one("#settings-about", Static)
        line.set_class(failed, "failed")
        line.update(Text(text))


def _shown(setting: Setting, value: Any) -> str:
    if value in setting.words:
        return write(value)
    if setting.kind == "switch":
        return "on" if value else "off"
    if setting.kind == "choice":
        return f"{write(value) or 'not set'} ▾"
    if setting.kind == "other":
        return "in the plan file"
    return write(value) or "not set"
