"""What the Live screen knows: suites of a log root, and one suite with the log of one run.

Everything here reads files and so runs in a thread; what comes out is frozen. One `poll` with
nothing new costs a stat call per run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from workbench.suites.state import SuiteState

LOG_BYTES: Final = 24_576
"""Read from the end of engine.log; 200 lines of 120 characters."""
LOG_LINES: Final = 200
_STYLES: Final = re.compile(r"\x1b\[[0-9;]*m")
"""Colours and weights mean no harm and no information; every other sequence is shown as text."""
SUITES_SECONDS: Final = 5.0
"""How often the list of suites is read again."""


@dataclass(frozen=True, slots=True)
class SuiteEntry:
    """One suite in the list."""

    name: str
    folder: Path
    state: str
    detail: str
    started_wall: float | None
    runs: int

    @property
    def busy(self) -> bool:
        """Its warden is at work."""
        return self.state not in ("ended", "lost", "unreadable")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One suite at one moment."""

    folder: Path
    suite: SuiteState
    watched: str
    """Run id whose log this is."""
    log: tuple[str, ...]
    bad_lines: int = 0


def suites(log_root: Path) -> tuple[SuiteEntry, ...]:
    """All suites, those at work first, then the newest first."""
    from workbench.suites import suite

    try:
        folders = suite.list_suites(log_root)
    except OSError:
        folders = []
    found = [_entry(folder) for folder in folders]
    return tuple(sorted(found, key=lambda e: not e.busy))  # stable: newest first within


def _entry(folder: Path) -> SuiteEntry:
    from results.text.sanitize import clean_line
    from workbench.suites import suite

    state, detail, started, warden = "starting", "", None, None
    try:
        warden = suite.read_warden(folder)
    except suite.SuiteError as error:
        return SuiteEntry(clean_line(folder.name), folder, "unreadable", str(error), None, 0)
    if warden is not None:
        gone = warden.state != "ended" and not suite.is_alive(warden)
        state, detail = ("lost" if gone else warden.state), clean_line(warden.detail)
        started = warden.started_wall or None
    try:
        if warden is None and time.time() - folder.stat().st_mtime > suite.WARDEN_START_SECONDS:
            state = "lost"
        runs = len(suite.list_run_names(folder))
    except OSError:
        state, runs = "unreadable", 0
    return SuiteEntry(clean_line(folder.name), folder, state, detail, started, runs)


class SuiteFeed:
    """Follows one suite and the log of the run that is looked at."""

    def __init__(self, folder: Path) -> None:
        from workbench.suites import suite

        self.folder = folder
        self._reader = suite.SuiteReader(folder)
        self._log: tuple[str, ...] = ()
        self._log_mark: tuple[str, int, int] | None = None

    def poll(self, watched: str | None) -> Snapshot:
        """The suite now; `watched` None follows the run at work, or the last that began."""
        state = self._reader.poll()
        run_id = watched or following(state)
        self._read_log(run_id)
        return Snapshot(self.folder, state, run_id, self._log, self._reader.bad_lines)

    def _read_log(self, run_id: str) -> None:
        path = self.folder / "runs" / run_id / "engine.log"
        try:
            status = path.stat()
            mark = (run_id, status.st_size, status.st_mtime_ns)
            if mark == self._log_mark:
                return
            with path.open("rb") as file:
                file.seek(max(0, status.st_size - LOG_BYTES))
                data = file.read(LOG_BYTES)
        except (OSError, ValueError):
            mark, data = (run_id, -1, 0), b""
        self._log_mark, self._log = mark, log_lines(data, whole=mark[1] <= LOG_BYTES)


def following(state: SuiteState) -> str:
    """The run to look at by default: the one at work, else the last that ended, else the first."""
    if state.current is not None:
        return state.current.spec.run_id
    begun = [r for r in state.runs if r.state.status == "ended"]
    chosen = begun[-1:] or list(state.runs[:1])
    return chosen[0].spec.run_id if chosen else ""


def log_lines(data: bytes, *, whole: bool = True) -> tuple[str, ...]:
    """The end of a log as clean lines; of a line redrawn with carriage returns, the last state."""
    from results.text.sanitize import clean_line

    lines = _STYLES.sub("", data.decode("utf-8", "replace")).split("\n")
    if not whole:
        lines = lines[1:]  # the first one is cut
    shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
    return tuple(clean_line(line) for line in shown[-LOG_LINES:] if line.strip())


def follow(
    feed: SuiteFeed,
    watched: Callable[[], str | None],
    deliver: Callable[[Snapshot], bool],
    wait: Callable[[float], bool],
    seconds: float = 3.0,
) -> None:
    """Poll until `wait` says so; deliver what is new. `deliver` returns False to be asked again.

    Every three seconds, and slower where reading takes long: it may use a tenth of the time.
    """
    delivered: Snapshot | None = None
    while True:
        began = time.monotonic()
        snapshot = feed.poll(watched())
        if snapshot != delivered and deliver(snapshot):
            delivered = snapshot
        if wait(max(seconds, 9 * (time.monotonic() - began))):
            return
