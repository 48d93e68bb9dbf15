"""Renderers of a running suite without the TUI: progress lines, a live table, or JSON rows."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from results.text.sanitize import clean
from workbench.suites.run_summary import (
    output_lines,
    progress_line,
    suite_rows,
    waiting_lines,
)
from workbench.suites.state import RunView, SuiteState

if TYPE_CHECKING:
    from rich.table import Table

JSON_SECONDS: Final = 1.0
"""Time between two progress rows in JSON."""
LINE_SECONDS: Final = (1.0, 10.0, 30.0, 60.0)
"""Times between the progress lines since a run's phase changed; then the last one."""

REPAINT_SECONDS: Final = 2.0
"""Time between two repaints of the live table while no run changes its stage."""


COLUMN_GAP: Final = 3
"""Cells that a column of the live table takes beside its text."""
COLUMN_ORDER: Final = ("ETA", "loss", "step", "step time", "r@1", "RSS", "VRAM")
"""Columns of the live table behind run and state, the most important first."""


class OutputMode(Enum):
    """The form of the output about a running suite."""

    LINES = "lines"
    LIVE = "live"
    JSON = "json"

    @classmethod
    def choose(cls, *, headless: bool, as_json: bool) -> OutputMode:
        """JSON if requested; a live table on a terminal unless headless; else lines."""
        if as_json:
            return cls.JSON
        plain = headless or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb"
        return cls.LINES if plain else cls.LIVE


class Renderer(Protocol):
    """Shows the states of a suite."""

    def show(self, state: SuiteState) -> None:
        """Show a state; called about twice a second."""

    def close(self) -> None:
        """End the output: the suite has ended, or the user detached."""


def make_renderer(mode: OutputMode, folder: Path, interval: float | None = None) -> Renderer:
    """The renderer of the suite in `folder` for an output mode.

    `interval`: seconds between two progress lines or rows; None: growing ones, rows each second.
    """
    if mode is OutputMode.LINES:
        return LineRenderer(folder, LINE_SECONDS if interval is None else (interval,))
    if mode is OutputMode.LIVE:
        return LiveTableRenderer()
    return JsonRenderer(JSON_SECONDS if interval is None else interval)


@dataclass
class LinePace:
    """When the next line about one run or lane is due."""

    stage: tuple[str, ...] = ()
    last: str = ""
    count: int = 0
    """Lines since the last change of the stage."""
    next: float = 0.0
    """CLOCK_MONOTONIC."""

    def is_due(self, stage: tuple[str, ...], line: str, intervals: Sequence[float]) -> bool:
        """Whether the line is to be printed now, as the first of a stage or after an interval."""
        is_new, now = stage != self.stage, time.monotonic()
        if not is_new and (line == self.last or now < self.next):
            return False
        self.count = 0 if is_new else self.count + 1
        self.stage, self.last = stage, line
        self.next = now + intervals[min(self.count, len(intervals) - 1)]
        return True


class LineRenderer:
    """A line at each change of a phase, then at growing intervals; a line for every ended run and
    each of its outputs."""

    def __init__(self, folder: Path, intervals: Sequence[float] = LINE_SECONDS) -> None:
        """`intervals`: seconds from line to line since the last change of a phase."""
        self._folder, self._intervals = folder, intervals
        self._paces: dict[str, LinePace] = {}
        self._ended: set[str] = set()

    def show(self, state: SuiteState) -> None:
        """Print what is new."""
        for number, view in enumerate(state.runs, 1):
            if view.state.status == "ended" and view.folder not in self._ended:
                self._ended.add(view.folder)
                print_log_line(progress_line(view, number, state.total))
                for line in output_lines(view, self._folder):
                    print_log_line(line)
        for key, stage, line in self._subjects(state):
            pace = self._paces.setdefault(key, LinePace())
            if pace.is_due(stage, line, self._intervals):
                print_log_line(line)

    def close(self) -> None:
        """Nothing to undo."""

    @staticmethod
    def _subjects(state: SuiteState) -> list[tuple[str, tuple[str, ...], str]]:
        """(key, stage, line) of each run at work and each lane that waits, else of the suite."""
        subjects: list[tuple[str, tuple[str, ...], str]] = []
        for number, view in enumerate(state.runs, 1):
            if view.state.status in ("starting", "running"):
                stage = (view.state.status, view.state.phase)
                subjects.append((view.folder, stage, progress_line(view, number, state.total)))
        waits = [lane for lane in state.lanes if lane.waiting]
        lines = zip(waits, waiting_lines(state), strict=True)
        subjects += [(lane.name, ("waits",), line) for lane, line in lines]
        if not subjects and state.detail and not state.ended:
            line = f"{state.warden}: {state.detail}"
            subjects.append(("", (state.warden, state.detail), line))
        return subjects


