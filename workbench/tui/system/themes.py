"""Colours of the app: dark, light, those of the terminal, and a pair that the colour-blind tell
apart."""

from __future__ import annotations

from typing import Final

from textual.theme import BUILTIN_THEMES, Theme

PREFIX: Final = "workbench-"


def _make_theme(name: str, colours: dict[str, str], *, dark: bool, ansi: bool = False) -> Theme:
    """A theme of one accent, greys, a colour each for good, odd and bad, and those of the second to
    fourth curve (`b`, `c`, `d`); `colours` names them."""
    accent, quiet, ink = colours["accent"], colours["quiet"], colours["ink"]
    paper = colours["paper"]
    return Theme(
        name=PREFIX + name,
        primary=accent,
        accent=accent,
        secondary=quiet,
        foreground=ink,
        background=paper,
        surface=colours["surface"],
        panel=colours["panel"],
        error=colours["error"],
        warning=colours["warning"],
        success=colours["success"],
        dark=dark,
        ansi=ansi,
        variables={
            **(BUILTIN_THEMES["ansi-dark"].variables if ansi else {}),
            "footer-background": paper,
            "footer-key-foreground": accent,
            "footer-description-foreground": quiet,
            "input-selection-background": accent if ansi else f"{accent} 30%",
            "scrollbar": colours["bar"],
            "scrollbar-background": paper,
            "scrollbar-corner-color": paper,
            "row-cursor": colours["cursor"],
            **{f"curve-{name}": colours[name] for name in "bcd"},
        },
    )


# Colours of xterm's 256, so that tmux without true colour shows the same picture.
THEMES: Final = (
    _make_theme("dark", {
        "accent": "#5fd7af", "quiet": "#8a8a8a", "ink": "#d0d0d0", "paper": "#121212",
        "surface": "#1c1c1c", "panel": "#262626", "error": "#ff8787", "bar": "#303030",
        "cursor": "#264f43", "warning": "#d7af5f", "success": "#87d787",
        "b": "#d7af5f", "c": "#87afff", "d": "#d787d7",
    }, dark=True),
    _make_theme("light", {
        "accent": "#005f5f", "quiet": "#626262", "ink": "#1c1c1c", "paper": "#ffffff",
        "surface": "#eeeeee", "panel": "#e4e4e4", "error": "#af0000", "bar": "#c6c6c6",
        "cursor": "#afd7d7", "warning": "#875f00", "success": "#005f00",
        "b": "#af5f00", "c": "#005fd7", "d": "#870087",
    }, dark=False),
    _make_theme("ansi", {
        "accent": "ansi_cyan", "quiet": "ansi_bright_black", "ink": "ansi_default",
        "paper": "ansi_default", "surface": "ansi_default", "panel": "ansi_default",
        "error": "ansi_red", "bar": "ansi_bright_black", "cursor": "ansi_blue",
        "warning": "ansi_yellow", "success": "ansi_green",
        "b": "ansi_yellow", "c": "ansi_bright_blue", "d": "ansi_magenta",
    }, dark=True, ansi=True),
    _make_theme("colour-blind", {
        "accent": "#5fafff", "quiet": "#9e9e9e", "ink": "#dadada", "paper": "#121212",
        "surface": "#1c1c1c", "panel": "#262626", "error": "#ffaf00", "bar": "#303030",
        "cursor": "#1f3f5f", "warning": "#ffffaf", "success": "#5fafff",
        "b": "#ffaf00", "c": "#dadada", "d": "#d787af",
    }, dark=True),
)  # fmt: skip
"""By the names of `screen_config.THEMES`; errors also have words or signs of their own."""
DEFAULT: Final = THEMES[0].name
VARIABLES: Final = ("row-cursor", "curve-b", "curve-c", "curve-d")
"""Our own variables of a theme."""
