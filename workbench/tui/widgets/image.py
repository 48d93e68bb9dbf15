"""A picture in the terminal, by what the terminal can: Kitty's protocol, Sixel, half cells, words.

textual-image draws them. When it is imported it asks the terminal what it can and waits for the
answer on stdin, where the app already reads: keys would be lost, and a terminal that does not
answer would hold the screen up. So it is imported with its eyes shut, only when the first picture
is to be shown, and what the terminal can is taken from the environment.
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

Way = Literal["kitty", "sixel", "half", "words"]
WAYS: Final[tuple[Way, ...]] = ("kitty", "sixel", "half", "words")

SIXEL_TERMINALS: Final = ("foot", "mlterm", "contour", "yaft")
SIXEL_PROGRAMS: Final = ("WezTerm", "mintty")


def way(environment: Mapping[str, str]) -> Way:
    """How pictures are shown here; `WORKBENCH_PICTURES` overrules what is concluded.

    Inside tmux and screen the outer terminal's protocols do not get through: half cells. Without
    colours half cells show nothing: words.
    """
    asked = environment.get("WORKBENCH_PICTURES", "")
    if asked in WAYS:
        return next(one for one in WAYS if one == asked)
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


def widget(file: Path | None, reason: str) -> Widget:
    """The picture, or in words why there is none. `file` is one that this project has written."""
    if file is None:
        return Static(Text(f"[{reason}]"), classes="no-picture")
    chosen = way(os.environ)
    if chosen == "words":
        return Static(Text("[this terminal shows no pictures]"), classes="no-picture")
    if find_spec("textual_image") is None:
        said = "[pictures need the package textual-image: pip install textual-image]"
        return Static(Text(said), classes="no-picture")
    with _eyes_shut():
        from textual_image import widget as drawn
    kinds = {"kitty": drawn.TGPImage, "sixel": drawn.SixelImage, "half": drawn.HalfcellImage}
    made: Widget = kinds[chosen](str(file), classes="picture")
    return made


@contextmanager
def _eyes_shut() -> Iterator[None]:
    """Let an import see a stdout that is no terminal, so that it asks none."""
    true = sys.__stdout__
    with open(os.devnull, "w", encoding="utf-8") as nothing:  # noqa: PTH123 - a device
        sys.__stdout__ = nothing  # type: ignore[misc]
        try:
            yield
        finally:
            sys.__stdout__ = true  # type: ignore[misc]
