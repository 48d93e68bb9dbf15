"""Data of the Live screen: the suites of a log root, and one suite with the log of one run.

All functions read files and so run in a thread; results are frozen. A `poll` without news costs a
stat call per run.
"""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from workbench.suites.state import RunView, SuiteState

LOG_BYTES: Final = 24_576
"""Bytes read from the end of engine.log: 200 lines of 120 characters."""
LOG_LINES: Final = 200
LINE_BYTES: Final = LOG_BYTES // LOG_LINES
FULL_LOG_BYTES: Final = 1 << 20
"""Bytes read for the log in full screen."""
_STYLES: Final = re.compile(r"\x1b\[[0-9;]*m")
"""SGR sequences (colours), which are removed; other sequences are shown as text."""
REFERENCE_SUITES: Final = 20
"""Suites that are searched for an earlier run."""
READ_SECONDS: Final = 0.5
"""Longest reading of journals before a snapshot: a long one is shown while it is read, and the
screen can be left."""
CATCH_UP_SECONDS: Final = 0.05
SUITES_SECONDS: Final = 5.0
"""Interval of reading the list of suites."""


@dataclass(frozen=True, slots=True)
class SuiteEntry:
    """One suite in the list."""

    name: str
    folder: Path
    state: str
    detail: str
    started_wall: float | None
    runs: int
    about: str = ""
    """Subsets, models and settings of its plan: what tells it from suites of the same name."""

    @property
    def busy(self) -> bool:
        """Whether its warden is running."""
        return self.state not in ("ended", "lost", "unreadable")


@dataclass(frozen=True, slots=True)
class SuiteSnapshot:
    """One suite at one moment."""

    folder: Path
    suite: SuiteState
    watched: str
    """Run id whose log this is."""
    log: tuple[str, ...]
    bad_lines: int = 0
    behind: bool = False
    """More of the journals is to be read: it is the state of an earlier moment."""


def read_suites(log_root: Path) -> tuple[SuiteEntry, ...]:
    """All suites, running ones first, then newest first."""
    from workbench.suites import suite

    try:
        folders = suite.list_suites(log_root)
    except OSError:
        folders = []
    entries = [_read_entry(folder) for folder in folders]
    return tuple(sorted(entries, key=lambda e: not e.busy))  # stable: newest first within


def _read_entry(folder: Path) -> SuiteEntry:
    from results.text.sanitize import clean_line
    from workbench.slurm import submission
    from workbench.suites import array_tasks, suite, warden_file

    state, detail, started, warden = "starting", "", None, None
    try:
        warden = warden_file.read_warden(folder)
    except suite.SuiteError as error:
        return SuiteEntry(clean_line(folder.name), folder, "unreadable", str(error), None, 0)
    submitted = submission.read_submission(folder)
    if warden is not None:
        gone = warden.state != "ended" and not warden_file.is_alive(warden)
        state, detail = ("lost" if gone else warden.state), clean_line(warden.detail)
        started = warden.started_wall or None
    try:
        if submitted is not None:
            state, detail = array_tasks.read_brief_state(folder, submitted)
        elif warden is None and not warden_file.is_starting(folder):
            state = "lost"
        runs = len(suite.list_run_names(folder))
    except OSError:
        state, runs = "unreadable", 0
    about = _describe_plan(folder / "plan.toml")
    return SuiteEntry(clean_line(folder.name), folder, state, detail, started, runs, about)


@lru_cache(maxsize=2048)
def _describe_plan(path: Path) -> str:
    """`emoji_train × clip-nano · epochs=2`; a plan file never changes."""
    from results.text import formats
    from results.text.sanitize import clean_line

    try:
        plan = tomllib.loads(path.read_text("utf-8"))
        names = [", ".join(map(str, plan.get(key) or ())) for key in ("subsets", "models")]
        settings = formats.settings(plan.get("settings") or {})
        label = str(plan.get("label") or "")
    except (OSError, ValueError, TypeError, AttributeError):
        return ""
    parts = (label, " × ".join(name for name in names if name), settings)
    return clean_line(" · ".join(part for part in parts if part), 200)


