"""Event log of a run: one `write` appends to the journal and advances the run's state.

When the journal is lost the state still advances, so that the run gets its exit cause and record.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import Final, Literal

from engines import messages, protocol
from engines.messages import Message
from workbench.suites import state
from workbench.suites.journal import Journal, JournalLostError, Tail

Source = Literal["engine", "warden"]

DISK_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a full disk, which may have room again; every other loss is final."""


class EventLog:
    """The writer of one run's events.

    Raises (in the constructor):
        JournalBusyError, JournalLostError: see `Journal.open`.
    """

    def __init__(self, folder: Path, reserve: Path, *, keep_going: bool = False) -> None:
        """`keep_going`: a full disk costs entries, which are counted, and not the run."""
        self.state = state.reduce_entries(Tail(folder / "events.jsonl").read_all())
        self.problem = ""
        """Why the journal is lost; empty while it is not."""
        self.full = False
        """The disk had no room for the last entry; the run goes on (`keep_going`)."""
        self.lost = 0
        """Entries missing in the journal because the disk was full."""
        self._keep_going = keep_going
        self._disk_full_noted = False
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
        """Append one message. After the journal is lost only an End is tried again."""
        entry = None
        if not self.problem or isinstance(message, messages.End):
            if self.full and isinstance(message, messages.End):
                self._reserve.unlink(missing_ok=True)
            try:
                entry = self._journal.write(source, message)
                self.full = False
            except JournalLostError as error:
                self.lost += self._handle_loss(error)
        self.state = state.advance(self.state, entry or self._make_unwritten_entry(source, message))

    def sync(self, *, force: bool = False) -> None:
        """Make state changes durable; see `Journal.sync`."""
        if not self.problem:
            try:
                self._journal.sync(force=force)
            except JournalLostError as error:
                self._handle_loss(error)

    def _handle_loss(self, error: JournalLostError) -> bool:
        """Note an entry that cannot be written. False: the journal is lost."""
        if not self._keep_going or error.errno not in DISK_FULL_ERRNOS:
            self._mark_lost(error)
            return False
        self.full = True
        if not self._disk_full_noted:
            self._write_disk_full_notice()
        return True

    def _write_disk_full_notice(self) -> None:
        """Write the notice with half of the reserve; the other half is for the last events."""
        self._disk_full_noted = True
        text = "the disk is full: the run goes on, its journal has a gap from here on"
        notice = messages.Notice(t=self.state.t, code="disk-full", text=text)
        try:
            os.truncate(self._reserve, self._reserve.stat().st_size // 2)
            entry = self._journal.write("warden", notice)
        except OSError:
            entry = self._make_unwritten_entry("warden", notice)
        self.state = state.advance(self.state, entry)

    def _make_unwritten_entry(self, source: Source, message: Message) -> protocol.Entry:
        """An entry that only advances the state; the gap in sequence numbers shows it."""
        number = self.state.last_seq + 1
        self._journal.sequence = number + 1
        return protocol.Entry(seq=number, wall=time.time(), src=source, msg=message)

    def _mark_lost(self, error: JournalLostError) -> None:
        self.problem = self.problem or f"the journal is lost: {error.strerror}"
        self._reserve.unlink(missing_ok=True)  # its blocks are for the End and the record

    def close(self) -> None:
        """Give up the journal's lock."""
        self.sync(force=True)
        self._journal.close()


def write_end(folder: Path, cause: messages.Cause, detail: str, need: str = "") -> state.RunState:
    """Write the End of a run that does not start, or whose warden died; returns its state."""
    with Journal.open(folder / "events.jsonl") as journal:
        before = state.reduce_entries(Tail(folder / "events.jsonl").read_all())
        end = messages.End(t=before.t, cause=cause, detail=detail, need=need)
        entry = journal.write("warden", end)
        journal.sync(force=True)
    return state.advance(before, entry)


def make_reserve(path: Path, size: int) -> Path:
    """A file of `size` bytes, if there is room, that is deleted when the disk is full."""
    with contextlib.suppress(OSError), path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    return path


def end_without_journal(error: Exception) -> state.RunState:
    """The ended state of a run whose journal cannot be written, for its record."""
    end = messages.End(cause="storage-lost", detail=f"the journal cannot be written: {error}")
    return state.reduce_entries([protocol.Entry(seq=0, wall=time.time(), src="warden", msg=end)])
