"""notes.jsonl: what people say about runs and suites, and what is in the trash.

Apart from the records, which no person edits: a note never changes a number. Append-only too: a
later note of the same kind replaces an earlier one in what is shown, and a tombstone hides a run
without deleting anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from results.records.schema import Part
from results.records.store import Lines, NewerSchema, append_line
from results.records.suite_view import SuiteWords

NOTES_SCHEMA: Final = 1

Kind = Literal[
    "finding", "state", "tag", "tombstone", "title", "goal", "background", "reason", "next",
    "event", "link", "conclusion", "withdrawn",
]  # fmt: skip
SINGLE: Final = ("title", "goal", "background", "conclusion")
"""Kinds of which the last note counts; an empty text takes it back."""
SUITE_ONLY: Final = (*SINGLE, "reason", "next", "event", "link")
"""Kinds that are said of a whole suite."""


class Note(Part):
    """One line of notes.jsonl.

    An empty `text` takes back an earlier state, tombstone or text of a kind in `SINGLE`, `-word` an
    earlier tag; `withdrawn` takes back the finding, next step, event or link of just that text.
    """

    schema_number: int = Field(default=NOTES_SCHEMA, alias="schema")
    suite: str
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

    model_config = Part.model_config | {"populate_by_name": True, "serialize_by_alias": True}


class Standing(SuiteWords):
    """What the notes of one run (or suite) come to."""

    findings: tuple[str, ...] = ()
    state: str = ""
    tags: frozenset[str] = frozenset()
    trashed: str = ""
    """Why it is in the trash; empty when it is not."""


def append(path: Path, note: Note) -> None:
    """Add one note.

    Raises:
        OSError: the file cannot be written.
    """
    append_line(path, note.model_dump_json().encode())


def read(path: Path) -> Lines[Note]:
    """All notes, oldest first; unreadable lines are counted, a later schema is refused."""
    return Lines(path, _note)


def standings(notes: Iterable[Note]) -> dict[tuple[str, str], Standing]:
    """By (suite, run id), the notes folded in order."""
    found: dict[tuple[str, str], Standing] = {}
    for note in notes:
        key = (note.suite, note.run_id)
        found[key] = _with(found.get(key, Standing()), note)
    return found


def _note(line: bytes) -> Note:
    note = Note.model_validate_json(line)
    if note.schema_number > NOTES_SCHEMA:
        raise NewerSchema(f"schema {note.schema_number}, and this one reads up to {NOTES_SCHEMA}")
    return note


def _with(standing: Standing, note: Note) -> Standing:
    match note.kind:
        case "finding":
            return standing.model_copy(update={"findings": (*standing.findings, note.text)})
        case "next":
            return standing.model_copy(update={"next_steps": (*standing.next_steps, note.text)})
        case "event":
            events = (*standing.events, (note.date, note.text))
            return standing.model_copy(update={"events": events})
        case "link":
            links = (*standing.links, (note.about, note.text))
            return standing.model_copy(update={"links": links})
        case "reason":
            reasons = {k: v for k, v in standing.reasons.items() if k != note.about}
            reasons |= {note.about: note.text} if note.text else {}
            return standing.model_copy(update={"reasons": reasons})
        case "withdrawn":
            return _without(standing, note.text)
        case "title" | "goal" | "background" | "conclusion":
            return standing.model_copy(update={note.kind: note.text})
        case "state":
            return standing.model_copy(update={"state": note.text})
        case "tombstone":
            return standing.model_copy(update={"trashed": note.text})
        case "tag":
            taken_back = note.text.removeprefix("-")
            if taken_back != note.text:
                return standing.model_copy(update={"tags": standing.tags - {taken_back}})
            return standing.model_copy(update={"tags": standing.tags | {note.text}})


def _without(standing: Standing, text: str) -> Standing:
    return standing.model_copy(
        update={
            "findings": tuple(one for one in standing.findings if one != text),
            "next_steps": tuple(one for one in standing.next_steps if one != text),
            "events": tuple(one for one in standing.events if one[1] != text),
            "links": tuple(one for one in standing.links if text not in one),
        }
    )
