"""Queue of commands to a warden: control.jsonl, written by people and by the searcher.

A command about a run at work is passed on to it; one about a later run is kept until its turn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from engines.messages import Cause
from engines.protocol import RunSpec
from workbench.suites import control
from workbench.suites.control import Command


class WorkingRun(Protocol):
    """An attempt at work, as far as commands concern it."""

    spec: RunSpec

    def request_stop(self, cause: Cause, detail: str) -> None:
        """Start its shutdown; a repeated request goes to the next stage."""


class ControlQueue:
    """State after all commands read so far; `working`: the attempts at work."""

    def __init__(self, folder: Path, *, resumed: bool = False, offset: int | None = None) -> None:
        """`resumed`: of the commands to an earlier warden only removals of runs still hold.

        `offset`: byte of control.jsonl after them; None: all that are there.
        """
        self.working: list[WorkingRun] = []
        self.paused = False
        """Start no further run for now."""
        self.stopped = ""
        """Who stopped the suite; empty while nobody did."""
        self.suspended = False
        """It was stopped to be continued: by its time limit, or by a scheduler's signal."""
        self.added_specs: list[RunSpec] = []
        """Runs requested by the searcher and not admitted yet."""
        self.closed = False
        """The searcher has said that no further run will come."""
        self._suite = folder
        self._file = folder / "control.jsonl"
        self._offset = 0
        self._removed: dict[str, tuple[Cause, str]] = {}
        if resumed and self._file.exists():
            self._offset = self._file.stat().st_size if offset is None else offset
            for command in control.read_removed_runs(folder).values():
                self._apply(command)

    def poll(self) -> list[Command]:
        """Read and apply new commands; returns them for the log."""
        try:
            size = self._file.stat().st_size  # a tenth of the cost of opening it
        except OSError:
            return []
        if size == self._offset:
            return []
        commands, self._offset = control.read_commands(self._suite, self._offset)
        for command in commands:
            self._apply(command)
        return commands

    def stop(self, detail: str) -> None:
        """Stop the runs at work and start no other."""
        self.stopped = self.stopped or detail
        for run in self.working:
            run.request_stop("stopped", detail)

    def suspend(self, reason: str) -> None:
        """Stop as `stop` does; the suite is to be continued by `workbench resume`."""
        if not self.stopped:
            self.suspended = True
        self.stop(f"stopped {reason}; `workbench resume` goes on")

    def stop_reason(self, run_id: str) -> tuple[Cause, str] | None:
        """Cause and detail for a run that must not start any more; None: it may start."""
        if run_id in self._removed:
            return self._removed[run_id]
        if self.stopped:
            return "stopped", f"{self.stopped}, before this run started"
        return None

    def _apply(self, command: Command) -> None:
        by = f" by {command.by}" if command.by else ""
        match command.do:
            case "stop":
                self.stop(f"stopped{by}")
            case "suspend":
                self.suspend(f"for a later session{by}")
            case "skip":
                self._remove_run(command.run, "skipped", f"skipped{by}")
            case "cancel":
                self._remove_run(command.run, "stopped", f"cancelled{by}")
            case "prune":
                self._remove_run(command.run, "pruned", command.why or f"pruned{by}")
            case "restore" if command.run is not None:
                self._removed.pop(command.run, None)
            case "add":
                self.added_specs += [command.spec] if command.spec else []
            case "close":
                self.closed = True
            case "pause" | "resume":
                self.paused = command.do == "pause"

    def _remove_run(self, name: str | None, cause: Cause, detail: str) -> None:
        """`name` None: the run that has been at work the longest."""
        fitting = [run for run in self.working if name in (None, run.spec.run_id)]
        if fitting:
            fitting[0].request_stop(cause, detail)
        elif name is not None:
            self._removed.setdefault(name, (cause, detail))
