"""What people say about runs: finding the run meant, and adding a line to notes.jsonl.

Apart from `reporting`, because the screen notes too. Also runs that have not ended take notes: an
experiment has its finding and state before there is a record.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from engines.protocol import RunSpec
from results import notes
from results.notes import Kind, Note, Standing
from workbench import suite

STATES: Final = ("waiting", "running", "done", "stopped")
"""The study's; an empty state takes a noted one back."""
LONGEST: Final = 4000
"""Letters of a finding."""


class NoteError(suite.SuiteError):
    """The note cannot be taken; one sentence with the remedy."""


def find(log_root: Path, run: str) -> tuple[str, str]:
    """(suite, run id) of the run that a part of `suite/run`, or a label, names.

    Raises:
        SuiteError: none fits, or more than one.
    """
    known = [
        (folder.name, spec.run_id, spec.label)
        for folder in suite.suites(log_root)
        for spec in _runs(folder)
    ]
    whole = [k for k in known if run in (f"{k[0]}/{k[1]}", k[1], k[2])]
    fitting = whole or [k for k in known if run in f"{k[0]}/{k[1]}"]
    if not fitting:
        raise suite.SuiteError(f"{log_root}: no run '{run}'; `workbench results list` has them")
    if len(fitting) > 1:
        named = ", ".join(f"{name}/{one}" for name, one, _ in fitting[:3])
        more = ", …" if len(fitting) > 3 else ""
        raise suite.SuiteError(f"'{run}' fits {len(fitting)} runs ({named}{more}); give suite/run")
    return fitting[0][:2]


def _runs(folder: Path) -> list[RunSpec]:
    """The runs of a suite; none of one that cannot be read, which is no reason against others."""
    try:
        return [spec for _, spec in suite.runs(folder)]
    except suite.SuiteError:
        return []


def add(log_root: Path, key: tuple[str, str], kind: Kind, text: str) -> None:
    """Append one note on a run.

    Raises:
        NoteError: the text is too long or no such state.
        OSError: the file cannot be written.
    """
    said = " ".join(text.split())
    if len(said) > LONGEST:
        raise NoteError(f"a {kind} of {len(said):,} letters is too long; {LONGEST:,} are the most")
    if kind == "state" and said and said not in STATES:
        raise NoteError(f"no state '{said}'; use {', '.join(STATES)}, or '' to take it back")
    if kind == "finding" and not said:
        raise NoteError("the finding is empty; write what was found")
    note = Note(suite=key[0], run_id=key[1], kind=kind, text=said, wall=time.time())
    notes.append(log_root / "notes.jsonl", note)


def standing(log_root: Path, key: tuple[str, str]) -> Standing:
    """What the notes of a run come to."""
    found = notes.standings(notes.read(log_root / "notes.jsonl"))
    return found.get(key, Standing())
