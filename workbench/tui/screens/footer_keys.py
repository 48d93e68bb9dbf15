"""Footer with the keys that matter in the present state of a screen, as many as fit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from rich.cells import cell_len
from textual.binding import ActiveBinding
from textual.screen import Screen
from textual.widgets import Input

ALWAYS: Final = {"help": "Help", "quit": "Quit"}
"""Action -> title of what is always shown, at the end."""
TYPING: Final = {"enter": "Keep it", "escape": "Back", "up": "Earlier words", "f5": "Start"}
"""Key -> title while something is typed."""
PADDING: Final = 3
"""Blank cells of one entry."""


class FooterKeys(Screen[None]):
    """A screen whose footer depends on its state."""

    _footer: tuple[tuple[str, str], ...] = ()
    """What the footer shows."""

    @abstractmethod
    def footer_titles(self) -> Mapping[str, str]:
        """Action -> title, by importance: what does not fit is left out from the end."""

    def update_footer(self) -> None:
        """Repaint the footer if other keys matter now."""
        if tuple(self.footer_titles().items()) != self._footer:
            self.refresh_bindings()

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """The bindings, those of the footer first, and shown."""
        active = super().active_bindings
        if isinstance(self.focused, Input):
            return _while_typing(active)
        keys: dict[str, str] = {}
        for key, entry in sorted(active.items(), key=lambda item: not item[1].binding.show):
            keys.setdefault(entry.binding.action, key)
        self._footer = tuple(self.footer_titles().items())
        titles = {name: title for name, title in self._footer if name in keys}
        room = self.size.width - sum(self._measure(active[keys[n]], t) for n, t in ALWAYS.items()
                                     if n in keys)  # fmt: skip
        shown: dict[str, ActiveBinding] = {}
        for name, title in titles.items():
            room -= self._measure(active[keys[name]], title)
            if room < 0:
                break
            shown[keys[name]] = _show(active[keys[name]], title)
        shown |= {keys[n]: _show(active[keys[n]], t) for n, t in ALWAYS.items() if n in keys}
        hidden = {
            key: entry._replace(binding=replace(entry.binding, show=False))
            for key, entry in active.items()
            if key not in shown
        }
        return shown | hidden

    def _measure(self, entry: ActiveBinding, title: str) -> int:
        return cell_len(self.app.get_key_display(entry.binding)) + cell_len(title) + PADDING


def _while_typing(active: Mapping[str, ActiveBinding]) -> dict[str, ActiveBinding]:
    """The keys of a text field first: letters are typed, and its own shortcuts are no news."""
    shown = {key: _show(active[key], title) for key, title in TYPING.items() if key in active}
    return shown | {
        key: entry._replace(binding=replace(entry.binding, show=False))
        for key, entry in active.items()
        if key not in shown
    }


def _show(entry: ActiveBinding, title: str) -> ActiveBinding:
    return entry._replace(binding=replace(entry.binding, show=True, description=title))
