"""control.jsonl: commands to the warden of a suite, appended by whoever steers it."""

from __future__ import annotations

import errno
import getpass
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from engines.protocol import RunSpec
from results.text import renamed_words
from workbench.slurm import commands, queue, submission
from workbench.suites import journal
from workbench.suites.orders import Orders


class Command(BaseModel):
    """One line of control.jsonl: a command of a person or of the searcher to the warden."""

    model_config = ConfigDict(frozen=True, extra="allow")

    do: Annotated[
        Literal[
            "stop",
            "suspend",
            "skip",
            "cancel",
            "restore",
            "pause",
            "resume",
            "add",
            "prune",
            "close",
        ],
        BeforeValidator(lambda word: renamed_words.COMMANDS.get(word, word)),
    ]
    """`suspend`: stop, to be continued, as at a time limit. `restore`: takes back that a run is
    skipped or cancelled. The last three come from the searcher: add a run, prune one, no more will
    come."""
    run: str | None = None
    """Run id; None: of the runs at work the first (`skip`), or the whole suite (`stop`)."""
    spec: RunSpec | None = None
    """The run to be added."""
    why: str = ""
    """One sentence about a run that is pruned."""
    wall: float = 0.0
    by: str = ""


def send_command(suite: Path, command: Command) -> None:
    """Append one command to control.jsonl, with time and sender.

    Jobs of Slurm that still wait would read it when they start; they are cancelled at once.

    Raises:
        OSError: it cannot be written, or a full disk took a part of it only.
    """
    command = command.model_copy(update={"wall": time.time(), "by": _user_name()})
    line = command.model_dump_json().encode() + b"\n"
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    path = suite / "control.jsonl"
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a part of an earlier one
            line = b"\n" + line
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(descriptor)
    if command.do in ("stop", "skip", "cancel"):
        _cancel_waiting_jobs(suite, command)


def _cancel_waiting_jobs(suite: Path, command: Command) -> None:
    """Cancel the pending job of the command's run, or of all runs, without waiting."""
    submitted = submission.read_submission(suite)
    if submitted is None or (command.do != "stop" and command.run is None):
        return
    job = submitted.jobs.get(command.run or "")
    if command.run and not job:
        return
    chosen = job or f"--name={suite.name}"
    commands.start_command("scancel", "--quiet", "--state=PENDING", chosen)
    queue.WATCH.hurry()


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
    """Runs that were skipped, cancelled or pruned by name, and not restored -> the first order."""
    removed: dict[str, Command] = {}
    for command in _read_all(suite):
        _apply_removal(command, removed)
    return removed


def read_orders(suite: Path, since: float) -> Orders:
    """All orders of a suite; pauses and stops only from the time `since` on (seconds since the
    epoch): a warden that started then obeys no earlier ones."""
    removed: dict[str, Command] = {}
    paused, stopped = None, False
    for command in _read_all(suite):
        _apply_removal(command, removed)
        if command.wall < since:
            continue
        if command.do in ("pause", "resume"):
            paused = command.do == "pause"
        stopped = stopped or command.do in ("stop", "suspend")
    return Orders(paused, stopped, {run: command.do for run, command in removed.items()})


def _apply_removal(command: Command, removed: dict[str, Command]) -> None:
    if command.run is None:
        return
    if command.do in ("skip", "cancel", "prune"):
        removed.setdefault(command.run, command)
    elif command.do == "restore":
        removed.pop(command.run, None)


def _read_all(suite: Path) -> Iterator[Command]:
    offset, before = 0, -1
    while offset != before:
        before = offset
        commands, offset = read_commands(suite, offset)
        yield from commands


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a passwd entry
        return f"user {os.getuid()}"
