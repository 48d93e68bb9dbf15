"""Reads JSON lines in M2KR's nine fields: the layout of aimagelab/ReT-M2KR, and any file like it.

One pass, one line in memory at a time. Real files are dirty: missing values are null, NaN, "NA" or
empty; ids are numbers or strings; the passage fields are scalars or lists; answers are text,
numbers or objects. All of that has one defined result; an unusable line is counted and named.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_mm.adapters import Place, SourceReport
from datasets_mm.recipe import Source
from datasets_mm.source import SourceError
from datasets_mm.store import TableWriter, corpus_writer, record_writer

REVISION = 1
MAX_LINE_BYTES = 16 << 20
"""The largest lists of positives seen have a few hundred passages: far below 16 MiB."""

ABSENT = frozenset({"", "na", "nan", "none", "null"})
PASSAGE_FIELDS = ("passage_id", "passage_text", "passage_image_path")


class LineError(Exception):
    """This line cannot be used; the text is the reason under which it is counted."""


@dataclass
class Pool:
    """The corpus while it is written: each id once, the first text wins."""

    writer: TableWriter
    known: dict[str, bytes]
    conflicts: int = 0

    def add(self, passage_id: str, text: str, picture: str) -> None:
        """Write the passage unless its id is known; another text under one id is counted."""
        content = hashlib.blake2b(text.encode(), digest_size=8).digest()
        first = self.known.setdefault(passage_id, content)
        if len(self.known) > self.writer.rows:
            row = (passage_id, text, picture)
            self.writer.add(dict(zip(PASSAGE_FIELDS, row, strict=True)))
        elif first != content:
            self.conflicts += 1


def write(source: Source, place: Place, progress: Callable[[int, int, str], None]) -> SourceReport:
    """Write every usable record, and as corpus the passage file (if any) and all positives."""
    if place.data_root is None:
        raise SourceError(f"{source.uri} needs a data folder; give --set data_root=…")
    report = SourceReport()
    pool = Pool(corpus_writer(place.folder), {})
    if source.passages:
        for where, line in _lines(place.data_root / source.passages, report, progress):
            with _counted(where, report):
                _add_passage(line, pool)
    writer = record_writer(place.folder)
    for where, line in _lines(place.data_root / source.uri, report, progress):
        with _counted(where, report):
            _add_record(where, line, pool, writer)
    writer.close()
    pool.writer.close()
    if pool.conflicts:
        report.facts["passages with another text under a known id"] = str(pool.conflicts)
    return report


@contextmanager
def _counted(where: str, report: SourceReport) -> Iterator[None]:
    try:
        yield
    except LineError as reason:
        report.skip(str(reason), where)


def _lines(
    path: Path, report: SourceReport, progress: Callable[[int, int, str], None]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name of the line, object) for every line that is a JSON object."""
    total, done, shown = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path.name} line {number}"
            while len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
                done += len(raw)
                raw = file.readline(MAX_LINE_BYTES + 1)
                if len(raw) <= MAX_LINE_BYTES:
                    report.skip("line longer than 16 MiB", where)
                    done, raw = done + len(raw), b""
            done += len(raw)
            if done - shown > total // 200 or done == total:
                progress(done, total, "bytes")
                shown = done
            if raw.strip():
                try:
                    yield where, _object(raw)
                except LineError as reason:
                    report.skip(str(reason), where)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        line = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise LineError("line is not UTF-8") from None
    except (ValueError, RecursionError):
        raise LineError("line is not JSON") from None
    if not isinstance(line, dict):
        raise LineError("line is not an object")
    return line


def _add_passage(line: dict[str, Any], pool: Pool) -> None:
    ids, texts, shown = _passages(line)
    if not ids:
        raise LineError("passage without id")
    for row in zip(ids, texts, shown, strict=True):
        pool.add(*row)


def _add_record(where: str, line: dict[str, Any], pool: Pool, writer: TableWriter) -> None:
    ids, texts, shown = _passages(line)
    if not ids:
        raise LineError("no positive passage")
    writer.add(
        {
            "answer": [text for item in _list(line.get("answer")) if (text := _answer(item))],
            "data_id": _text(line.get("data_id")) or where,
            "dataset_id": _text(line.get("dataset_id")),
            "image_path": _text(line.get("image_path")),
            "instruction": _text(line.get("instruction")),
            "passage_id": ids,
            "passage_image_path": shown,
            "passage_text": texts,
            "question": _text(line.get("question")),
        }
    )
    for row in zip(ids, texts, shown, strict=True):
        pool.add(*row)


def _passages(line: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Ids, texts, picture paths, of one length. A missing text or picture list means: none has."""
    columns = [[_text(item) for item in _list(line.get(name))] for name in PASSAGE_FIELDS]
    ids = columns[0]
    if not any(ids):
        return [], [], []
    for number in (1, 2):
        if not any(columns[number]):
            columns[number] = [""] * len(ids)
        if len(columns[number]) != len(ids):
            raise LineError("passage lists of unequal length")
    rows = [row for row in zip(*columns, strict=True) if row[0]]
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def _list(value: Any) -> list[Any]:
    """A scalar is a list of one, an absent value an empty one."""
    if isinstance(value, list):
        return value
    return [] if value is None or (isinstance(value, float) and math.isnan(value)) else [value]


def _text(value: Any) -> str:
    """Text of a scalar; "" for every way of writing that there is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of ids with one NaN comes out of pandas as floats
    if value is None or isinstance(value, dict | list):
        return ""
    text = str(value).strip()
    if text.lower() in ABSENT:
        return ""
    # A lone surrogate is legal in JSON and not in UTF-8.
    return text.encode("utf-8", "replace").decode()


def _answer(value: Any) -> str:
    """InfoSeek writes numbers as objects; their `wikidata` value is what the field compares."""
    if isinstance(value, dict):
        return str(value.get("wikidata", json.dumps(value, sort_keys=True, ensure_ascii=False)))
    if isinstance(value, str):
        return value.strip().encode("utf-8", "replace").decode()
    return _text(value)
