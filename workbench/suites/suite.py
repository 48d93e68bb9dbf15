"""Suite folder: creation, reading, control.jsonl and warden.json.

`SuiteReader.poll` follows the journals of all runs and computes the state of the suite, for TUI,
headless output, `attach` and reports.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from engines.protocol import RunSpec
from workbench import paths
from workbench.planning import cost_probe, plan
from workbench.processes import device_locks, tree
from workbench.suites import journal, state, trials

WARDEN_START_SECONDS: Final = 15.0
"""A suite without warden.json for longer than this counts as lost."""


_RUN: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""The alphabet of run ids."""

_CREATED: Final = "# created "
"""Prefix of the first line of plan.toml; the creation time in UTC follows."""


class SuiteError(ValueError):
    """A suite that cannot be found, made or read; one sentence."""


class Command(BaseModel):
    """One line of control.jsonl: a command of a person or of the searcher to the warden."""

    model_config = ConfigDict(frozen=True, extra="allow")

    do: Literal["stop", "skip", "cancel", "hold", "continue", "add", "prune", "close"]
    """The last three come from the searcher: add a run, prune one, no more will come."""
    run: str | None = None
    """Run id; None: the current run (`skip`), or the whole suite (`stop`)."""
    spec: RunSpec | None = None
    """The run to be added."""
    why: str = ""
    """One sentence about a run that is pruned."""
    wall: float = 0.0
    by: str = ""


class WardenFile(BaseModel):
    """warden.json: the process of the suite's warden, and its state."""

    model_config = ConfigDict(frozen=True, extra="allow")

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: with the pid it identifies one process."""
    host: str
    place: str = ""
    """`tree.pid_namespace`: where the pid means this process; empty in files of version 0.1."""
    token: str
    state: state.WardenState
    detail: str = ""
    started_wall: float = 0.0
    updated_wall: float = 0.0
    records_lost: int = 0
    """Runs whose record could not be appended to results.jsonl; each has its summary.json."""


def create_suite(log_root: Path, suite_plan: plan.SuitePlan, specs: Sequence[RunSpec]) -> Path:
    """Create the folder of a new suite, with plan.toml and a spec.json for every run.

    Cost probes get the calibration from earlier forecasts of this log root. A search has no run
    yet: its one spec is the common part of all trials.

    Raises:
        SuiteError: the log root cannot be written.
    """
    try:
        paths.make_private(log_root)
        folder = _new_folder(log_root, suite_plan.name)
        (folder / "runs").mkdir(mode=0o700)
        calibrated = cost_probe.calibrate_probes(specs, log_root)
        named = [spec.model_copy(update={"suite": folder.name}) for spec in calibrated]
        if suite_plan.search is not None:
            searched = tuple(suite_plan.search.ranges)
            trials.write_base(
                folder,
                trials.SearchBase(
                    trials=suite_plan.search.trials, searched=searched, spec=named[0]
                ),
            )
            named = []
        for spec in named:
            run = folder / "runs" / spec.run_id
            run.mkdir(mode=0o700)
            (run / "spec.json").write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
        # Last: it is what makes readers take the folder for a suite.
        created = f"{_CREATED}{datetime.now(UTC).isoformat()}\n"
        (folder / "plan.toml").write_text(created + plan.dump(suite_plan), encoding="utf-8")
    except OSError as error:
        raise SuiteError(
            f"{log_root}: suites cannot be written there ({error.strerror}); "
            "give another folder with --log-root"
        ) from None
    return folder


def _new_folder(log_root: Path, name: str) -> Path:
    for _ in range(100):
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = log_root / f"{stamp}-{name}-{secrets.token_hex(2)}"
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return folder
    raise SuiteError(f"{log_root}: no free name for a new suite; try again")


def list_suites(log_root: Path) -> list[Path]:
    """All suites of a log root, newest first.

    Sorted by the first line of plan.toml: names have local time, which differs between a container
    and its host, and the time of the file is that of a copy after `cp -r` or git.
    """
    plans = [p for p in log_root.glob("*/plan.toml") if (p.parent / "runs").is_dir()]
    return [p.parent for p in sorted(plans, key=_creation_order, reverse=True)]


def _creation_order(plan_file: Path) -> tuple[float, str]:
    """Creation time in seconds since the epoch, then the suite's name."""
    return read_creation_time(plan_file), plan_file.parent.name


