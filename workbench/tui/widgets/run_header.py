"""The run that is looked at, in four lines: what, how far, how fast, and what to know."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from workbench.tui.view_models import live_rows
from workbench.tui.widgets import braille

if TYPE_CHECKING:
    from workbench.suites.state import RunView

BAR_CELLS: Final = 28

Line = tuple[tuple[str, str], ...]
"""Parts of a line: text, and the name of its style."""


class RunHead(Widget):
    """Repaints only the lines that differ; what does not fit is cut, never wrapped."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "head--title", "head--done", "head--rest", "head--dim", "head--failed",
    }  # fmt: skip
    DEFAULT_CSS = "RunHead { height: 4; }"

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[Line, ...] = ()

    def show(self, view: RunView | None) -> None:
        """Show a run."""
        lines = () if view is None else head_lines(view)
        if lines != self._shown:
            self._shown = lines
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line."""
        line = self._shown[y] if y < len(self._shown) else ()
        segments = [Segment(text, self.get_component_rich_style(name)) for text, name in line]
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style)


def head_lines(view: RunView) -> tuple[Line, ...]:
    """Title, progress, numbers, newest notice."""
    run = view.state
    word, fraction, after, bad = live_rows.progress(run)
    tone = "head--failed" if bad else "head--title"
    progress: list[tuple[str, str]] = [(f" {word:<9} ", tone)]
    if fraction is not None:
        done, rest = braille.bar(fraction, BAR_CELLS)
        progress += [(done, "head--done"), (rest, "head--rest")]
        progress.append((f" {fraction:>4.0%}  ", "head--title"))
    progress.append((after, "head--failed" if bad else "head--dim"))
    why = live_rows.why(run)
    return (
        ((f" {live_rows.title(view)}", "head--title"),),
        tuple(progress),
        ((f" {why}", "head--failed") if why else (f" {live_rows.facts(run)}", "head--dim"),),
        ((f" {live_rows.notices(run)}", "head--dim"),),
    )
