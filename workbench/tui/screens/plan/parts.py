"""Forms of the parts of a plan that are tables: variants, stages, overrides, exclusions, search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from workbench.tui.screens.dialogs import ChoiceDialog
from workbench.tui.view_models import plan_rows
from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow
from workbench.tui.view_models.form_fields import Setting
from workbench.tui.view_models.plan import parts
from workbench.tui.widgets.find_input import FindInput
from workbench.tui.widgets.form import SettingsForm
from workbench.tui.widgets.grid import Grid

if TYPE_CHECKING:
    from workbench.tui.view_models.catalog import EngineEntry

COLUMNS: Final = (
    GridColumn("name", "", 14, grow=26, rank=0),
    GridColumn("values", "", 24, grow=80, rank=1),
)


def ask_choice(app: App[Any], form: SettingsForm, setting: Setting, value: Any) -> None:
    """Open the choices of a setting of a form."""

    def on_choice(chosen: str | None) -> None:
        if chosen is not None:
            form.set_value(setting, chosen)

    rows = [(choice,) for choice in setting.choices]
    columns = (replace(plan_rows.NAMES, width=24),)
    here = str(value or "")
    dialog = ChoiceDialog(setting.name, columns, rows, setting.choices, here=here)
    app.push_screen(dialog, on_choice)


def edit_parts(
    app: App[Any],
    setting: Setting,
    value: Any,
    engine: EngineEntry | None,
    on_change: Callable[[Any], object],
) -> None:
    """Open the form of a single part, or the list of parts; `on_change` gets each new value."""
    fields = parts.list_fields(setting, engine.settings if engine else ())
    if not parts.is_single(setting):
        app.push_screen(PartsDialog(setting, fields, value or (), on_change))
        return

    def on_values(values: dict[str, Any] | None) -> None:
        if values is not None:
            on_change(parts.build_part(setting, values) or None)

    values = parts.flatten_part(setting, value or {})
    app.push_screen(PartForm(setting.name, setting.about, fields, values), on_values)


class PartForm(ModalScreen[dict[str, Any]]):
    """Form of one part; the result is the values of its fields."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "find", "Find", key_display="/"),
        Binding("escape", "leave", "Back"),
    ]

    def __init__(
        self, title: str, about: str, fields: Sequence[Setting], values: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self._title, self._about = title, about
        self._fields, self._values = fields, dict(values)

    def compose(self) -> ComposeResult:
        """Title, description, form, keys."""
        with Vertical(classes="dialog wide tall"):
            yield Static(Text(self._title), classes="dialog-title")
            yield Static(Text(self._about), classes="dialog-text")
            yield SettingsForm(id="part")
            yield FindInput(id="part-find")
            keys = "Enter edits · Backspace unsets · / finds · Esc keeps it and goes back"
            yield Static(Text(keys), classes="dialog-keys")

    def on_mount(self) -> None:
        """Show the values, the part's own fields open."""
        form = self.query_one(SettingsForm)
        form.show(self._fields, self._values)
        if self._fields:
            form.reveal(self._fields[0].name)
        form.query_one(Grid).focus()

    @on(SettingsForm.Changed)
    def _store(self, event: SettingsForm.Changed) -> None:
        if event.is_default:
            self._values.pop(event.setting.name, None)
        else:
            self._values[event.setting.name] = event.value

    @on(SettingsForm.ChoiceRequested)
    def _choose(self, event: SettingsForm.ChoiceRequested) -> None:
        ask_choice(self.app, self.query_one(SettingsForm), event.setting, event.value)

    def action_find(self) -> None:
        """Find words in names and descriptions of the fields."""
        self.add_class("finding")
        self.query_one(FindInput).open("", ())

    @on(FindInput.Changed, "#part-find")
    def _find_words(self, event: FindInput.Changed) -> None:
        self.query_one(SettingsForm).search(event.value)

    @on(FindInput.Submitted, "#part-find")
    def _leave_find(self) -> None:
        self.remove_class("finding")
        self.query_one(SettingsForm).query_one(Grid).focus()

    def action_leave(self) -> None:
        """Leave the search; else close with the values."""
        find = self.query_one(FindInput)
        if self.has_class("finding") or find.value:
            find.value = ""
            self._leave_find()
            return
        self.dismiss(self._values)


class PartsDialog(ModalScreen[None]):
    """List of the parts of one kind: add, edit, remove, reorder."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "add", "Add"),
        Binding("backspace,delete", "remove", "Remove"),
        Binding("K", "move(-1)", "Up"),
        Binding("J", "move(1)", "Down"),
        Binding("escape,q", "leave", "Back"),
    ]

    def __init__(
        self,
        setting: Setting,
        fields: Sequence[Setting],
        value: Sequence[Mapping[str, Any]],
        on_change: Callable[[list[dict[str, Any]]], object],
    ) -> None:
        super().__init__()
        self._setting, self._fields = setting, fields
        self._parts = [dict(part) for part in value]
        self._on_change = on_change

    def compose(self) -> ComposeResult:
        """Title, description, list, keys."""
        with Vertical(classes="dialog wide"):
            yield Static(Text(self._setting.name), classes="dialog-title")
            yield Static(Text(self._setting.about), classes="dialog-text")
            yield Grid(COLUMNS, header=False, notice="None yet: a adds one.", id="parts")
            keys = "a adds · Enter edits · Backspace removes · K J reorder · Esc goes back"
            yield Static(Text(keys), classes="dialog-keys")

    def on_mount(self) -> None:
        """Show the parts."""
        self._paint()
        self.query_one(Grid).focus()

    def _paint(self) -> None:
        rows: list[GridRow] = []
        for part in self._parts:
            name, values = parts.describe_part(self._setting, part)
            rows.append((name or values, GridCell(values if name else "", "dim")))
        grid = self.query_one(Grid)
        grid.styles.height = max(1, len(rows))
        if rows:
            grid.show(rows, [str(number) for number in range(len(rows))])
        else:
            grid.show_notice("None yet: a adds one.")

    def _change(self) -> None:
        self._paint()
        self._on_change([dict(part) for part in self._parts])

    def action_add(self) -> None:
        """Add a part and open its form."""
        number = len(self._parts) + 1
        labels = [f.name for f in self._fields if f.name in ("label", "name")][:1]
        part = {name: f"{self._setting.key.removesuffix('s')} {number}" for name in labels}
        self._edit(len(self._parts), part)

    @on(Grid.Chosen, "#parts")
    def _edit_chosen(self, event: Grid.Chosen) -> None:
        self._edit(event.grid.cursor, self._parts[event.grid.cursor])

    def _edit(self, at: int, part: Mapping[str, Any]) -> None:
        def on_values(values: dict[str, Any] | None) -> None:
            if values:
                self._parts[at : at + 1] = [parts.build_part(self._setting, values)]
                self._change()
                self.query_one(Grid).cursor = at

        title = f"{self._setting.key} {at + 1}"
        values = parts.flatten_part(self._setting, part)
        form = PartForm(title, self._setting.about, self._fields, values)
        self.app.push_screen(form, on_values)

    def action_remove(self) -> None:
        """Remove the part under the cursor."""
        if self._parts:
            del self._parts[self.query_one(Grid).cursor]
            self._change()

    def action_move(self, by: int) -> None:
        """Move the part under the cursor up or down."""
        grid = self.query_one(Grid)
        at = grid.cursor
        if self._parts and 0 <= at + by < len(self._parts):
            self._parts.insert(at + by, self._parts.pop(at))
            self._change()
            grid.cursor = at + by

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)