def read_creation_time(plan_file: Path) -> float:
    """Creation time of a suite in seconds since the epoch; 0: its plan.toml was just deleted.

    Version 0.1 wrote no such line; for its suites it is the modification time of the file.
    """
    try:
        first = ""
        if plan_file.is_file():  # a FIFO would wait
            with plan_file.open(encoding="utf-8", errors="replace") as file:
                first = file.readline(100)
        if first.startswith(_CREATED):
            return datetime.fromisoformat(first.removeprefix(_CREATED).strip()).timestamp()
    except (OSError, ValueError):
        pass
    try:
        return plan_file.stat().st_mtime
    except OSError:
        return 0.0


def find_suite(log_root: Path, name: str | None) -> Path:
    """A suite by its name, a part of it, or its path; the newest without a name.

    Raises:
        SuiteError: there is none, or more than one fits.
    """
    if name and (Path(name) / "plan.toml").is_file():
        return Path(name).absolute()
    folders = list_suites(log_root)
    if not folders:
        raise SuiteError(f"{log_root}: no suites yet; start one with `workbench run`")
    if name is None:
        return folders[0]
    fitting = [s for s in folders if s.name == name] or [s for s in folders if name in s.name]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise SuiteError(f"{log_root}: no suite '{name}'; `workbench ps --all` lists them")
    raise SuiteError(f"'{name}' fits {len(fitting)} suites; give more of the name")


