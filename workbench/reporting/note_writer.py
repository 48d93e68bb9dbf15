"""Notes on runs and suites: resolving the target of a note, and appending to notes.jsonl.

Used by the command line and the screen. Runs without a record can have notes too.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from engines.protocol import RunSpec
from results.records import notes, published_runs
from results.records.notes import Kind, Note, RunNotes
from workbench.reporting import suite_view
from workbench.suites import suite

STATES: Final = ("waiting", "running", "done", "stopped")
"""Predefined states, which reports translate; other texts are kept as they are."""
MAX_LENGTH: Final = 4000
"""Maximum length of a note, in characters."""
MAX_STATE_LENGTH: Final = 40
CLEARABLE: Final = (*notes.RUN_KINDS, "tombstone", "reason", *notes.SINGLE_KINDS)


class NoteError(suite.SuiteError):
    """The note is not valid; one sentence with the remedy."""


def find_target(log_root: Path, name: str) -> tuple[str, str]:
    """(suite, run id) of a name; the run id is empty for a whole suite.

    A run is named by its id, its label or a part of `suite/run`, a suite by a part of its name,
    the report of a week as `week:2026-W48`. Imported suites and runs count, and experiments that an
    imported file only plans.

    Raises:
        SuiteError: none fits, or more than one.
    """
    if notes.WEEK.fullmatch(name):
        return name, ""
    folders = suite.list_suites(log_root)
    candidates = [
        (folder.name, spec.run_id, spec.label) for folder in folders for spec in _runs(folder)
    ]
    imported = _imported_runs(log_root)
    candidates += imported
    whole = [k for k in candidates if name in (f"{k[0]}/{k[1]}", k[1], k[2])]
    names = [folder.name for folder in folders], list(dict.fromkeys(k[0] for k in imported))
    fitting_names = [[n for n in kind if name in n] for kind in names]  # one's own come first
    suites = [] if whole else fitting_names[0] or fitting_names[1]
    if len(exact := [suite_name for suite_name in suites if suite_name == name] or suites) == 1:
        return exact[0], ""
    if len(suites) > 1:
        named = ", ".join(suites[:3]) + (", …" if len(suites) > 3 else "")
        raise suite.SuiteError(f"'{name}' fits {len(suites)} suites ({named}); give more of it")
    fitting = whole or [k for k in candidates if name in f"{k[0]}/{k[1]}"]
    fitting = fitting or [
        k for k in _imported_plans(log_root) if name in (f"{k[0]}/{k[1]}", *k[1:])
    ]
    if not fitting:
        listed = "`workbench results list` and `workbench ps --all` have them"
        raise suite.SuiteError(f"{log_root}: no run '{name}', and no suite of that name; {listed}")
    if len(fitting) > 1:
        named = ", ".join(f"{suite_name}/{run}" for suite_name, run, _ in fitting[:3])
        more = ", …" if len(fitting) > 3 else ""
        raise suite.SuiteError(f"'{name}' fits {len(fitting)} runs ({named}{more}); give suite/run")
    return fitting[0][:2]


def _runs(folder: Path) -> list[RunSpec]:
    """Runs of a suite; empty if it cannot be read."""
    try:
        return [spec for _, spec in suite.read_runs(folder)]
    except (OSError, suite.SuiteError):
        return []


def _imported_runs(log_root: Path) -> list[tuple[str, str, str]]:
    """Suite, run id and label of imported records, which have no folder."""
    identities = (
        record.identity
        for record in suite_view.read_records(log_root)
        if published_runs.is_imported(record)
    )
    return [(i.suite, i.run_id, i.label) for i in identities]


def _imported_plans(log_root: Path) -> list[tuple[str, str, str]]:
    """Suite, run id and label of experiments that imported files only plan."""
    plans = []
    for path in sorted(published_runs.copy_path(log_root, "").parent.glob("*.toml")):
        with contextlib.suppress(published_runs.PublishedError):
            results = published_runs.read_file(path)
            plans += [published_runs.identify(results, plan) for plan in results.planned]
    return [(i.suite, i.run_id, i.label) for i in plans]


def add_note(
    log_root: Path, key: tuple[str, str], kind: Kind, text: str, *, about: str = "", date: str = ""
) -> None:
    """Append one note on a run or a suite. `about`, `date`: see `Note`; default date: today.

    Raises:
        NoteError: the text is too long or empty, or the kind is one of whole suites.
        OSError: the file cannot be written.
    """
    content = " ".join(text.split())
    longest = MAX_STATE_LENGTH if kind in notes.RUN_KINDS else MAX_LENGTH
    if len(content) > longest:
        raise NoteError(
            f"a {kind} of {len(content):,} letters is too long; {longest:,} are the most"
        )
    if key[1] and kind in notes.SUITE_KINDS:
        raise NoteError(f"a {kind} is noted on a suite, and {key[1]} is a run; give {key[0]}")
    if not key[1] and kind in notes.RUN_KINDS:
        raise NoteError(f"a {kind} is noted on a run, and {key[0]} is none; give suite/run")
    if not content and kind not in CLEARABLE:
        raise NoteError(f"the {kind} is empty; write what is to be noted")
    if kind == "withdrawn" and content not in _noted_texts(read_standing(log_root, key)):
        raise NoteError(f"nothing noted reads '{content}'; give the whole text as it is shown")
    if kind == "event":
        date = " ".join(date.split()) or time.strftime("%Y-%m-%d")
    note = Note(
        suite=key[0], run_id=key[1], kind=kind, text=content, about=about.strip(), date=date,
        wall=time.time(),
    )  # fmt: skip
    notes.append_note(log_root / "notes.jsonl", note)


def add_reason(log_root: Path, key: tuple[str, str], text: str) -> None:
    """Note `NAME=TEXT` as the reason for a subset, model or variant, else for the whole choice.

    Raises:
        NoteError, OSError: see `add_note`.
    """
    about, equals, reason = text.partition("=")
    is_week = notes.WEEK.fullmatch(key[0]) is not None
    folders = suite.list_suites(log_root) if is_week else [log_root / key[0]]
    targets = {name for folder in folders for name in reason_targets(folder)}
    if not equals or about.strip() not in targets:
        about, reason = "", text
    add_note(log_root, key, "reason", reason, about=about)


def add_link(log_root: Path, key: tuple[str, str], text: str) -> None:
    """Note `TARGET TEXT`, a link to a document: a path or an address, then what it holds.

    Raises:
        NoteError: the first word is no link target; else see `add_note`.
        OSError: see `add_note`.
    """
    target, _, description = text.strip().partition(" ")
    if not is_link_target(target):
        raise NoteError(
            f"a link begins with a relative path or an http address, and '{target}' is neither; "
            "write 'details.md What it holds'"
        )
    add_note(log_root, key, "link", description.strip() or target, about=target)


def is_link_target(target: str) -> bool:
    """Whether it is a relative path, or an address that a browser opens as a page."""
    try:
        scheme = urlsplit(target).scheme
    except ValueError:
        return False
    return bool(target) and not target.startswith("/") and scheme in ("", "http", "https")


def reason_targets(folder: Path) -> set[str]:
    """Subsets, models and labels of the runs of a suite."""
    names = {name for spec in _runs(folder) for name in (spec.subset, spec.model, spec.label)}
    return names - {""}


def _noted_texts(standing: RunNotes) -> set[str]:
    links = {text for pair in standing.links for text in pair}
    events = (text for _, text in standing.events)
    return {*standing.findings, *standing.next_steps, *events, *links}


def read_standing(log_root: Path, key: tuple[str, str]) -> RunNotes:
    """Current notes of a run or a suite, after all additions and withdrawals."""
    return read_standings(log_root).get(key, RunNotes())


def read_standings(log_root: Path) -> dict[tuple[str, str], RunNotes]:
    """Current notes of all runs and suites, by (suite, run id)."""
    return notes.reduce_notes(notes.read_notes(log_root / "notes.jsonl"))


def read_trash(log_root: Path) -> set[tuple[str, str]]:
    """(suite, run id) of the runs in the trash."""
    return {key for key, noted in read_standings(log_root).items() if noted.trashed}


def standing_lines(standing: RunNotes) -> list[tuple[str, str]]:
    """(kind, text) of all notes, in the order of a report."""
    shown = [(name, getattr(standing, name)) for name in ("title", "goal", "background", "state")]
    shown += [("public", standing.public_score)]
    shown += [("tags", ", ".join(sorted(standing.tags)))]
    shown += [
        ("why", f"{about}: {reason}" if about else reason)
        for about, reason in standing.reasons.items()
    ]
    shown += [("finding", text) for text in standing.findings]
    shown += [("event", f"{date}  {event}") for date, event in standing.events]
    shown += [("link", f"{target}  {description}") for target, description in standing.links]
    shown += [
        ("conclusion", standing.conclusion),
        *(("next", text) for text in standing.next_steps),
    ]
    return [(name, text) for name, text in shown if text]
