"""Journal of a run (events.jsonl): one writer, which loses no acknowledged entry, and readers.

A line is one `os.write` to an O_APPEND descriptor. A torn last line is sealed with a newline before
the next one is written; otherwise both would be unreadable. Readers skip and count lines that they
cannot decode.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from engines import protocol
from engines.messages import Message
from engines.protocol import Entry

ENTRY_BYTES: Final = protocol.MAX_LINE + 1024
"""Longest entry: the longest message and the fields around it."""

BEST_EFFORT: Final = frozenset({"step", "progress", "sample", "metric", "notice", "memory"})
"""Kinds whose fsync may be delayed by up to a second; all others are state changes."""

READ_BYTES: Final = 65_536
TURN_BYTES: Final = 16_384
"""Read between two calls of `give_way`: about 2 ms of work."""


class JournalBusyError(RuntimeError):
    """Another process writes this journal."""


class JournalLostError(OSError):
    """The journal cannot be written: the disk is full, read-only, or the file is gone."""


class LineSplitter:
    """Splits a byte stream into lines in bounded memory; lines over `limit` bytes are skipped
    and counted in `oversize`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.oversize = 0
        self._rest = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their newlines."""
        lines: list[bytes] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._append(data[start:end])
            if self._skipping:
                self._skipping = False
            else:
                lines.append(bytes(self._rest))
            self._rest.clear()
            start = end + 1
        self._append(data[start:])
        return lines

    def _append(self, part: bytes) -> None:
        if self._skipping:
            return
        if len(self._rest) + len(part) > self.limit:
            self.oversize += 1
            self._skipping = True
            self._rest.clear()
            return
        self._rest += part

    @property
    def torn(self) -> bytes:
        """The bytes after the last newline: an incomplete line."""
        return bytes(self._rest)


class Journal:
    """The only writer of one `events.jsonl`. Use as a context manager or call `close`."""

    def __init__(self, fd: int, path: Path, sequence: int, size: int) -> None:
        self.path = path
        self.sequence = sequence
        """Number of the next entry."""
        self.size = size
        self.sealed = 0
        """Torn last lines that were sealed when the journal was opened."""
        self._fd = fd
        self._dirty = self._urgent = False
        self._synced = time.monotonic()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the journal, lock it, seal a torn line, continue its sequence numbers.

        Raises:
            JournalBusyError: another process holds it.
            JournalLostError: it cannot be opened or sealed.
        """
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise JournalLostError(error.errno, f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise JournalBusyError(f"{path}: another process writes this journal") from None
        except OSError as error:  # a file system without locks, or none of them left
            os.close(fd)
            raise JournalLostError(error.errno, f"{path}: {error.strerror}") from error
        try:
            journal = cls(fd, path, _next_sequence(path), os.fstat(fd).st_size)
            journal._seal()
        except BaseException:
            os.close(fd)
            raise
        return journal

    def _seal(self) -> None:
        if self.size and os.pread(self._fd, 1, self.size - 1) != b"\n":
            self._append(b"\n")
            self.sealed += 1
            os.fsync(self._fd)

    def write(
        self, source: Literal["engine", "warden"], message: Message, wall: float | None = None
    ) -> Entry:
        """Append one message; `sync` makes it durable, at once if it was a state change.

        Raises:
            JournalLostError: the entry could not be written; no part of it was kept.
        """
        wall = time.time() if wall is None else wall
        entry = Entry(seq=self.sequence, wall=wall, src=source, msg=message)
        self._append(protocol.encode(entry))
        self.sequence += 1
        self._dirty = True
        if getattr(message, "kind", "") not in BEST_EFFORT:
            self._urgent = True
        return entry

    def _append(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
            if written != len(line):  # a full disk shortens a write before it refuses one
                os.ftruncate(self._fd, self.size)
                raise JournalLostError(28, f"{self.path}: only {written} of {len(line)} bytes fit")
        except JournalLostError:
            raise
        except OSError as error:
            raise JournalLostError(error.errno, f"{self.path}: {error.strerror}") from error
        self.size += len(line)

    def sync(self, *, force: bool = False) -> None:
        """fsync if a state change is pending, or if the last fsync was a second ago.

        Raises:
            JournalLostError: fsync failed, or the file was deleted.
        """
        now = time.monotonic()
        due = force or self._urgent or now - self._synced >= 1.0
        if not (self._dirty and due):
            return
        try:
            os.fsync(self._fd)
            links = os.fstat(self._fd).st_nlink
        except OSError as error:
            raise JournalLostError(error.errno, f"{self.path}: {error.strerror}") from error
        if links == 0:
            raise JournalLostError(2, f"{self.path}: deleted while the run was at work")
        self._dirty = self._urgent = False
        self._synced = now

    def close(self) -> None:
        """Close the file, which frees its lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Tail:
    """Incremental reader of a growing journal; never blocks the writer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bad = 0
        """Number of lines that are no entry: torn, damaged or foreign."""
        self.restarts = 0
        """How often the file was shorter than before and was read again from its start."""
        self._splitter = LineSplitter(ENTRY_BYTES)
        self._offset = 0
        self._oversize_before = 0

    @property
    def offset(self) -> int:
        """Bytes that were read."""
        return self._offset

    @property
    def oversize(self) -> int:
        """Number of lines longer than `ENTRY_BYTES`."""
        return self._oversize_before + self._splitter.oversize

    def poll(self, limit: int = 1 << 20) -> list[Entry]:
        """New entries in order, from about `limit` bytes at most; none if the file is missing."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        try:
            self._restart_if_shorter(os.fstat(fd).st_size)
            entries: list[Entry] = []
            end = self._offset + limit
            while self._offset < end:
                data = os.pread(fd, min(READ_BYTES, end - self._offset), self._offset)
                if not data:
                    break
                self._offset += len(data)
                entries += self._decode(data)
            return entries
        finally:
            os.close(fd)

    def _restart_if_shorter(self, size: int) -> None:
        if size < self._offset:
            self.restarts += 1
            self._offset = 0
            self._oversize_before = self.oversize
            self._splitter = LineSplitter(ENTRY_BYTES)

    def _decode(self, data: bytes) -> list[Entry]:
        entries: list[Entry] = []
        for line in self._splitter.feed(data):
            if not line:
                continue
            try:
                entries.append(protocol.decode_entry(line))
            except (ValueError, RecursionError):
                self.bad += 1
        return entries

    def read_all(self) -> list[Entry]:
        """All entries that the file has now."""
        return list(self.iterate())

    def iterate(self, give_way: Callable[[], object] | None = None) -> Iterator[Entry]:
        """The same one by one: a long journal is never in memory as a whole.

        Ends where the file ended at the call, since a writer may be faster. `give_way` is called
        after each `TURN_BYTES`, and may wait.
        """
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return
        while True:
            before = self._offset
            yield from self.poll(TURN_BYTES) if give_way else self.poll()
            if give_way is not None:
                give_way()
            if self._offset in (before, size) or self._offset > size:
                return


def _next_sequence(path: Path) -> int:
    return max((entry.seq for entry in Tail(path).read_all()), default=-1) + 1
