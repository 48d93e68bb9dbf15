"""What people, and the searcher of a search, want of a suite: control.jsonl, read by its warden.

An order about the run at work is passed on to it; one about a later run is kept until its turn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from engines.protocol import Cause, RunSpec
from workbench.suites import suite
from workbench.suites.suite import Command


class AtWork(Protocol):
    """The run that is at work now."""

    spec: RunSpec

    def ask(self, cause: Cause, detail: str) -> None:
        """End it; asking again insists."""


class Orders:
    """Orders so far. `current` is the run at work, if there is one."""

    def __init__(self, folder: Path, *, resumed: bool = False) -> None:
        """`resumed`: what an earlier warden was told holds no more, but for runs taken out."""
        self.current: AtWork | None = None
        self.holding = False
        """Start no further run for now."""
        self.stopped = ""
        """Who stopped the suite; empty while nobody did."""
        self.added: list[RunSpec] = []
        """Runs that the searcher wants and that nobody has admitted yet."""
        self.closed = False
        """The searcher has said that no further run will come."""
        self._suite = folder
        self._file = folder / "control.jsonl"
        self._offset = 0
        self._kept: dict[str, tuple[Cause, str]] = {}
        if resumed and self._file.exists():
            self._offset = self._file.stat().st_size
            for command in suite.taken_out(folder).values():
                self._obey(command)

    def poll(self) -> list[Command]:
        """Read and obey what is new; returns it for the log."""
        try:
            size = self._file.stat().st_size  # a tenth of the cost of opening it
        except OSError:
            return []
        if size == self._offset:
            return []
        commands, self._offset = suite.read_commands(self._suite, self._offset)
        for command in commands:
            self._obey(command)
        return commands

    def stop(self, detail: str) -> None:
        """End the run at work and start no other."""
        self.stopped = self.stopped or detail
        if self.current is not None:
            self.current.ask("stopped", detail)

    def about(self, run_id: str) -> tuple[Cause, str] | None:
        """Why a run that has not started shall not do so any more."""
        if run_id in self._kept:
            return self._kept[run_id]
        if self.stopped:
            return "stopped", f"{self.stopped}, before this run started"
        return None

    def _obey(self, command: Command) -> None:
        by = f" by {command.by}" if command.by else ""
        match command.do:
            case "stop":
                self.stop(f"stopped{by}")
            case "skip":
                self._take_out(command.run, "skipped", f"skipped{by}")
            case "cancel":
                self._take_out(command.run, "stopped", f"cancelled{by}")
            case "prune":
                self._take_out(command.run, "pruned", command.why or f"pruned{by}")
            case "add":
                self.added += [command.spec] if command.spec else []
            case "close":
                self.closed = True
            case "hold" | "continue":
                self.holding = command.do == "hold"

    def _take_out(self, name: str | None, cause: Cause, detail: str) -> None:
        if self.current is not None and name in (None, self.current.spec.run_id):
            self.current.ask(cause, detail)
        elif name is not None:
            self._kept.setdefault(name, (cause, detail))