class LiveTableRenderer:
    """A rich table on stderr that is repainted in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=False)
        self._live.start()
        self._next = 0.0
        self._stages: tuple[tuple[str, str], ...] = ()

    def show(self, state: SuiteState) -> None:
        """Repaint (2 ms) at every change of a run's stage, else every `REPAINT_SECONDS`."""
        stages = tuple((str(r.state.status), r.state.phase) for r in state.runs)
        now = time.monotonic()
        if stages == self._stages and now < self._next:
            return
        self._stages, self._next = stages, now + REPAINT_SECONDS
        self._live.update(self._make_table(state), refresh=True)

    def _make_table(self, state: SuiteState) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        caption = Text(clean("\n".join(waiting_lines(state)))) if waiting_lines(state) else None
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")
        header, rows = fit_columns(*suite_rows(state), self._live.console.width)
        for name, right in header:
            table.add_column(name, justify="right" if right else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        return table

    def close(self) -> None:
        """Stop repainting; the last table stays on the terminal."""
        self._live.stop()


def fit_columns(
    header: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[tuple[str, bool]], list[list[str]]]:
    """The columns that fit into `width` cells, the most important first; a name that is too long
    loses its middle."""
    from rich.cells import cell_len

    texts = [[title for title, _ in header], *rows]
    widths = [max(cell_len(row[column]) for row in texts) for column in range(len(header))]
    names = [title for title, _ in header]
    columns, room = [0, 1], width - widths[0] - widths[1] - 2 * COLUMN_GAP
    for column in (names.index(name) for name in COLUMN_ORDER):
        if (need := widths[column] + COLUMN_GAP) <= room:
            columns.append(column)
            room -= need
    columns.sort()
    limit = max(8, widths[0] + min(0, room))
    fitting = [[row[column] for column in columns] for row in rows]
    for row in fitting:
        row[0] = _cut_middle(row[0], limit)
    return [header[column] for column in columns], fitting


def _cut_middle(text: str, width: int) -> str:
    """A name of at most `width` cells; a longer one keeps its end, in which names differ."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    head = set_cell_size(text, width // 4)
    tail = text
    while cell_len(tail) > width - 1 - width // 4:
        tail = tail[1:]
    return f"{head}…{tail}"


class JsonRenderer:
    """JSON rows on stdout: regular ones for each run at work, and one for every ended run."""

    def __init__(self, interval: float = JSON_SECONDS) -> None:
        """`interval`: seconds between two rows of progress."""
        self._interval = interval
        self._next = 0.0
        self._ended: set[str] = set()

    def show(self, state: SuiteState) -> None:
        """Print what is new."""
        for view in state.runs:
            if view.state.status == "ended" and view.folder not in self._ended:
                self._ended.add(view.folder)
                print_json(self._make_row("run", view))
        if state.working and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._interval
            for view in state.working:
                print_json(self._make_row("progress", view))

    def close(self) -> None:
        """Nothing to undo."""

    @staticmethod
    def _make_row(kind: str, view: RunView) -> dict[str, Any]:
        run = view.state
        return {
            "kind": kind, "run": view.spec.run_id, "status": run.status, "cause": run.cause,
            "phase": run.phase, "step": run.step, "steps": run.plan.steps if run.plan else None,
            "loss": last.loss if (last := run.last_full or run.last) else None, "t": run.t,
        }  # fmt: skip


def print_log_line(line: str) -> None:
    """Print one line on stderr with the time of day, without control characters."""
    print(time.strftime("%H:%M:%S"), clean(line), file=sys.stderr, flush=True)


def print_event(mode: OutputMode, row: dict[str, Any], line: str) -> None:
    """Print `row` on stdout in JSON mode, else `line` on stderr."""
    if mode is OutputMode.JSON:
        print_json(row)
    elif line:
        print_log_line(line)


def print_json(row: dict[str, Any]) -> None:
    """Print a JSON row on stdout; numbers that are not finite as text, since JSON has none."""
    finite = {k: str(v) if isinstance(v, float) and v - v != 0 else v for k, v in row.items()}
    print(json.dumps(finite), flush=True)
