"""Dialogs of the Results screen: columns, metric, saved views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from results.listing.views import ResultView, read_views, write_views
from results.text import formats
from workbench.tui.screens.dialogs import ChoiceDialog, TextDialog
from workbench.tui.view_models.cells import GridCell, GridColumn
from workbench.tui.view_models.results.columns import DEFAULTS, list_columns
from workbench.tui.widgets.grid import Grid

if TYPE_CHECKING:
    from textual.app import App

    from workbench.tui.view_models.results.rows import RunBatch

CHOICES: Final = (GridColumn("name", "", 30, grow=20), GridColumn("remark", "", 20, grow=10))
FURTHER: Final = ("task", "run")
HEADLINE: Final = "each run's own"
SAVE: Final = "save this one …"


class ColumnsDialog(ModalScreen[tuple[str, ...] | None]):
    """Choice and order of columns; the result is their keys, empty for the default ones."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("K,shift+up", "move_column(-1)", "Up"),
        Binding("J,shift+down", "move_column(1)", "Down"),
        Binding("d", "reset", "Default ones"),
        Binding("escape,q", "leave", "Back"),
    ]

    def __init__(self, shown: Sequence[str], names: Sequence[str]) -> None:
        """`shown`: keys of the present columns; `names`: settings and metrics that runs have."""
        super().__init__()
        self._chosen = list(shown)
        self._keys = list(dict.fromkeys((*shown, *DEFAULTS, *FURTHER, *names)))

    def compose(self) -> ComposeResult:
        """Title, list, keys."""
        columns = (
            GridColumn("mark", "", 1),
            GridColumn("name", "", 24, grow=20),
            GridColumn("title", "", 22, grow=20),
        )
        with Vertical(classes="dialog wide"):
            yield Static(
                Text("Columns: the first ones stay where room is short"), classes="dialog-title"
            )
            yield Grid(columns, header=False, id="choices")
            keys = (
                "Space takes or leaves · K J order · Enter keeps · d default ones · Esc goes back"
            )
            yield Static(Text(keys), classes="dialog-keys")

    def on_mount(self) -> None:
        """Show the columns."""
        grid = self.query_one(Grid)
        grid.styles.height = min(16, len(self._keys))
        grid.focus()
        self._paint()

    def _paint(self) -> None:
        titles = (column.grid.title for column in list_columns(self._keys))
        rows = [
            (
                GridCell("●" if key in self._chosen else "○", "accent"),
                key,
                GridCell(title if title != key else "", "dim"),
            )
            for key, title in zip(self._keys, titles, strict=True)
        ]
        self.query_one(Grid).show(rows, self._keys)

    @on(Grid.Toggled)
    def _toggled(self, event: Grid.Toggled) -> None:
        key = self._keys[event.row]
        if key in self._chosen:
            self._chosen.remove(key)
        else:
            self._chosen.append(key)
        self._paint()

    def action_move_column(self, by: int) -> None:
        """Move the column under the cursor up or down."""
        at = self.query_one(Grid).cursor
        if 0 <= at + by < len(self._keys):
            self._keys[at], self._keys[at + by] = self._keys[at + by], self._keys[at]
            self._paint()

    @on(Grid.Chosen)
    def _keep(self) -> None:
        self.dismiss(tuple(key for key in self._keys if key in self._chosen))

    def action_reset(self) -> None:
        """Choose the default columns."""
        self.dismiss(())

    def action_leave(self) -> None:
        """Close without a change."""
        self.dismiss(None)


def choose_metric(
    app: App[None], batch: RunBatch, current: str, on_choice: Callable[[str], None]
) -> None:
    """Ask for the metric and split that the score is."""
    counts: dict[str, int] = {}
    for run in batch.runs:
        for metric in run.summary.metrics:
            counts[metric.key] = counts.get(metric.key, 0) + 1
    keys = ["", *sorted(counts, key=lambda key: -counts[key])]
    rows = [(HEADLINE, "")]
    for key in keys[1:]:
        name, _, split = key.rpartition("@")
        rows.append((f"{name} on {split}", formats.count_noun(counts[key], "run")))

    def on_key(key: str | None) -> None:
        if key is not None:
            on_choice(key)

    app.push_screen(ChoiceDialog("Metric of the score", CHOICES, rows, keys, here=current), on_key)


def choose_view(
    app: App[None], path: Path, current: ResultView, on_choice: Callable[[ResultView], None]
) -> None:
    """Ask for a saved view, or a name to save the current one; `path`: file of the views."""
    try:
        views = read_views(path)
    except (OSError, ValueError) as error:
        app.notify(str(error), title="No views", severity="error")
        return
    names = [*views, SAVE]
    rows = [(name, views[name].filter) for name in views] + [(SAVE, "")]

    def save(name: str | None) -> None:
        if not name:
            return
        try:
            write_views(path, {**views, name: current})
        except OSError as error:
            app.notify(f"{path}: {error.strerror}", title="Not saved", severity="error")
            return
        app.notify(f"workbench results list --view {name}", title="View saved; as a command")

    def on_name(name: str | None) -> None:
        if name == SAVE:
            app.push_screen(TextDialog("Name of the view", "such as: weekly"), save)
        elif name is not None:
            on_choice(views[name])

    app.push_screen(ChoiceDialog("Views", CHOICES, rows, names), on_name)
