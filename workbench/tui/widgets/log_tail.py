"""Tail of engine.log, which stays at the end until the user scrolls up; wraps and finds words."""

from __future__ import annotations

import re
from typing import ClassVar

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from workbench.tui.widgets.cut_lines import fit_line


class LogTail(ScrollView, can_focus=True):
    """Renders visible lines only; long lines are truncated, or wrapped."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--match"}

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._shown: tuple[str, ...] = ()
        self._rows: list[str] = []
        """Lines as they are shown, wrapped ones in parts."""
        self._empty = "No output yet."
        self._at_end = True
        self._placing = False
        self._wrapped = False
        self._pattern: re.Pattern[str] | None = None
        self._match_row = 0
        """Row of the match that was gone to last."""

    def show(self, lines: tuple[str, ...], empty: str = "No output yet.") -> None:
        """Set the lines, which must be sanitized."""
        if lines == self._shown and empty == self._empty:
            return
        self._shown, self._empty = lines, empty
        self._lay_out()

    def _lay_out(self) -> None:
        at_end = self._at_end
        width = max(8, self.size.width - 2)
        self._rows = list(self._shown)
        if self._wrapped:
            self._rows = [part for line in self._shown for part in _wrap(line, width)]
        self.virtual_size = Size(0, len(self._rows))
        if at_end:
            self._to_end()
            self.call_after_refresh(self._keep_end)
        self.refresh()

    def on_resize(self) -> None:
        """Wrap anew, and stay at the end in another height."""
        if self._wrapped:
            self._lay_out()
        self._keep_end()

    def _keep_end(self) -> None:
        if self._at_end:
            self._to_end()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Note whether the end is visible."""
        super().watch_scroll_y(old_value, new_value)
        if not self._placing:
            self._at_end = new_value >= len(self._rows) - self.size.height

    def _to_end(self) -> None:
        """Scroll to the last lines; Textual may delay it until sizes are known."""
        self._placing = True
        end = max(0, len(self._rows) - self.size.height)
        self.scroll_to(y=end, animate=False, force=True, immediate=True)
        self._placing = False

    # -- wrapping and searching ------------------------------------------------------------

    @property
    def wrapped(self) -> bool:
        """Whether long lines are wrapped."""
        return self._wrapped

    def toggle_wrap(self) -> None:
        """Wrap long lines, or truncate them."""
        self._wrapped = not self._wrapped
        self._lay_out()

    def search(self, text: str) -> int:
        """Mark what matches a regular expression (else the plain text) and go to the last match;
        returns the number of lines that match. Capitals matter only if the text has any."""
        flags = 0 if text != text.lower() else re.IGNORECASE
        try:
            self._pattern = re.compile(text, flags) if text else None
        except re.error:
            self._pattern = re.compile(re.escape(text), flags)
        matches = self._matches()
        if matches:
            self._scroll_to_row(matches[-1])
        self.refresh()
        return len(matches)

    def jump(self, by: int) -> None:
        """Go to the next (1) or the previous (-1) line that matches."""
        matches, here = self._matches(), self._match_row
        later = [row for row in matches if row > here] if by > 0 else []
        earlier = [row for row in matches if row < here] if by < 0 else []
        if later or earlier:
            self._scroll_to_row(later[0] if by > 0 else earlier[-1])

    def _matches(self) -> list[int]:
        pattern = self._pattern
        if pattern is None:
            return []
        return [row for row, line in enumerate(self._rows) if pattern.search(line)]

    def _scroll_to_row(self, row: int) -> None:
        self._match_row = row
        self.scroll_to(y=row, animate=False, force=True)

    def render_line(self, y: int) -> Strip:
        """One line, matches marked."""
        width = self.size.width
        row = y + self.scroll_offset.y
        text = self._rows[row] if row < len(self._rows) else ""
        if not self._shown and y == 0:
            text = self._empty
        if self._pattern is None:
            return fit_line([Segment(f" {text}", self.rich_style)], width, self.rich_style)
        match = self.get_component_rich_style("log--match")
        segments = [Segment(" ", self.rich_style)]
        segments += _mark(text, self._pattern, self.rich_style, match)
        return fit_line(segments, width, self.rich_style)


def _wrap(line: str, width: int) -> list[str]:
    """The line in parts of at most `width` cells, later ones indented."""
    if cell_len(line) <= width:
        return [line]
    first, *_ = chop_cells(line, width)
    rest = line[len(first) :]
    return [first, *(f"  {part}" for part in chop_cells(rest, width - 2))]


def _mark(text: str, pattern: re.Pattern[str], plain: Style, marked: Style) -> list[Segment]:
    segments, at = [], 0
    for match in pattern.finditer(text):
        if match.end() > match.start():
            segments += [Segment(text[at : match.start()], plain), Segment(match[0], marked)]
            at = match.end()
    return [*segments, Segment(text[at:], plain)]
