"""Index of results.jsonl: the summaries of all its records, kept in a cache file.

Parsing 10,000 records of 20 KB takes many seconds, reading their index a fraction of one. The
index is derived: a cache file that is missing, broken, of another version or of another file is
made anew. Lines that were appended since are parsed and added.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from results.atomic_files import atomic_path
from results.listing.summary import (
    MetricSummary,
    RecordSummary,
    SummaryPool,
    summarize_record,
)

VERSION: Final = 2
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


def read_index(
    path: Path, cache: Path | None = None, saved_lines: int | None = None
) -> RecordIndex:
    """Summaries of all records of `path`.

    `cache`: the cache file, None: without one. `saved_lines`: so many new lines are worth writing
    it again; None: `SAVED_LINES`.

    Raises:
        NewerSchemaError: a record is of a later workbench; a sentence.
        OSError: the file cannot be read.
    """
    collecting = gc.isenabled()
    gc.disable()  # see `LineReader.all`
    try:
        return _read_index(path, cache, SAVED_LINES if saved_lines is None else saved_lines)
    finally:
        if collecting:
            gc.enable()


def count_new_bytes(path: Path, cache: Path) -> int:
    """Bytes of `path` that the cache file has no summaries of."""
    try:
        with cache.open("rb") as file:
            size = _parse_head(path, file.readline())[0].size
    except (OSError, ValueError, KeyError, TypeError):
        size = 0
    try:
        return max(0, path.stat().st_size - size)
    except FileNotFoundError:
        return 0


def _read_index(path: Path, cache: Path | None, saved_lines: int) -> RecordIndex:
    pool = SummaryPool()
    mark, summaries = _load_cache(path, cache, pool) if cache is not None else (_Mark(), [])
    if mark.size and _is_unchanged(path, mark):
        return RecordIndex(summaries, _describe_trouble(path, mark, torn=""))
    if mark.size and _checksum(path, mark.size) != mark.crc:
        mark, summaries = _Mark(), []
    new = _NewLines(path, mark)
    summaries.extend(map(pool.share, new))
    if cache is not None and new.mark.lines - mark.lines >= saved_lines:
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


def _load_cache(path: Path, cache: Path, pool: SummaryPool) -> tuple[_Mark, list[RecordSummary]]:
    """Mark and summaries of the cache file; empty if it is of no use."""
    try:
        with cache.open("rb") as file:
            mark, count = _parse_head(path, file.readline())
            rows = _decode_rows(file) if count else ()
            summaries = [pool.share(summary) for summary in rows]
        return (mark, summaries) if len(summaries) == count else (_Mark(), [])
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return _Mark(), []


def _parse_head(path: Path, line: bytes) -> tuple[_Mark, int]:
    """Mark and number of rows; of a file of another version or of other records none."""
    head = json.loads(line)
    is_own = head["version"] == VERSION and head["path"] == str(path)
    return (_Mark(*head["mark"]), head["rows"]) if is_own else (_Mark(), 0)


def _decode_rows(lines: Iterable[bytes]) -> Iterator[RecordSummary]:
    """Summaries of the lines below the head; one line at a time is in memory besides."""
    params: list[dict[str, Any]] = []
    names: list[tuple[str, str, bool]] = []
    for line in lines:
        row = json.loads(line)
        if isinstance(row, list):
            metrics = tuple([MetricSummary(*names[m[0]], *m[1:]) for m in row[-1]])
            yield RecordSummary._make([*row[:-2], params[row[-2]], metrics])
        elif "params" in row:
            params.append(row["params"])
        else:
            names.append(tuple(row["metric"]))


def _save_cache(path: Path, cache: Path, mark: _Mark, summaries: list[RecordSummary]) -> None:
    """Write the cache file whole; one that cannot be written is none."""
    with contextlib.suppress(OSError):
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_path(cache) as draft, draft.open("w", encoding="utf-8") as file:
            for row in _encode_rows(path, mark, summaries):
                file.write(json.dumps(row) + "\n")


def _encode_rows(path: Path, mark: _Mark, summaries: list[RecordSummary]) -> Iterator[Any]:
    """The head, then rows; settings and names of metrics stand once, before their first row."""
    params: dict[str, int] = {}
    metrics: dict[tuple[str, str, bool], int] = {}
    stored = [summary for summary in summaries if summary.offset < mark.size]
    yield {"version": VERSION, "path": str(path), "mark": mark, "rows": len(stored)}
    for summary in stored:
        if (text := json.dumps(summary.params)) not in params:
            params[text] = len(params)
            yield {"params": summary.params}
        for metric in summary.metrics:
            if metric[:3] not in metrics:
                metrics[metric[:3]] = len(metrics)
                yield {"metric": metric[:3]}
        scores = [[metrics[m[:3]], *m[3:]] for m in summary.metrics]
        *fields, numbers, prefixes, headline = summary[:-2]
        yield [*fields, dict(numbers), prefixes, headline, params[text], scores]


def main() -> None:
    """`python -m results.listing.index RECORDS CACHE`: bring the cache file up to date."""
    read_index(Path(sys.argv[1]), Path(sys.argv[2]), saved_lines=1)
    print(json.dumps({"kind": "done"}))  # noqa: T201 - for the process that waits for it


if __name__ == "__main__":
    main()
