"""warden.json: which process supervises a suite, and the state of both."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from datasets_mm.atomic_files import write_atomic
from results.text import renamed_words
from workbench.processes import tree
from workbench.processes.lanes import LaneStatus
from workbench.suites import state
from workbench.suites.suite import SuiteError, find_suite, list_suites

START_SECONDS: Final = 15.0
"""A suite without warden.json for longer than this counts as lost."""


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
    state: Annotated[
        state.WardenState, BeforeValidator(lambda word: renamed_words.WARDEN_STATES.get(word, word))
    ]
    detail: str = ""
    lanes: tuple[LaneStatus, ...] = ()
    """What each lane does; empty: the suite has no lanes."""
    started_wall: float = 0.0
    updated_wall: float = 0.0
    suspended: bool = False
    """The suite ended to be continued: its time limit, or a scheduler's signal."""
    job: str = ""
    """Slurm job of the warden, `1234_5`; empty: it runs in none."""
    records_lost: int = 0
    """Runs whose record could not be appended to results.jsonl; each has its summary.json."""


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


def is_starting(suite: Path) -> bool:
    """Whether the suite was made just now and its warden has written nothing yet."""
    try:
        age = time.time() - (suite / "plan.toml").stat().st_mtime
    except OSError:
        return False
    return age < START_SECONDS and not os.path.lexists(suite / "warden.json")


def write_warden(suite: Path, warden: WardenFile) -> None:
    """Replace warden.json atomically; only the warden and `recover_dead_suite` call this."""
    content = json.dumps(warden.model_dump(mode="json"), indent=1)
    write_atomic(suite / "warden.json", content + "\n")


def find_suites_at_work(log_root: Path) -> dict[Path, WardenFile]:
    """Suites with a living warden that has not ended, newest first."""
    at_work = {}
    for folder in list_suites(log_root):
        try:
            warden = read_warden(folder)
        except SuiteError:
            continue  # a colleague's; by its name it is refused with the reason
        if warden is not None and warden.state != "ended" and is_alive(warden):
            at_work[folder] = warden
    return at_work


def choose_suite_at_work(log_root: Path, name: str | None) -> Path | None:
    """The suite of that name; without one the only suite that is at work, None if there is none.

    Raises:
        SuiteError: no suite has the name, or several are at work.
    """
    if name is not None:
        return find_suite(log_root, name)
    at_work = find_suites_at_work(log_root)
    if len(at_work) > 1:
        listing = ", ".join(f"{folder.name} ({w.state})" for folder, w in at_work.items())
        raise SuiteError(f"{len(at_work)} suites are at work, name one of them: {listing}")
    return next(iter(at_work), None)


def is_here(warden: WardenFile) -> bool:
    """Whether its pid is valid in this pid namespace; two containers may share a host name."""
    if warden.place:
        return warden.place == tree.pid_namespace()
    return warden.host == socket.gethostname()


def is_alive(warden: WardenFile) -> bool:
    """Whether that process is alive; on another host, whether it wrote within a minute, and not
    that it has ended."""
    if not is_here(warden):
        return warden.state not in ("ended", "lost") and time.time() - warden.updated_wall < 60
    try:
        stat = Path(f"/proc/{warden.pid}/stat").read_text()
    except OSError:
        return False
    fields = stat.rpartition(")")[2].split()
    return fields[0] not in "ZX" and int(fields[19]) == warden.start_ticks
