"""Index of results.jsonl: the summaries of all its records, kept in a cache file.

Parsing 10,000 records of 20 KB takes many seconds, reading their index a fraction of one. The
index is derived: a cache file that is missing, broken, of another version or of another file is
made anew. Lines that were appended since are parsed and added.
"""

from __future__ import annotations

import contextlib
import gc
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from results.atomic_files import atomic_path
from results.listing.summary import MetricSummary, RecordSummary, summarize_record

VERSION: Final = 1
"""Of the cache file; a change of `RecordSummary` needs a new one."""
SAVED_LINES: Final = 200
"""So many new lines are worth writing the cache file again."""
CHUNK_BYTES: Final = 1 << 20


class RecordIndex(NamedTuple):
    """All records of a file, oldest first."""

    summaries: list[RecordSummary]
    trouble: str = ""
    """One sentence about unreadable lines; empty: there are none."""


class _Mark(NamedTuple):
    """Content of the file up to a byte, and what was unreadable in it."""

    size: int = 0
    crc: int = 0
    lines: int = 0
    bad: int = 0
    first_bad: str = ""
    """`line 3: not JSON`."""
    inode: int = 0
    mtime_ns: int = 0


def read_index(path: Path, cache: Path | None = None) -> RecordIndex:
    """Summaries of all records of `path`; `cache`: the cache file, None: without one.

    Raises:
        NewerSchemaError: a record is of a later workbench; a sentence.
        OSError: the file cannot be read.
    """
    collecting = gc.isenabled()
    gc.disable()  # see `LineReader.all`
    try:
        return _read_index(path, cache)
    finally:
        if collecting:
            gc.enable()


def _read_index(path: Path, cache: Path | None) -> RecordIndex:
    mark, summaries = _load_cache(path, cache) if cache is not None else (_Mark(), [])
    if mark.size and _is_unchanged(path, mark):
        return RecordIndex(summaries, _describe_trouble(path, mark, torn=""))
    if mark.size and _checksum(path, mark.size) != mark.crc:
        mark, summaries = _Mark(), []
    new = _NewLines(path, mark)
    summaries.extend(new)
    if cache is not None and new.mark.lines - mark.lines >= SAVED_LINES:
        _save_cache(path, cache, new.mark, summaries)
    return RecordIndex(summaries, _describe_trouble(path, new.mark, new.torn))


class _NewLines:
    """Iterator over the summaries of the lines behind a mark; `mark` moves with it."""

    def __init__(self, path: Path, mark: _Mark) -> None:
        self.path, self.mark = path, mark
        self.torn = ""
        """Why the last line, which has no newline, is unreadable; it is not part of the mark."""

    def __iter__(self) -> Iterator[RecordSummary]:
        from results.records import store

        lines = store.read_lines(self.path, self.mark.size, self.mark.lines)
        for line in lines:
            if line.record is not None:
                yield summarize_record(line.record, line.offset)
            elif line.torn:
                self.torn = f"line {line.number}: {line.reason}"
            if not line.torn:
                self._advance(line.content, line.reason, line.number)
        with contextlib.suppress(OSError):
            status = self.path.stat()
            self.mark = self.mark._replace(inode=status.st_ino, mtime_ns=status.st_mtime_ns)

    def _advance(self, content: bytes, reason: str, number: int) -> None:
        mark = self.mark
        self.mark = mark._replace(
            size=mark.size + len(content), crc=zlib.crc32(content, mark.crc), lines=number,
            bad=mark.bad + bool(reason),
            first_bad=mark.first_bad or (f"line {number}: {reason}" if reason else ""),
        )  # fmt: skip


def _is_unchanged(path: Path, mark: _Mark) -> bool:
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        state = (status.st_size, status.st_ino, status.st_mtime_ns)
        return state == (mark.size, mark.inode, mark.mtime_ns)
    return False


def _checksum(path: Path, size: int) -> int:
    """CRC-32 of the first bytes; -1: the file is shorter."""
    crc = 0
    if not path.exists():
        return -1
    with path.open("rb") as file:
        while size and (chunk := file.read(min(size, CHUNK_BYTES))):
            crc, size = zlib.crc32(chunk, crc), size - len(chunk)
    return -1 if size else crc


def _describe_trouble(path: Path, mark: _Mark, torn: str) -> str:
    count = mark.bad + bool(torn)
    if not count:
        return ""
    lines = "1 line is" if count == 1 else f"{count} lines are"
    return f"{path}: {lines} unreadable and left out ({mark.first_bad or torn})"


def _load_cache(path: Path, cache: Path) -> tuple[_Mark, list[RecordSummary]]:
    """Mark and summaries of the cache file; empty if it is of no use."""
    try:
        table = json.loads(cache.read_bytes())
        if table["version"] != VERSION or table["path"] != str(path):
            return _Mark(), []
        return _Mark(*table["mark"]), _decode_rows(table)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return _Mark(), []


def _decode_rows(table: dict[str, Any]) -> list[RecordSummary]:
    params, names = table["params"], [tuple(name) for name in table["metrics"]]
    return [
        RecordSummary._make(
            [
                *row[:-2],
                params[row[-2]],
                tuple([MetricSummary(*names[metric[0]], *metric[1:]) for metric in row[-1]]),
            ]
        )
        for row in table["rows"]
    ]


def _save_cache(path: Path, cache: Path, mark: _Mark, summaries: list[RecordSummary]) -> None:
    """Write the cache file whole; one that cannot be written is none."""
    params: dict[str, int] = {}
    metrics: dict[tuple[str, str, bool], int] = {}
    rows = [
        [
            *summary[:-2],
            params.setdefault(json.dumps(summary.params), len(params)),
            [[metrics.setdefault(m[:3], len(metrics)), *m[3:]] for m in summary.metrics],
        ]
        for summary in summaries
        if summary.offset < mark.size
    ]
    table = {
        "version": VERSION, "path": str(path), "mark": mark,
        "params": [json.loads(text) for text in params], "metrics": list(metrics), "rows": rows,
    }  # fmt: skip
    with contextlib.suppress(OSError):
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_path(cache) as draft:
            draft.write_text(json.dumps(table), encoding="utf-8")
