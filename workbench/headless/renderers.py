"""How a suite that runs is shown without the screen: lines, a live table, or JSON rows."""

from __future__ import annotations

import json
import os
import sys
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from results.text.sanitize import clean
from workbench.suites.run_summary import output_lines, progress_line, suite_rows
from workbench.suites.state import RunView, SuiteState

if TYPE_CHECKING:
    from rich.table import Table

LINE_SECONDS: Final = 1.0
"""A log that is no terminal gets at most one progress line in this time."""

REPAINT_SECONDS: Final = 2.0
"""The live table is painted this often while nothing but numbers changes."""


class Mode(Enum):
    """How to show a suite that runs."""

    LINES = "lines"
    LIVE = "live"
    JSON = "json"

    @classmethod
    def of(cls, *, headless: bool, as_json: bool) -> Mode:
        """JSON if asked for; a live table on a terminal; lines otherwise."""
        if as_json:
            return cls.JSON
        plain = headless or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb"
        return cls.LINES if plain else cls.LIVE


class View(Protocol):
    """Something that shows states as they come."""

    def show(self, state: SuiteState) -> None:
        """Show a state; called a few times a second."""

    def close(self) -> None:
        """The suite has ended, or nobody looks any longer."""


def view_of(mode: Mode, folder: Path) -> View:
    """The view of the suite in `folder` for a mode."""
    if mode is Mode.LINES:
        return Lines(folder)
    return Live() if mode is Mode.LIVE else JsonLines()


class Lines:
    """One line a second at most; for every run that ends one, and one for each thing it left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next = 0.0
        self._last = ""
        self._ended: set[str] = set()

    def show(self, state: SuiteState) -> None:
        """Print what is new."""
        for number, view in enumerate(state.runs, 1):
            if view.state.status == "ended" and view.folder not in self._ended:
                self._ended.add(view.folder)
                talk(progress_line(view, number, state.total))
                for line in output_lines(view, self._folder):
                    talk(line)
        now = time.monotonic()
        line = self._current(state)
        if line and line != self._last and now >= self._next:
            self._next, self._last = now + LINE_SECONDS, line
            talk(line)

    def close(self) -> None:
        """Nothing to undo."""

    @staticmethod
    def _current(state: SuiteState) -> str:
        if (view := state.current) is not None:
            return progress_line(view, state.runs.index(view) + 1, state.total)
        return f"{state.warden}: {state.detail}" if state.detail and not state.ended else ""


class Live:
    """A rich table that repaints itself on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._live = RichLive(console=Console(stderr=True), auto_refresh=False, transient=False)
        self._live.start()
        self._next = 0.0
        self._stages: tuple[tuple[str, str], ...] = ()

    def show(self, state: SuiteState) -> None:
        """Repaint at every change of a run's stage, and now and then between: it costs 2 ms."""
        stages = tuple((str(r.state.status), r.state.phase) for r in state.runs)
        now = time.monotonic()
        if stages == self._stages and now < self._next:
            return
        self._stages, self._next = stages, now + REPAINT_SECONDS
        self._live.update(self._table(state), refresh=True)

    @staticmethod
    def _table(state: SuiteState) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        header, rows = suite_rows(state)
        for name, right in header:
            table.add_column(name, justify="right" if right else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        return table

    def close(self) -> None:
        """Leave the last table standing."""
        self._live.stop()


class JsonLines:
    """One JSON object a second for the run at work, and one for every run that ends."""

    def __init__(self) -> None:
        self._next = 0.0
        self._ended: set[str] = set()

    def show(self, state: SuiteState) -> None:
        """Print what is new."""
        for view in state.runs:
            if view.state.status == "ended" and view.folder not in self._ended:
                self._ended.add(view.folder)
                emit(self._row("run", view))
        if state.current and time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_SECONDS
            emit(self._row("progress", state.current))

    def close(self) -> None:
        """Nothing to undo."""

    @staticmethod
    def _row(kind: str, view: RunView) -> dict[str, Any]:
        run = view.state
        return {
            "kind": kind, "run": view.spec.run_id, "status": run.status, "cause": run.cause,
            "phase": run.phase, "step": run.step, "steps": run.plan.steps if run.plan else None,
            "loss": run.last.loss if run.last else None, "t": run.t,
        }  # fmt: skip


def talk(line: str) -> None:
    """One line on stderr, cleaned, with the time of day."""
    print(time.strftime("%H:%M:%S"), clean(line), file=sys.stderr, flush=True)


def say(mode: Mode, row: dict[str, Any], line: str) -> None:
    """A JSON row on stdout in JSON mode, else a line of talk."""
    if mode is Mode.JSON:
        emit(row)
    elif line:
        talk(line)


def emit(row: dict[str, Any]) -> None:
    """A JSON row on stdout; what is not finite as a text, since JSON has no word for it."""
    finite = {k: str(v) if isinstance(v, float) and v - v != 0 else v for k, v in row.items()}
    print(json.dumps(finite), flush=True)
