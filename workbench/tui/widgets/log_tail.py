"""Tail of engine.log, which stays at the end until the user scrolls up."""

from __future__ import annotations

from rich.cells import set_cell_size
from rich.segment import Segment
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip


class LogTail(ScrollView, can_focus=True):
    """Renders visible lines only; long lines are truncated, not wrapped."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._shown: tuple[str, ...] = ()
        self._empty = "No output yet."
        self._at_end = True
        self._placing = False

    def show(self, lines: tuple[str, ...], empty: str = "No output yet.") -> None:
        """Set the lines, which must be sanitized."""
        if lines == self._shown and empty == self._empty:
            return
        at_end = self._at_end
        self._shown, self._empty = lines, empty
        self.virtual_size = Size(0, len(lines))
        if at_end:
            self._to_end()
            self.call_after_refresh(self.on_resize)
        self.refresh()

    def on_resize(self) -> None:
        """Stay at the end in another height."""
        if self._at_end:
            self._to_end()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Note whether the end is visible."""
        super().watch_scroll_y(old_value, new_value)
        if not self._placing:
            self._at_end = new_value >= len(self._shown) - self.size.height

    def _to_end(self) -> None:
        """Scroll to the last lines; Textual may delay it until sizes are known."""
        self._placing = True
        end = max(0, len(self._shown) - self.size.height)
        self.scroll_to(y=end, animate=False, force=True, immediate=True)
        self._placing = False

    def render_line(self, y: int) -> Strip:
        """One line."""
        width = self.size.width
        row = y + self.scroll_offset.y
        text = self._shown[row] if row < len(self._shown) else ""
        if not self._shown and y == 0:
            text = self._empty
        return Strip([Segment(set_cell_size(f" {text}", width), self.rich_style)], width)
