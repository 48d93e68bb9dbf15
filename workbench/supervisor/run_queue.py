"""Queue of a suite's runs: which may start now, which wait, and which must not start.

Runs start in their order, but one whose need is not over yet lets the next ones pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engines.messages import Cause
from engines.protocol import RunSpec
from workbench.suites.journal import Tail
from workbench.suites.state import RunState, is_unfinished, reduce_entries
from workbench.supervisor.control_queue import ControlQueue


@dataclass(eq=False)
class QueuedRun:
    """A run of the suite that has not ended for this warden."""

    folder: Path
    spec: RunSpec
    state: RunState | None = None
    """After the last attempt; None: its journal was not read yet."""
    retry: bool = False
    """It starts again with less memory."""

    @property
    def run_id(self) -> str:
        return self.spec.run_id

    def read_state(self) -> RunState:
        """Its state before the next attempt."""
        if self.state is None:
            self.state = reduce_entries(Tail(self.folder / "events.jsonl").read_all())
        return self.state


class Refusal(NamedTuple):
    """Why a run must not start."""

    run: QueuedRun
    cause: Cause
    detail: str
    need: str = ""
    """The run whose end is the reason."""


class RunQueue:
    """Runs that wait (`pending`) and runs at work (`running`), both in their order."""

    def __init__(self, control: ControlQueue, *, resumed: bool) -> None:
        """`resumed`: runs that ended unfinished are executed again."""
        self.pending: list[QueuedRun] = []
        self.running: list[QueuedRun] = []
        self._control = control
        self._resumed = resumed
        self._causes: dict[str, str] = {}

    def add(self, folder: Path, spec: RunSpec) -> None:
        """Add a run at the end."""
        self.pending.append(QueuedRun(folder, spec))

    def note_cause(self, run_id: str, cause: str) -> None:
        """How a run ended that is not in this queue; empty: it has not."""
        self._causes[run_id] = cause

    def take_refused(self, *, turn: bool) -> list[Refusal]:
        """Remove the runs that are over already, and those that must not start, which it returns.

        A refused run's cause counts at once for the runs that need it. `turn`: a lane is free, so
        that it is the turn of the first run: until then an order to leave a run out may be taken
        back.
        """
        refusals: list[Refusal] = []
        ahead = {run.run_id for run in self.running}
        for run in list(self.pending):
            if self._is_over(run):
                self._remove(run, run.read_state().cause)
            elif (refusal := self._find_refusal(run, ahead, turn=turn)) is not None:
                self._remove(run, run.read_state().cause or refusal.cause)
                refusals.append(refusal)
            else:
                ahead.add(run.run_id)
                turn = turn and not self._needs_are_met(run)
        return refusals

    def startable(self) -> Iterator[QueuedRun]:
        """Pending runs that may start now, as far as other runs of the suite are concerned.

        After `take_refused`. A run that wants the host for itself starts when no other is at work,
        and none passes it.
        """
        if any(run.spec.exclusive for run in self.running):
            return
        for run in list(self.pending):
            if not self._needs_are_met(run) or self._control.stop_reason(run.run_id) is not None:
                continue
            if run.spec.exclusive:
                if not self.running:
                    yield run
                return
            yield run

    def _needs_are_met(self, run: QueuedRun) -> bool:
        return all(self._causes.get(need) == "completed" for need in run.spec.needs)

    def start(self, run: QueuedRun) -> None:
        """Move a run from pending to running."""
        self.pending.remove(run)
        self.running.append(run)

    def end(self, run: QueuedRun, ended: RunState, *, retry: bool) -> None:
        """Take a run from running; `retry`: it is the next one to start again."""
        self.running.remove(run)
        run.state, run.retry = ended, retry
        if retry:
            self.pending.insert(0, run)
        else:
            self._causes[run.run_id] = ended.cause

    def _remove(self, run: QueuedRun, cause: str) -> None:
        self.pending.remove(run)
        self._causes[run.run_id] = cause

    def _is_over(self, run: QueuedRun) -> bool:
        before = run.read_state()
        if before.end is None or run.retry:
            return False
        return not (self._resumed and is_unfinished(before))

    def _find_refusal(self, run: QueuedRun, ahead: set[str], *, turn: bool) -> Refusal | None:
        """`ahead`: ids of the runs before it that are not over; `turn`: none of them may start."""
        order = self._control.stop_reason(run.run_id)
        if order is not None and (turn or self._control.stopped):
            return Refusal(run, *order)
        for need in run.spec.needs:
            if need not in ahead and (cause := self._causes.get(need)) != "completed":
                how = f"ended as {cause}" if cause else "is no earlier run of this suite"
                return Refusal(run, "skipped", f"needs {need}, which {how}", need)
        return None
