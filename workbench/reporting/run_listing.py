"""The runs of a log root for lists: summaries and notes, through the index of results.jsonl."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from results.listing import index
from results.listing.run_filter import ListedRun
from results.listing.summary import last_attempts

if TYPE_CHECKING:
    from results.records.notes import RunNotes


def index_cache(results_file: Path, cache_root: Path) -> Path:
    """The cache file of the index of a results.jsonl."""
    digest = hashlib.blake2b(str(results_file).encode(), digest_size=8).hexdigest()
    return cache_root / "run-lists" / f"{digest}.json"


def read_runs(log_root: Path, cache_root: Path) -> tuple[list[ListedRun], str]:
    """The last attempt of each run with its notes, oldest first; and what could not be read.

    Raises:
        NewerSchemaError: records or notes of a later workbench; a sentence.
        OSError: they cannot be read.
    """
    path = log_root / "results.jsonl"
    listed = index.read_index(path, index_cache(path, cache_root))
    notes_of_run = read_notes(log_root)
    runs = [ListedRun(s, notes_of_run.get(s.key)) for s in last_attempts(listed.summaries)]
    return runs, listed.trouble


def read_notes(log_root: Path) -> dict[tuple[str, str], RunNotes]:
    """The standing notes by (suite, run id)."""
    path = log_root / "notes.jsonl"
    if not path.exists():
        return {}  # pydantic stays unloaded
    from results.records import notes

    return notes.reduce_notes(notes.read_notes(path))
