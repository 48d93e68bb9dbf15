"""A run's journal and what it adds up to so far: one `write` feeds the file and the fold.

When the file is lost the fold goes on, so that the run still gets its verdict and its record.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Final, Literal

from engines import protocol
from engines.protocol import Message
from workbench.suites import state
from workbench.suites.journal import Journal, JournalLostError, Tail

Source = Literal["engine", "warden"]

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""A disk that may have room again; every other loss is for good."""


class Book:
    """The writer of one run's events.

    Raises (on opening):
        JournalBusyError, JournalLostError: see `Journal.open`.
    """

    def __init__(self, folder: Path, reserve: Path, *, keep_going: bool = False) -> None:
        """`keep_going`: a full disk costs entries, which are counted, and not the run."""
        self.state = state.fold(Tail(folder / "events.jsonl").read_all())
        self.problem = ""
        """Why the journal is lost; empty while it is not."""
        self.full = False
        """The disk had no room for the last entry, and the run goes on all the same."""
        self.lost = 0
        """Entries that are missing in the journal for want of room."""
        self._keep_going = keep_going
        self._said_full = False
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
            if self.full and isinstance(message, protocol.End):
                self._reserve.unlink(missing_ok=True)
            try:
                entry = self._journal.write(source, message)
                self.full = False
            except JournalLostError as error:
                self.lost += self._miss(error)
        self.state = state.advance(self.state, entry or self._unwritten(source, message))

    def sync(self, *, force: bool = False) -> None:
        """Make state changes durable; see `Journal.sync`."""
        if not self.problem:
            try:
                self._journal.sync(force=force)
            except JournalLostError as error:
                self._miss(error)

    def _miss(self, error: JournalLostError) -> bool:
        """Take note of what cannot be written; False: the journal is lost."""
        if not self._keep_going or error.errno not in FULL:
            self._lose(error)
            return False
        self.full = True
        if not self._said_full:
            self._say_full()
        return True

    def _say_full(self) -> None:
        """Half of the reserve is for saying so at once; the other half stays for the last words."""
        self._said_full = True
        text = "the disk is full: the run goes on, its journal has a gap from here on"
        notice = protocol.Notice(t=self.state.t, code="disk-full", text=text)
        try:
            os.truncate(self._reserve, self._reserve.stat().st_size // 2)
            entry = self._journal.write("warden", notice)
        except OSError:
            entry = self._unwritten("warden", notice)
        self.state = state.advance(self.state, entry)

    def _unwritten(self, source: Source, message: Message) -> protocol.Entry:
        """An entry for the fold alone; the journal's numbers show the gap."""
        number = self.state.last_seq + 1
        self._journal.sequence = number + 1
        return protocol.Entry(seq=number, wall=time.time(), src=source, msg=message)

    def _lose(self, error: JournalLostError) -> None:
        self.problem = self.problem or f"the journal is lost: {error.strerror}"
        self._reserve.unlink(missing_ok=True)  # its blocks are for the End and the record

    def close(self) -> None:
        """Give up the journal's lock."""
        self.sync(force=True)
        self._journal.close()


def leave_out(folder: Path, cause: protocol.Cause, detail: str, need: str = "") -> state.RunState:
    """End a run that does not start, or whose warden died; the state that comes of it."""
    with Journal.open(folder / "events.jsonl") as journal:
        before = state.fold(Tail(folder / "events.jsonl").read_all())
        end = protocol.End(t=before.t, cause=cause, detail=detail, need=need)
        entry = journal.write("warden", end)
        journal.sync(force=True)
    return state.advance(before, entry)
