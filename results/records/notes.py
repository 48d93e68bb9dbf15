"""notes.jsonl: people's notes about runs and suites, and which runs are in the trash.

Append-only; a note never changes a number. A later note of the same kind replaces an earlier one
when notes are shown, and a tombstone hides a run without deleting anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from results.records.schema import StoredModel
from results.records.store import LineReader, NewerSchemaError, append_line
from results.records.suite_view import SuiteWords

NOTES_SCHEMA: Final = 1
_FIELDS: Final = {"tombstone": "trashed", "public-score": "public_score"}
"""Kind of a note that replaces an earlier one -> its field, where that has another name."""

Kind = Literal[
    "finding", "state", "tag", "tombstone", "title", "goal", "background", "reason", "next",
    "event", "link", "conclusion", "withdrawn", "public-score",
]  # fmt: skip
SINGLE_KINDS: Final = ("title", "goal", "background", "conclusion")
"""Kinds of which the last note counts; an empty text takes it back."""
SUITE_KINDS: Final = ("title", "goal", "background", "reason", "event", "link")
"""Kinds of notes about a whole suite, or the report of a week."""
RUN_KINDS: Final = ("state", "public-score")
"""Kinds of notes about a single run."""
WEEK: Final = re.compile(r"week:\d{4}-W\d{2}")
"""The `suite` of notes about the report of a week, by its ISO number: `week:2026-W48`."""


class Note(StoredModel):
    """One line of notes.jsonl.

    An empty `text` removes an earlier state, tombstone or text of a kind in `SINGLE_KINDS`; `-word`
    removes a tag; `withdrawn` removes the finding, next step, event or link with exactly that text.
    """

    schema_number: int = Field(default=NOTES_SCHEMA, alias="schema")
    suite: str
    """Or a week, see `WEEK`."""
    run_id: str = ""
    """Empty: the whole suite."""
    kind: Kind
    text: str
    about: str = ""
    """Of a reason: the subset, model or variant that it is for; empty: the choice as a whole. Of a
    link: where it leads, a relative path or an address."""
    date: str = ""
    """Of an event: when it was, as a person writes it."""
    wall: float = 0.0
    """Unix time; a label."""
    by: str = ""

    model_config = StoredModel.model_config | {"populate_by_name": True, "serialize_by_alias": True}


class RunNotes(SuiteWords):
    """Current notes of one run or suite."""

    findings: tuple[str, ...] = ()
    state: str = ""
    public_score: str = ""
    """Of a run: the score of its submission on a leaderboard."""
    tags: frozenset[str] = frozenset()
    trashed: str = ""
    """Why it is in the trash; empty when it is not."""


def append_note(path: Path, note: Note) -> None:
    """Add one note.

    Raises:
        OSError: the file cannot be written.
    """
    append_line(path, note.model_dump_json().encode())


def read_notes(path: Path) -> LineReader[Note]:
    """All notes, oldest first; unreadable lines are counted, a later schema is refused."""
    return LineReader(path, _parse_note)


def reduce_notes(notes: Iterable[Note]) -> dict[tuple[str, str], RunNotes]:
    """Notes reduced in order, by (suite, run id)."""
    notes_of_run: dict[tuple[str, str], RunNotes] = {}
    for note in notes:
        key = (note.suite, note.run_id)
        notes_of_run[key] = _apply_note(notes_of_run.get(key, RunNotes()), note)
    return notes_of_run


def _parse_note(line: bytes) -> Note:
    note = Note.model_validate_json(line)
    if note.schema_number > NOTES_SCHEMA:
        raise NewerSchemaError(
            f"schema {note.schema_number}, and this one reads up to {NOTES_SCHEMA}"
        )
    return note


def _apply_note(run_notes: RunNotes, note: Note) -> RunNotes:
    match note.kind:
        case "finding":
            return run_notes.model_copy(update={"findings": (*run_notes.findings, note.text)})
        case "next":
            return run_notes.model_copy(update={"next_steps": (*run_notes.next_steps, note.text)})
        case "event":
            events = (*run_notes.events, (note.date, note.text))
            return run_notes.model_copy(update={"events": events})
        case "link":
            links = (*run_notes.links, (note.about, note.text))
            return run_notes.model_copy(update={"links": links})
        case "reason":
            reasons = {k: v for k, v in run_notes.reasons.items() if k != note.about}
            reasons |= {note.about: note.text} if note.text else {}
            return run_notes.model_copy(update={"reasons": reasons})
        case "withdrawn":
            return _withdraw(run_notes, note.text)
        case "tag":
            removed_tag = note.text.removeprefix("-")
            if removed_tag != note.text:
                return run_notes.model_copy(update={"tags": run_notes.tags - {removed_tag}})
            return run_notes.model_copy(update={"tags": run_notes.tags | {note.text}})
        case kind:
            return run_notes.model_copy(update={_FIELDS.get(kind, kind): note.text})


def _withdraw(run_notes: RunNotes, text: str) -> RunNotes:
    return run_notes.model_copy(
        update={
            "findings": tuple(entry for entry in run_notes.findings if entry != text),
            "next_steps": tuple(entry for entry in run_notes.next_steps if entry != text),
            "events": tuple(entry for entry in run_notes.events if entry[1] != text),
            "links": tuple(entry for entry in run_notes.links if text not in entry),
        }
    )
