"""Grid: a table that renders only visible lines, so that 10,000 rows cost as much as 20.

Textual's DataTable measures and keeps every cell (10,000 rows took seconds) and repaints completely
at each update. Rows are tuples of formatted text; columns that do not fit are dropped by rank
instead of scrolled.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import ClassVar, Final

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow

GAP: Final = 2
"""Blank cells between columns."""


class Grid(ScrollView, can_focus=True):
    """Table with a row cursor; shows a notice if it has no rows."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "grid--header", "grid--cursor", "grid--blurred", "grid--dim", "grid--accent",
        "grid--error", "grid--strong", "grid--good", "grid--warn",
    }  # fmt: skip

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Up", show=False),
        Binding("down", "move(1)", "Down", show=False),
        Binding("k", "move_by_letter(-1)", "Up", show=False),
        Binding("j", "move_by_letter(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "jump(0)", "First", show=False),
        Binding("end", "jump(-1)", "Last", show=False),
        Binding("left", "move_cell(-1)", "Left", show=False),
        Binding("right", "move_cell(1)", "Right", show=False),
        Binding("enter", "choose", "Open", show=False),
        Binding("space", "mark_row", "Mark", show=False),
    ]

    cursor: reactive[int] = reactive(0, repaint=False)
    cell: reactive[int] = reactive(0, repaint=False)
    """Column of the cursor, where `by_cell`."""

    class Moved(Message):
        """The cursor moved to another row; `by_hand`: by the user, not by new rows."""

        def __init__(self, grid: Grid, row: int, *, by_hand: bool) -> None:
            super().__init__()
            self.grid, self.row, self.by_hand = grid, row, by_hand

        @property
        def control(self) -> Grid:
            """For `@on(Grid.Moved, "#id")`."""
            return self.grid

    class Chosen(Moved):
        """Enter, or a second click, on a row."""

    class Toggled(Moved):
        """Space, or a click on the first column, on a row."""

    class HeaderChosen(Message):
        """A click on a column's title."""

        def __init__(self, grid: Grid, key: str) -> None:
            super().__init__()
            self.grid, self.key = grid, key

        @property
        def control(self) -> Grid:
            """For `@on(Grid.HeaderChosen, "#id")`."""
            return self.grid

    def __init__(
        self,
        columns: Sequence[GridColumn],
        *,
        header: bool = True,
        notice: str = "",
        by_cell: bool = False,
        id: str | None = None,  # noqa: A002 - Textual's own name for it
    ) -> None:
        super().__init__(id=id)
        self.columns = tuple(columns)
        self.header = header
        self.by_cell = by_cell
        """Left and right move the cursor from cell to cell; else it is a whole row."""
        self.notice = notice
        """Text shown if there are no rows."""
        self.failed = False
        self.marked = ""
        """Key of the column that the rows are sorted by, and its arrow."""
        self.arrow = ""
        self.rows: Sequence[GridRow] = ()
        self.keys: Sequence[str] = ()

    # -- what is shown ---------------------------------------------------------------------

    def show(self, rows: Sequence[GridRow], keys: Sequence[str] | None = None) -> None:
        """Set the rows. The cursor stays on its key; only changed lines are repainted."""
        old, old_keys, held = self.rows, self.keys, self.key
        # A copy: a caller may reorder its list, and the cursor is to follow its key.
        self.rows, self.keys, self.failed = rows, list(keys or ()), False
        self._resize()
        if held is not None and held in self.keys and self.key != held:
            self.cursor = self.keys.index(held)
        self.cursor = max(0, min(self.cursor, len(rows) - 1))
        if bool(old) != bool(rows):
            self.refresh()
        else:
            self._refresh_changed(old)
        if (keys or rows) and self.key != held and list(old_keys) != list(self.keys):
            self.post_message(self.Moved(self, self.cursor, by_hand=False))

    def set_columns(self, columns: tuple[GridColumn, ...]) -> None:
        """Set the columns and repaint."""
        if columns != self.columns:
            self.columns = columns
            self.refresh()

    def show_notice(self, notice: str, *, failed: bool = False) -> None:
        """Show a sentence, wrapped, instead of rows."""
        self.notice, self.failed, self.rows, self.keys = notice, failed, (), ()
        self._resize()
        self.refresh()

    def mark_sorted(self, key: str, arrow: str) -> None:
        """Mark the column that the rows are sorted by."""
        self.marked, self.arrow = key, arrow
        self.refresh()

    @property
    def key(self) -> str | None:
        """Key of the row under the cursor."""
        return self.keys[self.cursor] if 0 <= self.cursor < len(self.keys) else None

    @property
    def column_key(self) -> str | None:
        """Key of the column under the cursor, where `by_cell`."""
        return self.columns[self.cell].key if 0 <= self.cell < len(self.columns) else None

    def _resize(self) -> None:
        self.virtual_size = Size(0, len(self.rows) + self._header_height)

    @property
    def _header_height(self) -> int:
        return 1 if self.header else 0

    def _refresh_changed(self, old: Sequence[GridRow]) -> None:
        first = self.scroll_offset.y
        for line in range(self.size.height - self._header_height):
            row = first + line
            before = old[row] if row < len(old) else None
            after = self.rows[row] if row < len(self.rows) else None
            if before != after:
                self._refresh_row(row)

    def _refresh_row(self, row: int) -> None:
        y = row - self.scroll_offset.y + self._header_height
        if self._header_height <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    # -- painting --------------------------------------------------------------------------

    def layout_columns(self, room: int) -> list[tuple[int, GridColumn, int]]:
        """Index, column and width of the columns that fit into `room` cells."""
        kept = sorted(range(len(self.columns)), key=lambda i: (self.columns[i].rank, i))
        used = -GAP
        fitting: list[int] = []
        for index in kept:
            used += self._width(self.columns[index]) + GAP
            if used > room and fitting:
                used -= self._width(self.columns[index]) + GAP
                break
            fitting.append(index)
        spare = max(0, room - used)
        total_growth = sum(self.columns[i].grow for i in fitting)
        widths = []
        for index in sorted(fitting):
            column = self.columns[index]
            more = min(column.grow, spare * column.grow // total_growth) if total_growth else 0
            widths.append((index, column, self._width(column) + more))
        return widths

    def _width(self, column: GridColumn) -> int:
        """Width of a column; the one that the rows are sorted by has room for its arrow."""
        is_marked = column.key == self.marked
        return max(column.width, cell_len(column.title) + 2) if is_marked else column.width

    def render_line(self, y: int) -> Strip:
        """One line on screen: the header, a row, the notice or nothing."""
        width = self.size.width
        blank = Strip.blank(width, self.rich_style)
        if y < self._header_height:
            return self._header_strip(width)
        row = y - self._header_height + self.scroll_offset.y
        if not self.rows:
            lines = textwrap.wrap(self.notice, max(8, width - 2))
            tone = self.get_component_rich_style("grid--error" if self.failed else "grid--dim")
            return _line(f" {lines[row]}", width, tone) if row < len(lines) else blank
        if not 0 <= row < len(self.rows):
            return blank
        return self._row_strip(row, width)

    def _header_strip(self, width: int) -> Strip:
        style = self.get_component_rich_style("grid--header")
        if not self.rows:
            return Strip.blank(width, style)
        segments = [Segment(" ", style)]
        for number, (_, column, cells) in enumerate(self.layout_columns(width - 2)):
            title = column.title + (f" {self.arrow}" if column.key == self.marked else "")
            if number:
                segments.append(Segment(" " * GAP, style))
            segments.append(Segment(_fit(title, cells, right=column.right), style))
        return Strip(segments).adjust_cell_length(width, style)

    def _row_strip(self, row: int, width: int) -> Strip:
        over, here = Style.null(), Style.null()
        if row == self.cursor:
            name = "grid--cursor" if self.has_focus else "grid--blurred"
            over = here = _without_color(self.get_component_rich_style(name))
            if self.by_cell:
                over = _without_color(self.get_component_rich_style("grid--blurred"))
        base = self.rich_style + over
        segments = [Segment(" ", base)]
        cells, used = self.rows[row], 0
        for number, (index, column, cells_wide) in enumerate(self.layout_columns(width - 2)):
            room = cells_wide
            if index >= len(cells):
                break
            short = index == len(cells) - 1 < len(self.columns) - 1
            if short:  # its last cell takes the rest of the line
                room = max(room, width - 2 - used)
            used += room + GAP
            value = cells[index]
            text, tone = value if isinstance(value, GridCell) else (value, "")
            back = here if self.by_cell and index == self.cell else over
            plain_style = self.rich_style + back
            style = self.get_component_rich_style(f"grid--{tone}") + back if tone else plain_style
            if number:
                segments.append(Segment(" " * GAP, base))
            plain = column.middle_cut and not short
            fitted = _fit(text, room, right=column.right and not short, middle=plain)
            segments.append(Segment(fitted, style))
        return Strip(segments).adjust_cell_length(width, base)

    # -- moving ----------------------------------------------------------------------------

    def watch_cursor(self, old: int, new: int) -> None:
        """Repaint both rows and scroll to the new one."""
        if not self.is_mounted:
            return
        self._refresh_row(old)
        self._refresh_row(new)
        room = max(1, self.size.height - self._header_height)
        if new < self.scroll_offset.y:
            self.scroll_to(y=new, animate=False, force=True)
        elif new >= self.scroll_offset.y + room:
            self.scroll_to(y=new - room + 1, animate=False, force=True)

    def watch_cell(self) -> None:
        """Repaint the cursor's row."""
        self._refresh_row(self.cursor)

    def action_move_cell(self, by: int) -> None:
        """One cell to the left or right."""
        if not self.by_cell:
            raise SkipAction  # the screen may have a use for the key
        self.cell = max(0, min(self.cell + by, len(self.columns) - 1))

    def _move_to(self, row: int) -> None:
        row = max(0, min(row, len(self.rows) - 1))
        if self.rows and row != self.cursor:
            self.cursor = row
            self.post_message(self.Moved(self, row, by_hand=True))

    def action_move(self, rows: int) -> None:
        """One row up or down."""
        self._move_to(self.cursor + rows)

    def action_move_by_letter(self, rows: int) -> None:
        """As `action_move`, on a screen that has no other use for j and k."""
        if {"j", "k"} & self.screen._bindings.key_to_bindings.keys():
            raise SkipAction
        self.action_move(rows)

    def action_page(self, pages: int) -> None:
        """One page up or down."""
        self._move_to(self.cursor + pages * max(1, self.size.height - self._header_height - 1))

    def action_jump(self, row: int) -> None:
        """To the first or the last row."""
        self._move_to(row if row >= 0 else len(self.rows) - 1)

    def action_choose(self) -> None:
        """Post `Chosen` (Enter)."""
        if self.rows:
            self.post_message(self.Chosen(self, self.cursor, by_hand=True))

    def action_mark_row(self) -> None:
        """Post `Toggled` (Space)."""
        if self.rows:
            self.post_message(self.Toggled(self, self.cursor, by_hand=True))

    def on_click(self, event: events.Click) -> None:
        """A click moves the cursor or toggles the mark; a double click opens; a title sorts."""
        if event.y < self._header_height:
            if key := self._column_at(event.x):
                self.post_message(self.HeaderChosen(self, key))
            return
        row = event.y - self._header_height + self.scroll_offset.y
        if row >= len(self.rows):
            return
        self._move_to(row)
        if self.by_cell and (key := self._column_at(event.x)):
            self.cell = [column.key for column in self.columns].index(key)
        first = self.layout_columns(self.size.width - 2)[0]
        if event.x <= first[2] and first[1].key == "mark":
            self.action_mark_row()
        elif event.chain == 2:
            self.action_choose()

    def _column_at(self, x: int) -> str | None:
        start = 1
        for _, column, width in self.layout_columns(self.size.width - 2):
            if start <= x < start + width + GAP:
                return column.key
            start += width + GAP
        return None

    def on_resize(self) -> None:
        """Keep the cursor in view in another height."""
        self.call_after_refresh(self.watch_cursor, self.cursor, self.cursor)

    def on_focus(self) -> None:
        """Repaint the cursor row, which looks different with the focus."""
        self._refresh_row(self.cursor)

    def on_blur(self) -> None:
        """See `on_focus`."""
        self._refresh_row(self.cursor)


def _fit(text: str, width: int, *, right: bool = False, middle: bool = False) -> str:
    """The text padded or cut to `width` cells; `middle`: see `GridColumn.middle_cut`."""
    text = text.replace("\n", " ")
    length = cell_len(text)
    if length > width:
        head = max(0, (width - 1) // 4 if middle else width - 1)
        text = set_cell_size(text, head) + "…" + (_tail(text, width - 1 - head) if middle else "")
        return set_cell_size(text, width)
    return " " * (width - length) + text if right else text + " " * (width - length)


def _tail(text: str, width: int) -> str:
    """The end of a text, at most `width` cells."""
    start = max(0, len(text) - width)
    while cell_len(text[start:]) > width:
        start += 1
    return text[start:]


def _without_color(style: Style) -> Style:
    """The style without its foreground, so that the tone of a cell stays visible."""
    return Style(bgcolor=style.bgcolor, bold=style.bold, reverse=style.reverse)


def _line(text: str, width: int, style: Style) -> Strip:
    return Strip([Segment(_fit(text, width), style)], width)