class SuiteFeed:
    """Reader of one suite and of the log of the watched run."""

    def __init__(self, folder: Path, give_way: Callable[[], object] | None = None) -> None:
        """`give_way`: see `SuiteReader.poll`."""
        from workbench.suites import suite_reader

        self.folder, self._give_way = folder, give_way
        self._reader = suite_reader.SuiteReader(folder)
        self._log_bytes = LOG_BYTES
        self._attempts_back = 0
        self._log: tuple[str, ...] = ()
        self._log_mark: tuple[str, int, int, int, int] | None = None

    def poll(self, watched: str | None) -> SuiteSnapshot:
        """A snapshot of the suite; `watched` None: log of the default run."""
        state = self._reader.poll(READ_SECONDS, self._give_way)
        run_id = watched or default_run(state)
        self._read_log(run_id)
        return SuiteSnapshot(
            self.folder, state, run_id, self._log, self._reader.bad_lines, self.behind
        )

    @property
    def behind(self) -> bool:
        """Whether there is more to read than one `poll` has read."""
        return self._reader.behind

    def read_more(self, *, full: bool) -> None:
        """Read the last MiB of the log from now on, or less again; from any thread."""
        self._log_bytes = FULL_LOG_BYTES if full else LOG_BYTES

    def step_attempt(self, attempts: int) -> int:
        """Read the log of the attempt before from now on, after the first of the last; returns
        its number."""
        self._attempts_back = (self._attempts_back + 1) % attempts
        return attempts - self._attempts_back

    def _read_log(self, run_id: str) -> None:
        path = self.folder / "runs" / run_id / "engine.log"
        size, back = self._log_bytes, self._attempts_back
        try:
            status = path.stat()
            mark = (run_id, status.st_size, status.st_mtime_ns, size, back)
            if mark == self._log_mark:
                return
            with path.open("rb") as file:
                file.seek(max(0, status.st_size - size))
                data = file.read(size)
        except (OSError, ValueError):
            mark, data = (run_id, -1, 0, size, back), b""
        self._log_mark = mark
        self._log = clean_log(data, whole=mark[1] <= size, back=back, limit=size // LINE_BYTES)


def read_log(run: Path) -> tuple[str, ...]:
    """The last MiB of the log of a run's last attempt; empty if it cannot be read."""
    try:
        with (run / "engine.log").open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - FULL_LOG_BYTES))
            data = file.read(FULL_LOG_BYTES)
    except (OSError, ValueError):
        return ()
    return clean_log(data, whole=size <= FULL_LOG_BYTES, limit=FULL_LOG_BYTES // LINE_BYTES)


def list_references(log_root: Path, folder: Path, view: RunView) -> list[Path]:
    """Run folders with the same subset or model and with a journal, the most alike first: of this
    suite, then of the newest `REFERENCE_SUITES`."""
    from workbench.suites import suite

    others = [path for path in suite.list_suites(log_root) if path != folder]
    ranked = []
    for number, path in enumerate([folder, *others[:REFERENCE_SUITES]]):
        try:
            runs = suite.read_runs(path)
        except (suite.SuiteError, OSError):
            continue
        for run, spec in runs:
            alike = (spec.subset == view.spec.subset) + (spec.model == view.spec.model)
            same = path == folder and spec.run_id == view.spec.run_id
            if alike and not same and (run / "events.jsonl").is_file():
                ranked.append((-alike, number, run))
    return [run for *_, run in sorted(ranked)]


def read_run(run: Path, give_way: Callable[[], object] | None = None) -> RunView:
    """One run by its folder, with its state. `give_way`: see `Tail.iterate`.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    from engines.protocol import RunSpec
    from workbench.suites import journal, state

    spec = RunSpec.model_validate_json((run / "spec.json").read_bytes())
    entries = journal.Tail(run / "events.jsonl").iterate(give_way)
    return state.RunView(spec, run.name, state.reduce_entries(entries))


def default_run(state: SuiteState) -> str:
    """Id of the run shown by default: the current one, else the last ended, else the first."""
    if state.current is not None:
        return state.current.spec.run_id
    begun = [r for r in state.runs if r.state.status == "ended"]
    chosen = begun[-1:] or list(state.runs[:1])
    return chosen[0].spec.run_id if chosen else ""


def clean_log(
    data: bytes, *, whole: bool = True, back: int = 0, limit: int = LOG_LINES
) -> tuple[str, ...]:
    """Last lines of one attempt, sanitized; of a line with carriage returns, the last part.

    `whole`: `data` starts at the begin of the log. `back`: attempts before the last one.
    """
    from results.text.sanitize import clean_line
    from workbench.processes.engine_process import ATTEMPT_MARK

    lines = _STYLES.sub("", data.decode("utf-8", "replace")).split("\n")
    if not whole:
        lines = lines[1:]  # the first one is cut
    begins = [0, *(row for row, line in enumerate(lines) if line.startswith(ATTEMPT_MARK))]
    ends = [*begins[1:], len(lines)]
    attempt = max(0, len(begins) - 1 - back)  # an earlier attempt's errors are not its own
    lines = lines[begins[attempt] : ends[attempt]]
    shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
    return tuple(clean_line(line) for line in shown[-limit:] if line.strip())


def poll_feed(
    feed: SuiteFeed,
    watched: Callable[[], str | None],
    deliver: Callable[[SuiteSnapshot], bool],
    wait: Callable[[float], bool],
    seconds: float = 3.0,
) -> None:
    """Poll until `wait` returns True, and deliver changed snapshots.

    `deliver` returns False to get the snapshot again. The interval is `seconds`, longer if a poll
    takes more than a tenth of it, and short while there is more to read.
    """
    delivered: SuiteSnapshot | None = None
    while True:
        began = time.monotonic()
        snapshot = feed.poll(watched())
        if snapshot != delivered and deliver(snapshot):
            delivered = snapshot
        pause = max(seconds, 9 * (time.monotonic() - began))
        if wait(CATCH_UP_SECONDS if feed.behind else pause):
            return
