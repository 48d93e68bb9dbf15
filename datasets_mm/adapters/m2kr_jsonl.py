"""Adapter for JSON lines in M2KR's nine fields: aimagelab/ReT-M2KR, and any file in its layout.

One pass, one line in memory at a time. Unusable lines are counted and the first ones named; values
are cleaned by m2kr_fields.py.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets_mm.adapters import SourceReport, parse_json
from datasets_mm.adapters.m2kr_fields import LineError
from datasets_mm.adapters.m2kr_tables import M2KRWriter
from datasets_mm.child_messages import Progress
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.sources.location import Location

REVISION = 5
MAX_LINE_BYTES = 16 << 20
"""The largest lists of positives seen have a few hundred passages: far below 16 MiB."""


def write(location: Location, folder: Path, progress: Progress) -> SourceReport:
    """Write every usable record, and the corpus."""
    report = SourceReport()
    writer = M2KRWriter(location, folder, report)
    for path in location.passages:
        for position, line in _read_lines(path, location, report, progress):
            writer.add_passage(position, line)
    writer.finish_passages()
    for path in location.records:
        for position, line in _read_lines(path, location, report, progress):
            writer.add_record(position, line)
    writer.close()
    return report


def _read_lines(
    path: Path, location: Location, report: SourceReport, progress: Progress
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name of the line, object) for every line that is a JSON object."""
    name, encoding = location.name(path), location.source.encoding or "utf-8-sig"
    _reject_utf16(path, name, encoding)
    total, done, reported = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            position = f"{name} line {number}"
            while len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
                done += len(raw)
                raw = file.readline(MAX_LINE_BYTES + 1)
                if len(raw) <= MAX_LINE_BYTES:
                    report.skip("line longer than 16 MiB", position)
                    done, raw = done + len(raw), b""
            done += len(raw)
            if done - reported > total // 200 or done == total:
                progress(done, total, "bytes")
                reported = done
            if raw.strip():
                try:
                    yield position, _parse_object(raw, encoding, position, report)
                except LineError as reason:
                    report.skip(str(reason), position)


def _reject_utf16(path: Path, name: str, encoding: str) -> None:
    """Lines are cut at bytes, which UTF-16 and UTF-32 do not end with.

    Raises:
        SourceError: the file is in one of them.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if encoding.startswith("utf-16") or head[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
        raise SourceError(f"{name} is in UTF-16; save JSON lines as UTF-8")


def _parse_object(raw: bytes, encoding: str, position: str, report: SourceReport) -> dict[str, Any]:
    try:
        line = parse_json(raw.decode(encoding), position, report)
    except UnicodeDecodeError:
        title = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise LineError(f"line is not {title}") from None
    except (ValueError, RecursionError):
        raise LineError("line is not JSON") from None
    if not isinstance(line, dict):
        raise LineError("line is not an object")
    return line
