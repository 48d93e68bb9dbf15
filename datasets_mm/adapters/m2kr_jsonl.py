"""Reads JSON lines in M2KR's nine fields: the layout of aimagelab/ReT-M2KR, and any file like it.

One pass, one line in memory at a time. An unusable line is counted and named; what a usable line
with dirt in it means is said in fields.py.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets_mm.adapters import SourceReport, parse_json
from datasets_mm.adapters.m2kr_fields import LineError
from datasets_mm.adapters.m2kr_tables import Intake
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.sources.location import Location

REVISION = 4
MAX_LINE_BYTES = 16 << 20
"""The largest lists of positives seen have a few hundred passages: far below 16 MiB."""

Say = Callable[[int, int, str], None]


def write(found: Location, folder: Path, progress: Say) -> SourceReport:
    """Write every usable record, and the corpus."""
    report = SourceReport()
    intake = Intake(found, folder, report)
    for path in found.passages:
        for where, line in _lines(path, found, report, progress):
            intake.add_passage(where, line)
    intake.settle()
    for path in found.records:
        for where, line in _lines(path, found, report, progress):
            intake.add_record(where, line)
    intake.close()
    return report


def _lines(
    path: Path, found: Location, report: SourceReport, progress: Say
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name of the line, object) for every line that is a JSON object."""
    name, encoding = found.name(path), found.source.encoding or "utf-8-sig"
    _refuse_wide(path, name, encoding)
    total, done, shown = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{name} line {number}"
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
                    yield where, _object(raw, encoding, where, report)
                except LineError as reason:
                    report.skip(str(reason), where)


def _refuse_wide(path: Path, name: str, encoding: str) -> None:
    """Lines are cut at bytes, which UTF-16 and UTF-32 do not end with.

    Raises:
        SourceError: the file is in one of them.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if encoding.startswith("utf-16") or head[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
        raise SourceError(f"{name} is in UTF-16; save JSON lines as UTF-8")


def _object(raw: bytes, encoding: str, where: str, report: SourceReport) -> dict[str, Any]:
    try:
        line = parse_json(raw.decode(encoding), where, report)
    except UnicodeDecodeError:
        title = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise LineError(f"line is not {title}") from None
    except (ValueError, RecursionError):
        raise LineError("line is not JSON") from None
    if not isinstance(line, dict):
        raise LineError("line is not an object")
    return line
