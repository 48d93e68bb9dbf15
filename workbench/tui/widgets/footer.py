"""Footer: the shown bindings of a screen in one line.

Textual's own mounts a widget for each key whenever the focus moves, which is most of the work of a
Tab, and keeps the removed ones for as long as the screen lives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.app import RenderResult
from textual.widget import Widget

if TYPE_CHECKING:
    from textual.binding import ActiveBinding
    from textual.screen import Screen


class Footer(Widget):
    """Key and description of every shown binding, from the left; a click does what the key does."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"footer--key", "footer--disabled"}
    DEFAULT_CSS = "Footer { height: 1; dock: bottom; }"

    def on_mount(self) -> None:
        """Follow the bindings of the screen."""
        self.screen.bindings_updated_signal.subscribe(self, self._repaint)

    def on_unmount(self) -> None:
        """Follow no longer."""
        self.screen.bindings_updated_signal.unsubscribe(self)

    def _repaint(self, screen: Screen[object]) -> None:
        if self.app.app_focus and screen is self.screen:
            self.refresh()

    def render(self) -> RenderResult:
        """One line; what does not fit is cut."""
        text = Text(no_wrap=True, overflow="ellipsis")
        for entry in self._list_shown():
            name = "footer--key" if entry.enabled else "footer--disabled"
            style = self.get_component_rich_style(name)
            text.append(f" {self.app.get_key_display(entry.binding)} ", style)
            text.append(f"{entry.binding.description} ", "" if entry.enabled else style)
        return text

    def on_click(self, event: events.Click) -> None:
        """Press the key whose entry was clicked."""
        end = 0
        for entry in self._list_shown():
            end += cell_len(self.app.get_key_display(entry.binding)) + 3
            end += cell_len(entry.binding.description)
            if event.x < end:
                if entry.enabled:
                    self.app.simulate_key(entry.binding.key)
                return

    def _list_shown(self) -> Iterator[ActiveBinding]:
        """The shown bindings, one for each action."""
        actions: set[str] = set()
        for entry in self.screen.active_bindings.values():
            if entry.binding.show and entry.binding.action not in actions:
                actions.add(entry.binding.action)
                yield entry
