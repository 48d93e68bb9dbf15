"""One item that runs answered: its pictures above, what was asked, wanted and answered below."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Static

from workbench.tui.view_models.results.cases import CaseLine, CasePicture
from workbench.tui.widgets import image
from workbench.tui.widgets.name_table import make_name_table

NAME_CELLS: Final = (12, 26)
"""Least and greatest width of the names at the left."""
MAX_PICTURES: Final = 4
BESIDE_CELLS: Final = 100
"""Width from which on the answers of two runs stand beside each other."""
BESIDE_LINES: Final = 18
"""Height below which the picture stands beside the text."""
CLASSES: Final = {"good": "case--good", "bad": "case--bad"}


class CaseView(Vertical):
    """Pictures and text; arrow keys scroll the text."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"case--good", "case--bad", "case--dim"}

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._pictures: tuple[CasePicture, ...] = ()

    def compose(self) -> ComposeResult:
        """Pictures in a row, text."""
        yield Horizontal(classes="case-pictures")
        with VerticalScroll(classes="case-scroll"):
            yield Static("", classes="case-text")

    def show_notice(self, sentence: str, *, failed: bool = False) -> None:
        """Show one sentence instead of an item."""
        text = self.query_one(".case-text", Static)
        text.set_class(failed, "failed")
        text.update(Text(sentence))

    async def show(
        self,
        item: Sequence[CaseLine],
        sides: Sequence[Sequence[CaseLine]],
        pictures: Sequence[CasePicture],
    ) -> None:
        """Show an item and what each side answered; equal pictures are not drawn again."""
        text = self.query_one(".case-text", Static)
        text.remove_class("failed")
        names = [line.name for lines in (item, *sides) for line in lines if line.tone != "head"]
        least, most = NAME_CELLS
        cells = max(least, min(most, self.size.width // 5, max(map(cell_len, names), default=0)))
        draw = partial(self._draw_lines, cells=cells)
        parts: list[RenderableType] = [draw(item)]
        if len(sides) > 1 and self.size.width >= BESIDE_CELLS:
            table = Table.grid(expand=True, padding=(0, 2, 0, 0))
            for _ in sides:
                table.add_column(ratio=1)
            table.add_row(*map(draw, sides))
            parts += [Text(), table]
        else:
            parts += [part for side in sides for part in (Text(), draw(side))]
        text.update(Group(*parts))
        beside = self.size.height < BESIDE_LINES
        self.set_class(beside, "beside")
        await self._show_pictures(tuple(pictures[: 1 if beside else MAX_PICTURES]), beside=beside)

    async def _show_pictures(self, pictures: tuple[CasePicture, ...], *, beside: bool) -> None:
        """Pictures above the text; in a low window one beside it."""
        strip, (width, height) = self.query_one(".case-pictures", Horizontal), self.size
        if beside:
            box = min(2 * (height - 1), width // 3)
            strip.styles.width, strip.styles.height = (box + 1 if pictures else 0), "1fr"
        else:
            lines = min(16, height * 2 // 5)
            # A cell is twice as high as wide, and pictures are squares.
            box = max(8, min((lines - 1) * 2, width // max(1, len(pictures)) - 1))
            strip.styles.width, strip.styles.height = "1fr", (lines if pictures else 0)
        if pictures == self._pictures:
            return
        self._pictures = pictures
        await strip.remove_children()
        for picture in pictures:
            frame = Vertical(
                Static(Text(picture.title), classes="picture-title"),
                image.make_widget(picture.file, picture.reason),
                classes="case-picture",
            )
            frame.styles.width = box
            await strip.mount(frame)

    def _draw_lines(self, lines: Sequence[CaseLine], *, cells: int) -> Table:
        dim = self.get_component_rich_style("case--dim")
        rows = []
        for line in lines:
            style = Style(bold=True) if line.tone else Style()
            if line.tone in CLASSES:
                style += self.get_component_rich_style(CLASSES[line.tone], partial=True)
            name = Text(line.name, style=Style(bold=True) if line.tone == "head" else dim)
            rows.append((name, Text(line.text, style=style)))
        return make_name_table(rows, cells)