def read_runs(suite: Path) -> list[tuple[Path, RunSpec]]:
    """The runs of a suite in their order.

    Raises:
        SuiteError: a spec.json is missing or broken.
    """
    specs = []
    for name in sorted(list_run_names(suite), key=_run_order):
        folder = suite / "runs" / name
        try:
            spec = RunSpec.model_validate_json((folder / "spec.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise SuiteError(f"{folder}/spec.json cannot be read: {error}") from None
        specs.append((folder, spec))
    return specs


def list_run_names(suite: Path) -> list[str]:
    """Names of its run folders, unordered.

    Without folders of other programs: `.DS_Store`, `@eaDir`, `.ipynb_checkpoints`, `Thumbs.db`.

    Raises:
        OSError: the suite has no folder of runs.
    """
    with os.scandir(suite / "runs") as entries:
        return [entry.name for entry in entries if _RUN.fullmatch(entry.name) and entry.is_dir()]


def _run_order(name: str) -> tuple[int, str]:
    """Sort key: number, then name."""
    number = name.partition("-")[0]
    return int(number) if number.isdecimal() else 0, name


def send_command(suite: Path, command: Command) -> None:
    """Append one command to control.jsonl, with time and sender."""
    command = command.model_copy(update={"wall": time.time(), "by": f"pid {os.getpid()}"})
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(suite / "control.jsonl", flags, 0o600)
    try:
        os.write(descriptor, command.model_dump_json().encode() + b"\n")
    finally:
        os.close(descriptor)


def read_commands(suite: Path, offset: int) -> tuple[list[Command], int]:
    """Commands after a byte offset, and the offset after them.

    Broken lines are skipped, and lines of more than `journal.READ_BYTES` piece by piece, so that
    later commands are still read.
    """
    try:
        with (suite / "control.jsonl").open("rb") as file:
            file.seek(offset)
            data = file.read(journal.READ_BYTES)
    except FileNotFoundError:
        return [], offset
    if len(data) == journal.READ_BYTES and b"\n" not in data:
        return [], offset + len(data)
    whole = data[: data.rfind(b"\n") + 1]
    commands = []
    for line in whole.splitlines():
        try:
            commands.append(Command.model_validate_json(line))
        except ValidationError:
            continue
    return commands, offset + len(whole)


def read_removed_runs(suite: Path) -> dict[str, Command]:
    """Runs that were skipped, cancelled or pruned by name -> the first such command."""
    removed: dict[str, Command] = {}
    offset, before = 0, -1
    while offset != before:
        before = offset
        commands, offset = read_commands(suite, offset)
        for command in commands:
            if command.do in ("skip", "cancel", "prune") and command.run is not None:
                removed.setdefault(command.run, command)
    return removed


def runs_to_retry(suite: Path, suite_state: state.SuiteState) -> set[str]:
    """Ids of runs that ended before the current warden started and that it will try again."""
    since = suite_state.started_wall
    if suite_state.ended or since is None:
        return set()
    removed = read_removed_runs(suite)
    return {
        run.spec.run_id
        for run in suite_state.runs
        if state.is_unfinished(run.state)
        and run.spec.run_id not in removed
        and (run.state.end is None or (run.state.ended_wall or since) < since)
    }


def read_warden(suite: Path) -> WardenFile | None:
    """warden.json, or None while there is none.

    Raises:
        SuiteError: it exists and cannot be read (another user's, for example).
    """
    path = suite / "warden.json"
    try:
        if not os.path.lexists(path):  # a dangling link is one that cannot be read
            return None
        content = path.read_bytes()
    except OSError as error:
        raise SuiteError(
            f"{suite.name}: its warden.json cannot be read ({error.strerror}), so whether it is at "
            "work is not known; ask its owner, or look as that user"
        ) from None
    try:
        return WardenFile.model_validate_json(content)
    except ValidationError:
        return None


def write_warden(suite: Path, warden: WardenFile) -> None:
    """Replace warden.json atomically; only the warden and `recover_dead_suite` call this."""
    replace_file(suite / "warden.json", json.dumps(warden.model_dump(mode="json"), indent=1))


def replace_file(path: Path, text: str) -> None:
    """Replace a small file atomically; never writes through a symbolic link."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    fresh.replace(path)


def is_here(warden: WardenFile) -> bool:
    """Whether its pid is valid in this pid namespace; two containers may share a host name."""
    if warden.place:
        return warden.place == tree.pid_namespace()
    return warden.host == socket.gethostname()


def is_alive(warden: WardenFile) -> bool:
    """Whether that process is alive; on another host, whether it wrote within a minute."""
    if not is_here(warden):
        return time.time() - warden.updated_wall < 60
    try:
        stat = Path(f"/proc/{warden.pid}/stat").read_text()
    except OSError:
        return False
    fields = stat.rpartition(")")[2].split()
    return fields[0] not in "ZX" and int(fields[19]) == warden.start_ticks


class SuiteReader:
    """Incremental reader of one suite; a `poll` without news costs a few stat calls."""

    def __init__(self, suite: Path) -> None:
        self.suite = suite
        self._views: list[state.RunView] = []
        self._tails: list[journal.Tail] = []
        self.bad_lines = 0
        """Number of journal lines that could not be decoded."""
        self._add_new_runs()
        try:
            common = trials.read_base(suite)
        except trials.TrialError as error:
            raise SuiteError(str(error)) from None
        self._trials = common.trials if common else 0

    def _add_new_runs(self) -> None:
        """Add runs that are new: a search's come one by one, and none is ever removed."""
        if len(list_run_names(self.suite)) == len(self._views):
            return
        indexes = {view.folder: index for index, view in enumerate(self._views)}
        views, tails = [], []
        for folder, spec in read_runs(self.suite):
            index = indexes.get(folder.name)
            if index is None:
                views.append(state.RunView(spec, folder.name))
                tails.append(journal.Tail(folder / "events.jsonl"))
            else:
                views.append(self._views[index])
                tails.append(self._tails[index])
        self._views, self._tails = views, tails

    def poll(self) -> state.SuiteState:
        """The present state of the suite."""
        warden = read_warden(self.suite)
        ended = warden is None or not is_alive(warden)  # before the journals are read
        self._add_new_runs()
        for index, tail in enumerate(self._tails):
            while entries := tail.poll():
                view = self._views[index]
                folded = state.reduce_entries(entries, view.state)
                self._views[index] = state.RunView(view.spec, view.folder, folded)
        self.bad_lines = sum(tail.bad for tail in self._tails)
        return state.SuiteState(
            name=self.suite.name,
            warden=self._warden_state(warden, gone=ended),
            warden_pid=warden.pid if warden else None,
            detail=warden.detail if warden else "",
            started_wall=warden.started_wall if warden else None,
            records_lost=warden.records_lost if warden else 0,
            runs=tuple(self._views),
            trials=self._trials,
        )

    def _warden_state(self, warden: WardenFile | None, *, gone: bool) -> state.WardenState:
        if warden is None:
            if device_locks.is_held(self.suite / "warden.lock"):
                return "running"  # its file was deleted; it is written anew within 20 s
            age = time.time() - (self.suite / "plan.toml").stat().st_mtime
            return "starting" if age < WARDEN_START_SECONDS else "lost"
        if warden.state == "ended" or not gone:
            return warden.state
        return "lost"
