"""Readers of data formats: each writes records and passages in M2KR's nine fields.

An adapter is a module with `REVISION` (raised when its code gives other records from equal data)
and `write(source, place, progress)`, which fills a folder and reports what it left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from datasets_mm.recipe import Source


@dataclass
class SourceReport:
    """What became of the source's lines."""

    skipped: dict[str, int] = field(default_factory=dict)
    """Reason -> how many records were left out."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> the first few, by name or line."""
    facts: dict[str, str] = field(default_factory=dict)
    """Anything else that a reader should know."""

    def skip(self, reason: str, what: str) -> None:
        """Count a record that is left out, and name it if it is among the first five."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        named = self.examples.setdefault(reason, [])
        if len(named) < 5:
            named.append(what)


@dataclass(frozen=True)
class Place:
    """Where an adapter reads and writes."""

    folder: Path
    """Gets `records.arrow`, `corpus.arrow` and, if the adapter makes pictures, `images/`."""
    data_root: Path | None


class Adapter(Protocol):
    """What build.py asks of an adapter module."""

    REVISION: int

    def write(
        self, source: Source, place: Place, progress: Callable[[int, int, str], None]
    ) -> SourceReport:
        """Write the folder."""
        ...
