"""Predictions screen: single items of a run, the worst first, each with its record."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Final, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from results.text import formats
from results.text.sanitize import clean, clean_line
from workbench.tui.screens.copying import CopyChoice
from workbench.tui.screens.dialogs import ChoiceDialog
from workbench.tui.screens.results.case_sources import CaseSources
from workbench.tui.system import cli_commands
from workbench.tui.view_models.cells import GridColumn
from workbench.tui.view_models.results import cases
from workbench.tui.widgets.case_view import CaseView
from workbench.tui.widgets.footer import Footer
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.top_bar import Heading

if TYPE_CHECKING:
    from workbench.tui.app import WorkbenchApp

LIMIT: Final = 1_000
"""Items that are listed; the search looks at all."""
REST_SECONDS: Final = 0.15
"""The cursor rests this long before the record is read."""
READ_AHEAD: Final = 6


class PredictionsScreen(ModalScreen[None]):
    """Lists what a run answered; a text finds items among all."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "find", "Find", key_display="/"),
        Binding("m", "metric", "Metric"),
        Binding("d,enter", "record", "Record in Data"),
        Binding("n", "turn(1)", "Next"),
        Binding("p", "turn(-1)", "Previous"),
        Binding("escape,q", "leave", "Back"),
    ]

    def __init__(self, run: str) -> None:
        """`run`: `suite/id`."""
        super().__init__()
        self._run, self._metric, self._text = run, "", ""
        self._listed: cases.ListedPredictions | None = None
        self._sources: CaseSources | None = None

    @property
    def bench(self) -> WorkbenchApp:
        """The app, by its own type."""
        return cast("WorkbenchApp", self.app)

    @property
    def command(self) -> list[str]:
        """Arguments of `workbench` that print this list."""
        return cli_commands.prediction_arguments(
            self._run, self.bench.log_root, self._metric, self._text
        )

    def copy_choices(self) -> list[CopyChoice]:
        """The command, and the item's id."""
        choices = [CopyChoice("command", cli_commands.command_line(self.command))]
        side = self.side
        return choices + ([CopyChoice("item", cases.item_id(side))] if side else [])

    def compose(self) -> ComposeResult:
        """List, and the item under the cursor."""
        yield Heading(self._run.partition("/")[2], id="predictions-heading")
        yield Input(placeholder="words in the item", compact=True, id="predictions-find")
        with Container(id="predictions-body"):
            with Vertical(id="predictions-list"):
                yield Grid(cases.PREDICTIONS, notice="Reading the predictions …", id="predictions")
            yield CaseView(id="prediction")
        yield Footer()

    def on_mount(self) -> None:
        """Read the list."""
        self._sources = CaseSources(self.bench.cache_root)
        self.query_one("#predictions", Grid).focus()
        self._read()

    @property
    def side(self) -> cases.CaseSide | None:
        """The item under the cursor."""
        at = self.query_one("#predictions", Grid).cursor
        sides = self._listed.sides if self._listed else ()
        return sides[at] if 0 <= at < len(sides) else None

    @work(exclusive=True, group="predictions")
    async def _read(self) -> None:
        arguments = [*self.command, "--json", "--limit", str(LIMIT)]
        outcome = await cli_commands.run_workbench(arguments)
        grid = self.query_one("#predictions", Grid)
        if outcome.problem:
            grid.show_notice(clean(outcome.problem).splitlines()[-1], failed=True)
            return
        self._listed = listed = cases.parse_predictions(outcome.output)
        self.refresh_bindings()
        if listed is None or not listed.sides:
            none = "No metric of this run has a score of each item."
            grid.show_notice(none if listed is None else "No item has these words.")
            self.query_one(CaseView).show_notice("")
        else:
            rows = cases.prediction_rows(listed.sides)
            grid.show(rows, [str(at) for at in range(len(rows))])
            grid.cursor = 0
            self._show_item()
        self._show_heading()

    def _show_heading(self) -> None:
        listed = self._listed
        if listed is None:
            return
        parts = [clean_line(f"{listed.metric} on {listed.split}"), "worst first"]
        count = formats.count(listed.matches)
        parts.append(
            f"{count} of {formats.count(listed.total)}"
            if self._text
            else formats.count_noun(listed.matches, "item")
        )
        if listed.matches > len(listed.sides):
            parts.append(f"{formats.count(len(listed.sides))} listed")
        self.query_one(Heading).remark = " · ".join(parts)

    @on(Grid.Moved, "#predictions")
    def _moved(self) -> None:
        self._show_item()

    @work(exclusive=True, group="prediction")
    async def _show_item(self) -> None:
        side, listed, sources = self.side, self._listed, self._sources
        if side is None or listed is None or sources is None:
            return
        source = sources.find(listed.subset, [side])
        await self._draw(side, source or cases.CaseSource())
        if source is not None:
            return
        await asyncio.sleep(REST_SECONDS)
        at = self.query_one("#predictions", Grid).cursor
        ahead = listed.sides[at : at + READ_AHEAD]
        await sources.read(listed.subset, [[each] for each in ahead])
        await self._draw(side, sources.find(listed.subset, [side]) or cases.CaseSource())

    async def _draw(self, side: cases.CaseSide, source: cases.CaseSource) -> None:
        item = cases.describe_item(side, source)
        if self._sources is not None and self._sources.trouble:
            item.append(cases.CaseLine("record", self._sources.trouble, "bad"))
        answer = cases.describe_side(side, source)
        await self.query_one(CaseView).show(item, [answer], cases.list_pictures([side], source))

    # -- actions ---------------------------------------------------------------------------

    def check_action(
        self,
        action: str,
        parameters: tuple[object, ...],  # noqa: ARG002 - Textual gives them
    ) -> bool | None:
        """Without items only `leave` does anything."""
        return action == "leave" or self._listed is not None

    def action_turn(self, by: int) -> None:
        """The next or the previous item."""
        self.query_one("#predictions", Grid).action_move(by)

    def action_find(self) -> None:
        """Open the search."""
        self.add_class("finding")
        self.query_one("#predictions-find", Input).focus()

    @on(Input.Submitted, "#predictions-find")
    def _entered(self, event: Input.Submitted) -> None:
        self._text = event.value.strip()
        self.query_one("#predictions", Grid).focus()
        self.set_class(bool(self._text), "finding")
        self._read()

    def action_metric(self) -> None:
        """Choose the metric and split by which the items are listed."""
        metrics = self._listed.metrics if self._listed else ()

        def on_choice(key: str | None) -> None:
            if key is not None:
                self._metric = key
                self._read()

        columns = (GridColumn("name", "", 40, grow=20),)
        names = [(clean_line(" on ".join(key.rsplit("@", 1))),) for key in metrics]
        here = f"{self._listed.metric}@{self._listed.split}" if self._listed else ""
        self.app.push_screen(
            ChoiceDialog("Metric", columns, names, list(metrics), here=here), on_choice
        )

    @on(Grid.Chosen, "#predictions")
    def action_record(self) -> None:
        """Show the item's record on the Data screen."""
        if self.side is not None and self._listed is not None:
            self.bench.show_record(self._listed.subset, cases.item_id(self.side))

    def action_leave(self) -> None:
        """Close the search, then the screen."""
        if self.has_class("finding"):
            self.remove_class("finding")
            self.query_one("#predictions-find", Input).value = ""
            self.query_one("#predictions", Grid).focus()
            if self._text:
                self._text = ""
                self._read()
            return
        self.dismiss(None)
