"""A suite's folder: making it, reading it, and the two small files that steer it.

Everybody but the warden is a reader here. `Reader.poll` follows the journals of all runs and folds
them; it is the only way in which TUI, headless output, `attach` and reports learn anything.
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
"""A suite without a warden file for longer than this has lost its warden."""


_RUN: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""The alphabet of run ids."""

_CREATED: Final = "# created "
"""Begins the first line of plan.toml, which goes on with the time in UTC."""


class SuiteError(ValueError):
    """A suite that cannot be found, made or read; one sentence."""


class Command(BaseModel):
    """One line of control.jsonl: what a person, or the searcher, wants of the warden."""

    model_config = ConfigDict(frozen=True, extra="allow")

    do: Literal["stop", "skip", "cancel", "hold", "continue", "add", "prune", "close"]
    """The last three are the searcher's: one more run; end one; no further one will come."""
    run: str | None = None
    """The run that is meant; None: the one at work (`skip`), or the whole suite (`stop`)."""
    spec: RunSpec | None = None
    """The run to be added."""
    why: str = ""
    """One sentence about a run that is pruned."""
    wall: float = 0.0
    by: str = ""


class WardenFile(BaseModel):
    """warden.json: who owns the suite, and how it stands."""

    model_config = ConfigDict(frozen=True, extra="allow")

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: with the pid it names one process for good."""
    host: str
    place: str = ""
    """`tree.pid_place`: where the pid means this process; empty in files of version 0.1."""
    token: str
    state: state.WardenState
    detail: str = ""
    started_wall: float = 0.0
    updated_wall: float = 0.0
    records_lost: int = 0
    """Runs whose record could not be appended to results.jsonl; each has its summary.json."""


def create(log_root: Path, asked: plan.SuitePlan, specs: Sequence[RunSpec]) -> Path:
    """Make the folder of a new suite, with plan.toml and a spec.json for every run.

    Costing runs are told how far earlier forecasts of this log root were off. A search has no run
    yet: its one spec is what all trials will have in common.

    Raises:
        SuiteError: the log root cannot be written.
    """
    try:
        paths.make_private(log_root)
        folder = _new_folder(log_root, asked.name)
        (folder / "runs").mkdir(mode=0o700)
        told = cost_probe.calibrated(specs, log_root)
        named = [spec.model_copy(update={"suite": folder.name}) for spec in told]
        if asked.search is not None:
            searched = tuple(asked.search.ranges)
            trials.write_base(
                folder, trials.Base(trials=asked.search.trials, searched=searched, spec=named[0])
            )
            named = []
        for spec in named:
            run = folder / "runs" / spec.run_id
            run.mkdir(mode=0o700)
            (run / "spec.json").write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
        # Last: it is what makes readers take the folder for a suite.
        created = f"{_CREATED}{datetime.now(UTC).isoformat()}\n"
        (folder / "plan.toml").write_text(created + plan.dump(asked), encoding="utf-8")
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


def suites(log_root: Path) -> list[Path]:
    """All suites of a log root, the one created last first.

    By the first line of plan.toml: names carry local time, and a container in UTC and a login in
    Asia/Seoul are nine hours apart; the file's own time is that of a copy, after `cp -r` or git.
    """
    plans = [p for p in log_root.glob("*/plan.toml") if (p.parent / "runs").is_dir()]
    return [p.parent for p in sorted(plans, key=_creation_order, reverse=True)]


def _creation_order(plan_file: Path) -> tuple[float, str]:
    """When its suite was created, in seconds since the epoch, then the suite's name."""
    return created_wall(plan_file), plan_file.parent.name


