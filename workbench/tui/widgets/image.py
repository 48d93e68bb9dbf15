"""Pictures in the terminal: Kitty protocol, Sixel, half cells, or a text instead.

textual-image renders them. At its import it queries the terminal and waits for the answer on stdin,
where the app already reads: keys would be lost, and a terminal without an answer would block. It is
therefore imported with stdout hidden, for the first picture only, and the mode is derived from the
environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal

from rich.text import Text
from textual.widgets import Static

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from textual.widget import Widget

DisplayMode = Literal["kitty", "sixel", "half", "words"]
DISPLAY_MODES: Final[tuple[DisplayMode, ...]] = ("kitty", "sixel", "half", "words")

SIXEL_TERMINALS: Final = ("foot", "mlterm", "contour", "yaft")
SIXEL_PROGRAMS: Final = ("WezTerm", "mintty")


def choose_mode(environment: Mapping[str, str]) -> DisplayMode:
    """Display mode of this terminal; `WORKBENCH_PICTURES` overrides it.

    tmux and screen do not pass picture protocols: half cells. Without colours half cells are
    useless: words.
    """
    requested = environment.get("WORKBENCH_PICTURES", "")
    if requested in DISPLAY_MODES:
        return next(mode for mode in DISPLAY_MODES if mode == requested)
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "NO_COLOR" in environment or term in ("", "dumb", "linux", "vt100", "vt220"):
        return "words"
    if "TMUX" in environment or term.startswith(("tmux", "screen")):
        return "half"
    if "kitty" in term or "ghostty" in term or "KITTY_WINDOW_ID" in environment:
        return "kitty"
    if term.startswith(SIXEL_TERMINALS) or program in SIXEL_PROGRAMS:
        return "sixel"
    return "half"


def make_widget(file: Path | None, reason: str) -> Widget:
    """Widget of a picture, or of a text with `reason`. `file` was written by this project."""
    if file is None:
        return Static(Text(f"[{reason}]"), classes="no-picture")
    chosen = choose_mode(os.environ)
    if chosen == "words":
        return Static(Text("[this terminal shows no pictures]"), classes="no-picture")
    if find_spec("textual_image") is None:
        hint = "[pictures need the package textual-image: pip install textual-image]"
        return Static(Text(hint), classes="no-picture")
    with _hidden_terminal():
        from textual_image import widget as drawn
    kinds = {"kitty": drawn.TGPImage, "sixel": drawn.SixelImage, "half": drawn.HalfcellImage}
    widget: Widget = kinds[chosen](str(file), classes="picture")
    return widget


@contextmanager
def _hidden_terminal() -> Iterator[None]:
    """Replace stdout by a file for the duration of an import, so that it queries no terminal."""
    true = sys.__stdout__
    with open(os.devnull, "w", encoding="utf-8") as nothing:  # noqa: PTH123 - a device
        sys.__stdout__ = nothing  # type: ignore[misc]
        try:
            yield
        finally:
            sys.__stdout__ = true  # type: ignore[misc]
