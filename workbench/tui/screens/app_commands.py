"""What the app offers on every screen: command palette, copying, themes, the user's keys."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from textual import events, work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Input

from workbench import paths
from workbench.tui.system import screen_config, themes

if TYPE_CHECKING:
    from workbench.tui.app import WorkbenchApp

MAX_TEXTS: Final = 20
"""Earlier texts of a search that are kept."""


class AppCommands(App[None]):
    """Base of the app: its settings, and commands that do not depend on a screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("colon,ctrl+p", "palette", "Commands", key_display=":", show=False),
        Binding("y", "copy", "Copy", show=False),
        Binding("O", "log_root", "Log root", show=False),
        Binding("apostrophe", "jump", "Jump to a part", key_display="'", show=False),
        Binding("ctrl+o", "jump", show=False, priority=True),
    ]

    def __init__(self, log_root: Path, cache_root: Path, **options: Any) -> None:
        """`options`: of Textual's app."""
        super().__init__(**options)
        self.log_root, self.cache_root = log_root, cache_root
        self.config = screen_config.read_config(paths.config_root())
        self.memory = screen_config.read_state(paths.config_root())
        """What the screens remember, by name; `remember` writes it."""
        for theme in themes.THEMES:
            self.register_theme(theme)
        chosen = self.config.theme or str(self.memory.get("theme", ""))
        name = themes.PREFIX + chosen if chosen in screen_config.THEMES else themes.DEFAULT
        # Before the first style is computed: set later, everything would be styled twice.
        self.set_reactive(App.theme, name)

    def tell_config_problems(self) -> None:
        """Show what is wrong in screen.toml."""
        for problem in self.config.problems:
            self.notify(problem, title=screen_config.CONFIG_NAME, severity="warning", timeout=15)

    @property
    def theme_names(self) -> tuple[str, ...]:
        """Themes to choose from."""
        return screen_config.THEMES

    def choose_theme(self, name: str) -> None:
        """Change the colours, and remember them."""
        self.theme = themes.PREFIX + name
        self.remember("theme", name)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our own variables, for themes that lack them."""
        return {name: themes.THEMES[0].variables[name] for name in themes.VARIABLES}

    @property
    def shown_root(self) -> str:
        """The log root, with `~` for the home folder."""
        home, root = str(Path.home()), str(self.log_root)
        return f"~{root.removeprefix(home)}" if root.startswith(f"{home}/") else root

    def open_late(
        self, origin: Screen[Any], dialog: ModalScreen[Any], on_answer: Callable[[Any], None]
    ) -> None:
        """Open a dialog that took time to prepare, unless the user has left `origin` meanwhile."""
        if self.screen is origin:
            self.push_screen(dialog, on_answer)

    def action_log_root(self) -> None:
        """Choose another log root: one that was open before, or a folder."""
        from workbench.tui.screens import log_roots

        log_roots.ask_log_root(cast("WorkbenchApp", self))

    def action_jump(self) -> None:
        """Put a letter over each part of the screen; the letter focuses it."""
        from workbench.tui.screens.jump import JumpOverlay

        if isinstance(self.screen, JumpOverlay):
            return
        screen = self.screen
        shown = [widget for widget in screen.focus_chain if widget.region.area > 0]

        def on_choice(widget: Widget | None) -> None:
            if widget is not None:
                screen.set_focus(widget)

        self.push_screen(JumpOverlay(shown), on_choice)

    def earlier_texts(self, name: str) -> tuple[str, ...]:
        """What was searched for in a list, the newest first."""
        texts = self.memory.get("finds", {})
        named = texts.get(name, ()) if isinstance(texts, dict) else ()
        return tuple(map(str, named))

    def remember_text(self, name: str, text: str) -> None:
        """Keep what was searched for in a list."""
        if text.strip():
            others = [other for other in self.earlier_texts(name) if other != text]
            finds = self.memory.get("finds")
            kept = finds if isinstance(finds, dict) else {}
            self.remember("finds", {**kept, name: [text, *others][:MAX_TEXTS]})

    def remember(self, name: str, value: object) -> None:
        """Keep something for the next time the screen opens."""
        if self.memory.get(name) == value:
            return
        self.memory[name] = value
        try:
            screen_config.write_state(paths.config_root(), self.memory)
        except OSError as error:
            folder = paths.config_root()
            self.notify(f"{folder}: {error.strerror}", title="Not remembered", severity="warning")

    def translate_key(self, event: events.Key) -> None:
        """Put the key that the user's key stands for; not while something is typed."""
        if isinstance(self.focused, Input):
            return
        for name in (self.current_mode, "all"):
            key = self.config.keys.get(name, {}).get(event.key)
            if key is not None:
                event.key, event.character = key, key if len(key) == 1 else None
                return

    @work(exclusive=True, group="palette")
    async def action_palette(self) -> None:
        """Search for a command: action, screen, suite, run, subset, setting, page of the docs."""
        from workbench.tui.screens import palette

        screen = self.screen
        content = await asyncio.to_thread(palette.read_content, self.log_root, self.cache_root)
        if self.screen is not screen:
            return
        entries = palette.list_entries(cast("WorkbenchApp", self), content)
        await self.search_commands(
            [(entry.name, entry.run, entry.help) for entry in entries],
            "an action, suite, run, subset, setting, page …",
        )

    def action_copy(self) -> None:
        """Choose what is copied from the screen."""
        from workbench.tui.screens import copying
        from workbench.tui.screens.dialogs import ChoiceDialog
        from workbench.tui.view_models.cells import GridColumn

        choices = copying.collect_choices(self.screen)
        if not choices:
            self.notify("There is nothing to copy here.")
            return

        def on_choice(key: str | None) -> None:
            if key is not None:
                self.copy_to_clipboard(choices[int(key)].text)

        columns = (GridColumn("name", "", 24, grow=10), GridColumn("text", "", 24, grow=40))
        rows = [(choice.name, " ".join(choice.text.split())[:120]) for choice in choices]
        keys = [str(at) for at in range(len(choices))]
        self.push_screen(ChoiceDialog("Copy", columns, rows, keys), on_choice)

    def copy_to_clipboard(self, text: str) -> None:
        """Copy by the first way that works; says which one."""
        from workbench.tui.system import clipboard

        file = self.log_root / "copied.txt"
        command = self.config.copy_command
        try:
            copied = clipboard.copy_text(text, os.environ, super().copy_to_clipboard, file, command)
        except OSError as error:
            self.notify(f"{file}: {error.strerror}", title="Not copied", severity="error")
            return
        self.notify("\n".join([*copied.problems, f"Copied {copied.target}"]))