def created_wall(plan_file: Path) -> float:
    """When a suite was created, in seconds since the epoch; 0 if its plan.toml has just gone.

    Version 0.1 wrote no such line; then it is the time of the file.
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


def find(log_root: Path, name: str | None) -> Path:
    """A suite by its name, a part of it, or its path; the newest without a name.

    Raises:
        SuiteError: there is none, or more than one fits.
    """
    if name and (Path(name) / "plan.toml").is_file():
        return Path(name).absolute()
    known = suites(log_root)
    if not known:
        raise SuiteError(f"{log_root}: no suites yet; start one with `workbench run`")
    if name is None:
        return known[0]
    fitting = [s for s in known if s.name == name] or [s for s in known if name in s.name]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise SuiteError(f"{log_root}: no suite '{name}'; `workbench ps --all` lists them")
    raise SuiteError(f"'{name}' fits {len(fitting)} suites; give more of the name")


def runs(suite: Path) -> list[tuple[Path, RunSpec]]:
    """The runs of a suite in their order.

    Raises:
        SuiteError: a spec.json is missing or broken.
    """
    found = []
    for name in sorted(run_names(suite), key=_place):
        folder = suite / "runs" / name
        try:
            spec = RunSpec.model_validate_json((folder / "spec.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise SuiteError(f"{folder}/spec.json cannot be read: {error}") from None
        found.append((folder, spec))
    return found


def run_names(suite: Path) -> list[str]:
    """The folders of its runs, in no order.

    Without what other programs leave in any folder that they look at: `.DS_Store`, `@eaDir`,
    `.ipynb_checkpoints`, `Thumbs.db`.

    Raises:
        OSError: the suite has no folder of runs.
    """
    with os.scandir(suite / "runs") as entries:
        return [entry.name for entry in entries if _RUN.fullmatch(entry.name) and entry.is_dir()]


def _place(name: str) -> tuple[int, str]:
    """By number: the hundredth run comes after the ninety-ninth."""
    number = name.partition("-")[0]
    return int(number) if number.isdecimal() else 0, name


def send(suite: Path, command: Command) -> None:
    """Append one command for the warden to control.jsonl."""
    command = command.model_copy(update={"wall": time.time(), "by": f"pid {os.getpid()}"})
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(suite / "control.jsonl", flags, 0o600)
    try:
        os.write(descriptor, command.model_dump_json().encode() + b"\n")
    finally:
        os.close(descriptor)


def read_commands(suite: Path, offset: int) -> tuple[list[Command], int]:
    """Commands since a byte offset, and the offset after them.

    Broken lines are passed over, and ones of more than `journal.READ_BYTES` piece by piece: no
    command is that long, and none behind it may wait for it.
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


def taken_out(suite: Path) -> dict[str, Command]:
    """Runs that were skipped, cancelled or pruned by name, with the first such order about each."""
    found: dict[str, Command] = {}
    offset, before = 0, -1
    while offset != before:
        before = offset
        commands, offset = read_commands(suite, offset)
        for command in commands:
            if command.do in ("skip", "cancel", "prune") and command.run is not None:
                found.setdefault(command.run, command)
    return found


def again(suite: Path, found: state.SuiteState) -> set[str]:
    """The runs that ended before the present warden began, and that it has still to try again."""
    since = found.started_wall
    if found.ended or since is None:
        return set()
    out = taken_out(suite)
    return {
        run.spec.run_id
        for run in found.runs
        if state.unfinished(run.state)
        and run.spec.run_id not in out
        and (run.state.end is None or (run.state.ended_wall or since) < since)
    }


def read_warden(suite: Path) -> WardenFile | None:
    """warden.json, or None while there is none.

    Raises:
        SuiteError: there is one that cannot be read (a colleague's, say), so that nobody can tell
            whether the suite is at work.
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
    """Replace warden.json atomically; only the warden (or who buries it) calls this."""
    replace(suite / "warden.json", json.dumps(warden.model_dump(mode="json"), indent=1))


def replace(path: Path, text: str) -> None:
    """A new content for a small file, whole or not at all; never written through a link."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    fresh.replace(path)


def is_here(warden: WardenFile) -> bool:
    """Whether its pid means the same process here; two containers may have one host's name."""
    if warden.place:
        return warden.place == tree.pid_place()
    return warden.host == socket.gethostname()


def alive(warden: WardenFile) -> bool:
    """Whether that very process still lives; elsewhere, whether it wrote within a minute."""
    if not is_here(warden):
        return time.time() - warden.updated_wall < 60
    try:
        stat = Path(f"/proc/{warden.pid}/stat").read_text()
    except OSError:
        return False
    fields = stat.rpartition(")")[2].split()
    return fields[0] not in "ZX" and int(fields[19]) == warden.start_ticks


class Reader:
    """Follows one suite. `poll` costs a few stat calls when nothing has happened."""

    def __init__(self, suite: Path) -> None:
        self.suite = suite
        self._views: list[state.RunView] = []
        self._tails: list[journal.Tail] = []
        self.bad_lines = 0
        """Journal lines that could not be read."""
        self._meet_new_runs()
        try:
            common = trials.base(suite)
        except trials.TrialError as error:
            raise SuiteError(str(error)) from None
        self._trials = common.trials if common else 0

    def _meet_new_runs(self) -> None:
        """A search's runs come one by one, and no run ever goes."""
        if len(run_names(self.suite)) == len(self._views):
            return
        known = {view.folder: index for index, view in enumerate(self._views)}
        views, tails = [], []
        for folder, spec in runs(self.suite):
            index = known.get(folder.name)
            if index is None:
                views.append(state.RunView(spec, folder.name))
                tails.append(journal.Tail(folder / "events.jsonl"))
            else:
                views.append(self._views[index])
                tails.append(self._tails[index])
        self._views, self._tails = views, tails

    def poll(self) -> state.SuiteState:
        """The suite as its files tell it now."""
        warden = read_warden(self.suite)
        ended = warden is None or not alive(warden)  # asked before the journals are read
        self._meet_new_runs()
        for index, tail in enumerate(self._tails):
            while entries := tail.poll():
                view = self._views[index]
                folded = state.fold(entries, view.state)
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
