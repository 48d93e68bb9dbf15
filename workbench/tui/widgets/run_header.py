"""Header of the watched run in four lines: title, progress, numbers, newest notice."""

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

StyledLine = tuple[tuple[str, str], ...]
"""Parts of a line: (text, name of its style)."""


class RunHeader(Widget):
    """Four lines about a run; they are truncated, not wrapped."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "head--title", "head--done", "head--rest", "head--dim", "head--failed",
    }  # fmt: skip
    DEFAULT_CSS = "RunHeader { height: 4; }"

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[StyledLine, ...] = ()

    def show(self, view: RunView | None) -> None:
        """Show a run."""
        lines = () if view is None else header_lines(view)
        if lines != self._shown:
            self._shown = lines
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line."""
        line = self._shown[y] if y < len(self._shown) else ()
        segments = [Segment(text, self.get_component_rich_style(name)) for text, name in line]
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style)


def header_lines(view: RunView) -> tuple[StyledLine, ...]:
    """Title, progress, numbers, newest notice."""
    run = view.state
    word, fraction, after, bad = live_rows.format_progress(run)
    tone = "head--failed" if bad else "head--title"
    progress: list[tuple[str, str]] = [(f" {word:<9} ", tone)]
    if fraction is not None:
        done, rest = braille.progress_bar(fraction, BAR_CELLS)
        progress += [(done, "head--done"), (rest, "head--rest")]
        progress.append((f" {fraction:>4.0%}  ", "head--title"))
    progress.append((after, "head--failed" if bad else "head--dim"))
    failure = live_rows.format_failure(run)
    return (
        ((f" {live_rows.format_title(view)}", "head--title"),),
        tuple(progress),
        (
            (f" {failure}", "head--failed")
            if failure
            else (f" {live_rows.format_facts(run)}", "head--dim"),
        ),
        ((f" {live_rows.newest_notice(run)}", "head--dim"),),
    )
