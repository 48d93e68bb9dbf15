"""Following a suite without the screen: lines, a live table or JSON, and the exit code.

Like the TUI this is only a reader. What makes `run` special is the life pipe: the warden ends the
suite when its other end closes, so a foreground run that dies leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any, Final, Protocol

from workbench import launch, suite
from workbench.exits import ExitStatus
from workbench.lines import progress_line, suite_rows
from workbench.state import RunView, SuiteState
from workbench.text import clean

POLL_SECONDS: Final = 0.25
LINE_SECONDS: Final = 1.0
"""A log that is no terminal gets at most one progress line in this time."""


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


def foreground(folder: Path, mode: Mode, *, share: bool) -> ExitStatus:
    """Start the warden, follow the suite to its end; Ctrl-C stops it, twice at once."""
    launched = launch.start_warden(folder, foreground=True, share=share)
    say(mode, {"kind": "launch", "suite": folder.name, "pid": launched.pid}, f"suite {folder.name}")
    presses = 0

    def on_signal(number: int, _frame: object) -> None:
        nonlocal presses
        presses += 1
        if presses == 1 and number == signal.SIGINT:
            suite.send(folder, suite.Command(do="stop"))
            talk("stopping after this step and its checkpoint; Ctrl-C again ends it at once")
        elif launched.life_fd is not None:
            launch.hang_up(launched)  # the warden sees the end of its life pipe
            talk("ending the engine now")

    with _signals(on_signal):
        state = _follow(folder, mode)
    _print_results(folder, mode)
    status = exit_status(state)
    say(mode, {"kind": "done", "suite": folder.name, "exit": int(status)}, "")
    return ExitStatus.INTERRUPTED if presses else status


def detach(folder: Path, mode: Mode, *, share: bool) -> ExitStatus:
    """Start the warden and return; the suite's name goes to stdout."""
    launched = launch.start_warden(folder, foreground=False, share=share)
    if mode is Mode.JSON:
        say(mode, {"kind": "launch", "suite": folder.name, "pid": launched.pid}, "")
    else:
        print(folder.name)
        talk(f"runs on by itself; `workbench attach {folder.name}` shows it")
    return ExitStatus.COMPLETED


def attach(folder: Path, mode: Mode) -> ExitStatus:
    """Follow a suite that runs or has ended; Ctrl-C detaches and stops nothing."""
    try:
        state = _follow(folder, mode)
    except KeyboardInterrupt:
        talk(f"detached; {folder.name} goes on")
        return ExitStatus.COMPLETED
    _print_results(folder, mode)
    return exit_status(state)


def stop(folder: Path, timeout_seconds: float) -> ExitStatus:
    """Ask the warden to stop and wait until nothing of the suite runs any more."""
    reader = suite.Reader(folder)
    if not reader.poll().ended:
        suite.send(folder, suite.Command(do="stop"))
    deadline = time.monotonic() + timeout_seconds
    while not (state := reader.poll()).ended:
        if time.monotonic() > deadline:
            talk(f"{folder.name} has not ended within {timeout_seconds:g} s; it is still stopping")
            return ExitStatus.FAILED
        time.sleep(POLL_SECONDS)
    if state.warden == "lost":
        launch.reconcile(folder)
    talk(f"{folder.name} has ended")
    return ExitStatus.COMPLETED


def list_suites(log_root: Path, *, everything: bool, as_json: bool) -> None:
    """One line per suite, newest first. Suites without a warden get their last entries now."""
    for folder in suite.suites(log_root):
        state = suite.Reader(folder).poll()
        if state.warden == "lost":
            launch.reconcile(folder)
        if state.ended and not everything:
            continue
        ended = sum(r.state.status == "ended" for r in state.runs)
        row = {
            "suite": folder.name, "state": state.warden, "runs": len(state.runs), "ended": ended,
            "pid": state.warden_pid, "detail": state.detail,
        }  # fmt: skip
        if as_json:
            print(json.dumps(row))
        else:
            detail = f"  {clean(state.detail)}" if state.detail else ""
            print(f"{folder.name:<40} {state.warden:<9} {ended}/{len(state.runs)} runs{detail}")


def exit_status(state: SuiteState) -> ExitStatus:
    """The exit code that a suite has earned."""
    causes = [r.state.cause or "unknown" for r in state.runs]
    if any(cause not in ("completed", "skipped", "stopped") for cause in causes):
        return ExitStatus.FAILED
    if "stopped" in causes:
        return ExitStatus.INTERRUPTED
    completed = [r for r in state.runs if r.state.cause == "completed"]
    if completed and not any(r.state.timed_steps or r.state.metrics for r in completed):
        return ExitStatus.NOTHING_MEASURED
    return ExitStatus.COMPLETED


def _follow(folder: Path, mode: Mode) -> SuiteState:
    reader = suite.Reader(folder)
    view = _view(mode)
    try:
        while True:
            state = reader.poll()
            view.show(state)
            if state.ended:
                break
            time.sleep(POLL_SECONDS)
        if state.warden == "lost":
            launch.reconcile(folder)
            state = reader.poll()
            view.show(state)
        return state
    finally:
        view.close()


def _view(mode: Mode) -> View:
    views: dict[Mode, type[View]] = {
        Mode.LINES: Lines,
        Mode.LIVE: Live,
        Mode.JSON: JsonLines,
    }
    return views[mode]()


class Lines:
    """One line a second at most, and one for every run that ends."""

    def __init__(self) -> None:
        self._next = 0.0
        self._last = ""
        self._ended: set[str] = set()

    def show(self, state: SuiteState) -> None:
        """Print what is new."""
        for number, view in enumerate(state.runs, 1):
            if view.state.status == "ended" and view.folder not in self._ended:
                self._ended.add(view.folder)
                talk(progress_line(view, number, len(state.runs)))
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
            return progress_line(view, state.runs.index(view) + 1, len(state.runs))
        return f"{state.warden}: {state.detail}" if state.detail and not state.ended else ""


class Live:
    """A rich table that repaints itself on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._live = RichLive(console=Console(stderr=True), auto_refresh=False, transient=False)
        self._live.start()

    def show(self, state: SuiteState) -> None:
        """Repaint."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        header, rows = suite_rows(state)
        for name, right in header:
            table.add_column(name, justify="right" if right else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        self._live.update(table, refresh=True)

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
                _emit(self._row("run", view))
        if state.current and time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_SECONDS
            _emit(self._row("progress", state.current))

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
        _emit(row)
    elif line:
        talk(line)


def _emit(row: dict[str, Any]) -> None:
    finite = {k: str(v) if isinstance(v, float) and v - v != 0 else v for k, v in row.items()}
    print(json.dumps(finite), flush=True)


def _print_results(folder: Path, mode: Mode) -> None:
    """The suite's records: Markdown tables, or JSON lines."""
    from workbench import reporting

    if mode is Mode.JSON:
        for record in reporting.suite_records(folder):
            _emit({"kind": "record", **json.loads(record.model_dump_json())})
    else:
        print(reporting.summary(folder))


@contextmanager
def _signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            with suppress(ValueError):
                signal.signal(number, old)
