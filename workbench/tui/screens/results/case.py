"""Case screen: one item that two compared runs answered, with its pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from workbench.tui.screens.results.case_sources import CaseSources
from workbench.tui.view_models.results import cases, comparison
from workbench.tui.widgets.case_view import CaseView
from workbench.tui.widgets.footer import Footer
from workbench.tui.widgets.top_bar import Heading

if TYPE_CHECKING:
    from workbench.tui.app import WorkbenchApp
    from workbench.tui.view_models.results.comparison import PairComparison


class CaseScreen(ModalScreen[int]):
    """Shows what both runs answered; the result is the row of the last item shown."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n,right", "turn(1)", "Next"),
        Binding("p,left", "turn(-1)", "Previous"),
        Binding("d,enter", "record", "Record in Data"),
        Binding("escape,q", "leave", "Back"),
    ]

    def __init__(self, pair: PairComparison, row: int, sources: CaseSources) -> None:
        super().__init__()
        self._pair, self._row, self._sources = pair, row, sources

    @property
    def _cases(self) -> list[dict[str, object]]:
        return list((self._pair.cases or {}).get("cases", ()))

    @property
    def _subset(self) -> str:
        return str((self._pair.cases or {}).get("subset", ""))

    def compose(self) -> ComposeResult:
        """Heading and item."""
        yield Heading("Case", id="case-heading")
        yield CaseView(id="case")
        yield Footer()

    def on_mount(self) -> None:
        """Show the item."""
        self.query_one(".case-scroll").focus()
        self._show()

    @work(exclusive=True, group="case")
    async def _show(self) -> None:
        rows = range(self._row, min(self._row + 3, len(self._cases)))
        sides = [comparison.case_sides(self._pair, row) for row in rows]
        kind = comparison.describe_kind(self._pair, self._row)
        self.query_one(Heading).remark = f"{kind} · {self._row + 1} of {len(self._cases)}"
        if self._sources.find(self._subset, sides[0]) is None:
            await self._draw(sides[0], cases.CaseSource())
            await self._sources.read(self._subset, sides)
        source = self._sources.find(self._subset, sides[0])
        await self._draw(sides[0], source or cases.CaseSource())

    async def _draw(
        self, sides: tuple[cases.CaseSide, cases.CaseSide], source: cases.CaseSource
    ) -> None:
        item = cases.describe_item(sides[0], source)
        if self._sources.trouble:
            item.append(cases.CaseLine("record", self._sources.trouble, "bad"))
        answers = [cases.describe_side(side, source) for side in sides]
        await self.query_one(CaseView).show(item, answers, cases.list_pictures(sides, source))

    def action_turn(self, by: int) -> None:
        """Show the next or the previous item."""
        row = max(0, min(self._row + by, len(self._cases) - 1))
        if row != self._row:
            self._row = row
            self._show()

    def action_record(self) -> None:
        """Show the item's record on the Data screen."""
        item = str(self._cases[self._row]["id"])
        cast("WorkbenchApp", self.app).show_record(self._subset, item)

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(self._row)
