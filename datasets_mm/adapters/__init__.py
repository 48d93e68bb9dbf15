"""Adapters: readers of data formats that write records and passages in M2KR's nine fields.

An adapter is a module with `REVISION` (raised when its code gives other records from equal data)
and `write(location, folder, progress)`, which fills a folder and reports what it skipped.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, cast

from datasets_mm.child_messages import Progress
from datasets_mm.sources.location import Location

REPEATED_KEY: Final = "objects have a key twice, of which the last was read"
ADAPTER_MODULES: Final = {
    "openmoji": "datasets_mm.demo.openmoji",
    "jsonl": "datasets_mm.adapters.m2kr_jsonl",
    "ret_m2kr_jsonl": "datasets_mm.adapters.m2kr_jsonl",
    "m2kr_parquet": "datasets_mm.adapters.m2kr_parquet",
    "captions": "datasets_mm.adapters.captions",
    "emoji_captions": "datasets_mm.demo.emoji_captions",
    "challenge": "datasets_mm.adapters.vqa_challenge",
    "easy_vqa": "datasets_mm.demo.easy_vqa",
}
"""Adapter of a recipe -> its module, imported when it is used."""
LONGEST_NAME: Final = 200
"""Characters of a place or a value that a report names."""


@dataclass
class SourceReport:
    """Account of a source's lines: what was skipped, what was odd, with examples."""

    skipped: dict[str, int] = field(default_factory=dict)
    """Reason -> how many records were left out."""
    noted: dict[str, int] = field(default_factory=dict)
    """Oddity -> how often, of records and passages that were kept."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Reason or oddity -> the first few, by name or line."""
    content: str = ""
    """Digest of what was written, where the order in which it was read left no trace; else ""."""
    facts: dict[str, str] = field(default_factory=dict)
    """Further facts about the source."""
    written: dict[str, Any] = field(default_factory=dict)
    """Of M2KR's layouts: how the fields are written (`written_fields.WrittenFields.content`)."""

    def skip(self, reason: str, example: str) -> None:
        """Count a skipped record; the first five of each reason are named."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        self._add_example(reason, example)

    def note(self, oddity: str, example: str) -> None:
        """Count an oddity of a record that is kept; the first five of each are named."""
        self.noted[oddity] = self.noted.get(oddity, 0) + 1
        self._add_example(oddity, example)

    def _add_example(self, reason: str, example: str) -> None:
        examples = self.examples.setdefault(reason, [])
        if len(examples) < 5:
            examples.append(shorten(example))


def shorten(name: str) -> str:
    """A name of at most `LONGEST_NAME` characters: an image as base64 text has a million."""
    return (
        name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}… ({len(name):,} characters)"
    )


def parse_json(text: str, position: str, report: SourceReport) -> Any:
    """Parse JSON; a key that comes twice in an object is noted in the report.

    Raises:
        ValueError, RecursionError: it is not JSON.
    """

    def collect_pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(items)
        if len(content) < len(items):
            report.note(REPEATED_KEY, position)
        return content

    return json.loads(text, object_pairs_hook=collect_pairs)


class Adapter(Protocol):
    """Interface of an adapter module.

    A reader of tables may also define `find_image_rows(location, images)`: image -> its first row.
    """

    REVISION: int

    def write(self, location: Location, folder: Path, progress: Progress) -> SourceReport:
        """Fill `folder` with records.arrow, corpus.arrow and, for rendered images, images/."""
        ...


def load_adapter(name: str) -> Adapter:
    """The adapter of this name, one of `ADAPTER_MODULES`."""
    return cast("Adapter", importlib.import_module(ADAPTER_MODULES[name]))
