"""Header of the watched run: title, progress, numbers or failure, newest notice or order."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, ClassVar, Final

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from workbench.tui.view_models.live import lines as live_lines
from workbench.tui.view_models.live import rows as live_rows
from workbench.tui.widgets.charts import braille
from workbench.tui.widgets.cut_lines import fit_line

if TYPE_CHECKING:
    from workbench.suites.state import RunView

BAR_CELLS: Final = 28
BASE_LINES: Final = 4
GAUGE_HEIGHT: Final = 30
"""Lines of a terminal that has room for gauges and phases."""

StyledLine = tuple[tuple[str, str], ...]
"""Parts of a line: (text, name of its style)."""


FAILURE_LINES: Final = 4
"""Lines of a failure at most; Enter on the run shows the rest."""


class RunHeader(Widget):
    """Four lines about a run; a failure is wrapped, the others are truncated."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "head--title", "head--done", "head--rest", "head--dim", "head--failed",
    }  # fmt: skip
    DEFAULT_CSS = "RunHeader { height: 4; }"

    def __init__(self) -> None:
        super().__init__()
        self._view: RunView | None = None
        self._order = ""
        self._shown: tuple[StyledLine, ...] = ()
        self._height_key = BASE_LINES, False

    def show(self, view: RunView | None, order: str = "") -> None:
        """Show a run, and what is ordered of it."""
        self._view, self._order = view, order
        lines = () if view is None else header_lines(view, order, self.size.width)
        if view is not None and self.app.size.height >= GAUGE_HEIGHT:
            run = view.state
            phases = live_lines.phase_line(run, self.size.width - 2)
            texts = [live_lines.anatomy_line(run), live_lines.gauge_line(run), phases]
            lines += tuple(((f" {text}", "head--dim"),) for text in texts if text)
        if lines != self._shown:
            self._shown = lines
            if (len(lines), bool(order)) != self._height_key:  # it lays out the whole screen again
                self._height_key = len(lines), bool(order)
                self.styles.height = len(lines) if len(lines) > BASE_LINES or order else None
            self.refresh()

    def on_resize(self) -> None:
        """Wrap a failure anew."""
        self.show(self._view, self._order)

    def render_line(self, y: int) -> Strip:
        """One line."""
        line = self._shown[y] if y < len(self._shown) else ()
        segments = [Segment(text, self.get_component_rich_style(name)) for text, name in line]
        return fit_line(segments, self.size.width, self.rich_style)


def header_lines(view: RunView, order: str, width: int) -> tuple[StyledLine, ...]:
    """Title, progress, numbers or failure, then the order or else the newest notice."""
    run = view.state
    word, fraction, after, bad = live_rows.format_progress(run)
    if run.status == "queued" and view.location:
        after = view.location
    tone = "head--failed" if bad else "head--title"
    progress: list[tuple[str, str]] = [(f" {word:<9} ", tone)]
    if fraction is not None:
        done, rest = braille.progress_bar(fraction, BAR_CELLS)
        progress += [(done, "head--done"), (rest, "head--rest")]
        progress.append((f" {fraction:>4.0%}  ", "head--title"))
    progress.append((after, "head--failed" if bad else "head--dim"))
    body: list[StyledLine] = [((f" {live_rows.format_facts(run)}", "head--dim"),)]
    if failure := live_rows.format_failure(run):
        lines = textwrap.wrap(failure, max(20, width - 2))
        if len(lines) > FAILURE_LINES:
            lines[FAILURE_LINES - 1 :] = [f"{lines[FAILURE_LINES - 1]} … (Enter: all of it)"]
        body = [((f" {line}", "head--failed"),) for line in lines]
    last = (f" {live_rows.newest_notice(run)}", "head--dim")
    if order:
        last = (f" {order}", "head--title")
    return (((f" {live_rows.format_title(view)}", "head--title"),), tuple(progress), *body, (last,))
