"""Readers of data formats: each writes records and passages in M2KR's nine fields.

An adapter is a module with `REVISION` (raised when its code gives other records from equal data)
and `write(found, folder, progress)`, which fills a folder and reports what it left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from datasets_mm.sources.location import Location

REPEATED_KEY: Final = "objects have a key twice, of which the last was read"
LONGEST_NAME: Final = 200
"""Characters of a place or a value that a report names."""


@dataclass
class SourceReport:
    """What became of the source's lines."""

    skipped: dict[str, int] = field(default_factory=dict)
    """Reason -> how many records were left out."""
    noted: dict[str, int] = field(default_factory=dict)
    """Oddity -> how often, of records and passages that were kept."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Reason or oddity -> the first few, by name or line."""
    content: str = ""
    """Digest of what was written, where the order in which it was read left no trace; else ""."""
    facts: dict[str, str] = field(default_factory=dict)
    """Anything else that a reader should know."""

    def skip(self, reason: str, what: str) -> None:
        """Count a record that is left out, and name it if it is among the first five."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        self._name(reason, what)

    def note(self, oddity: str, what: str) -> None:
        """Count something odd about what is kept, and name it likewise."""
        self.noted[oddity] = self.noted.get(oddity, 0) + 1
        self._name(oddity, what)

    def _name(self, reason: str, what: str) -> None:
        named = self.examples.setdefault(reason, [])
        if len(named) < 5:
            named.append(shortened(what))


def shortened(what: str) -> str:
    """A name as a report shows it: a picture as text in its place has a million characters."""
    return (
        what if len(what) <= LONGEST_NAME else f"{what[:LONGEST_NAME]}… ({len(what):,} characters)"
    )


def parse_json(said: str, where: str, report: SourceReport) -> Any:
    """What `json.loads` reads; a key that comes twice in an object is noted.

    Raises:
        ValueError, RecursionError: it is not JSON.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(items)
        if len(content) < len(items):
            report.note(REPEATED_KEY, where)
        return content

    return json.loads(said, object_pairs_hook=pairs)


class Adapter(Protocol):
    """What build.py asks of an adapter module.

    One that reads tables may have `places(found, paths)` too: picture -> the row that names it.
    """

    REVISION: int

    def write(
        self, found: Location, folder: Path, progress: Callable[[int, int, str], None]
    ) -> SourceReport:
        """Fill `folder` with records.arrow, corpus.arrow and, for made pictures, images/."""
        ...
