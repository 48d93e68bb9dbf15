"""A run's journal and what it adds up to so far: one `write` feeds the file and the fold.

When the file is lost the fold goes on, so that the run still gets its verdict and its record.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from engines import protocol
from engines.protocol import Message
from workbench import state
from workbench.journal import Journal, JournalLostError, Tail

Source = Literal["engine", "warden"]


class Book:
    """The writer of one run's events.

    Raises (on opening):
        JournalBusyError, JournalLostError: see `Journal.open`.
    """

    def __init__(self, folder: Path, reserve: Path) -> None:
        self.state = state.fold(Tail(folder / "events.jsonl").read_all())
        self.problem = ""
        """Why the journal is lost; empty while it is not."""
        self._journal = Journal.open(folder / "events.jsonl")
        self._reserve = reserve

    @property
    def sealed(self) -> int:
        """Torn tails of an earlier writer that were closed off."""
        return self._journal.sealed

    @property
    def size(self) -> int:
        """Bytes in the journal."""
        return self._journal.size

    def write(self, message: Message, source: Source = "warden") -> None:
        """Add one message. After a loss only the End is tried again: the last words."""
        entry = None
        if not self.problem or isinstance(message, protocol.End):
            try:
                entry = self._journal.write(source, message)
            except JournalLostError as error:
                self._lose(error)
        if entry is None:  # not in the journal, which shall show the gap
            number = self.state.last_seq + 1
            entry = protocol.Entry(seq=number, wall=time.time(), src=source, msg=message)
            self._journal.sequence = number + 1
        self.state = state.advance(self.state, entry)

    def sync(self, *, force: bool = False) -> None:
        """Make state changes durable; see `Journal.sync`."""
        if not self.problem:
            try:
                self._journal.sync(force=force)
            except JournalLostError as error:
                self._lose(error)

    def _lose(self, error: JournalLostError) -> None:
        self.problem = self.problem or f"the journal is lost: {error.strerror}"
        self._reserve.unlink(missing_ok=True)  # its blocks are for the End and the record

    def close(self) -> None:
        """Give up the journal's lock."""
        self.sync(force=True)
        self._journal.close()


def leave_out(folder: Path, cause: protocol.Cause, detail: str) -> state.RunState:
    """End a run that does not start, or whose warden died; the state that comes of it."""
    with Journal.open(folder / "events.jsonl") as journal:
        before = state.fold(Tail(folder / "events.jsonl").read_all())
        end = protocol.End(t=before.t, cause=cause, detail=detail)
        entry = journal.write("warden", end)
        journal.sync(force=True)
    return state.advance(before, entry)
