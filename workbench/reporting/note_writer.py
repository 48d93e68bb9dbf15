"""What people say about runs and suites: finding what is meant, and adding to notes.jsonl.

Apart from `reporting`, because the screen notes too. Also runs that have not ended take notes: an
experiment has its finding and state before there is a record.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from engines.protocol import RunSpec
from results.records import notes
from results.records.notes import Kind, Note, Standing
from workbench.suites import suite

STATES: Final = ("waiting", "running", "done", "stopped")
"""The study's, which reports translate; a person's own words are kept as they are."""
LONGEST: Final = 4000
"""Letters of a note."""
LONGEST_STATE: Final = 40
EMPTY_TAKES_BACK: Final = ("state", "reason", *notes.SINGLE)


class NoteError(suite.SuiteError):
    """The note cannot be taken; one sentence with the remedy."""


def find(log_root: Path, name: str) -> tuple[str, str]:
    """(suite, run id) that a name means; the run id is empty where a whole suite is meant.

    A run goes by its id, its label or a part of `suite/run`, a suite by its name or a part of it.

    Raises:
        SuiteError: none fits, or more than one.
    """
    folders = suite.suites(log_root)
    known = [(folder.name, spec.run_id, spec.label) for folder in folders for spec in _runs(folder)]
    whole = [k for k in known if name in (f"{k[0]}/{k[1]}", k[1], k[2])]
    suites = [] if whole else [folder.name for folder in folders if name in folder.name]
    if len(exact := [one for one in suites if one == name] or suites) == 1:
        return exact[0], ""
    if len(suites) > 1:
        named = ", ".join(suites[:3]) + (", …" if len(suites) > 3 else "")
        raise suite.SuiteError(f"'{name}' fits {len(suites)} suites ({named}); give more of it")
    fitting = whole or [k for k in known if name in f"{k[0]}/{k[1]}"]
    if not fitting:
        listed = "`workbench results list` and `workbench ps --all` have them"
        raise suite.SuiteError(f"{log_root}: no run '{name}', and no suite of that name; {listed}")
    if len(fitting) > 1:
        named = ", ".join(f"{one}/{run}" for one, run, _ in fitting[:3])
        more = ", …" if len(fitting) > 3 else ""
        raise suite.SuiteError(f"'{name}' fits {len(fitting)} runs ({named}{more}); give suite/run")
    return fitting[0][:2]


def _runs(folder: Path) -> list[RunSpec]:
    """The runs of a suite; none of one that cannot be read, which is no reason against others."""
    try:
        return [spec for _, spec in suite.runs(folder)]
    except (OSError, suite.SuiteError):
        return []


def add(
    log_root: Path, key: tuple[str, str], kind: Kind, text: str, *, about: str = "", date: str = ""
) -> None:
    """Append one note on a run or a suite. `about`, `date`: see `Note`; no date is today's.

    Raises:
        NoteError: the text is too long or empty, or the kind is one of whole suites.
        OSError: the file cannot be written.
    """
    said = " ".join(text.split())
    longest = LONGEST_STATE if kind == "state" else LONGEST
    if len(said) > longest:
        raise NoteError(f"a {kind} of {len(said):,} letters is too long; {longest:,} are the most")
    if key[1] and kind in notes.SUITE_ONLY:
        raise NoteError(f"a {kind} is noted on a suite, and {key[1]} is a run; give {key[0]}")
    if not key[1] and kind == "state":
        raise NoteError(f"a state is noted on a run, and {key[0]} is a suite; give suite/run")
    if not said and kind not in EMPTY_TAKES_BACK:
        raise NoteError(f"the {kind} is empty; write what is to be noted")
    if kind == "withdrawn" and said not in _noted(standing(log_root, key)):
        raise NoteError(f"nothing noted reads '{said}'; give the whole text as it is shown")
    if kind == "event":
        date = " ".join(date.split()) or time.strftime("%Y-%m-%d")
    note = Note(suite=key[0], run_id=key[1], kind=kind, text=said, about=about.strip(), date=date,
                wall=time.time())  # fmt: skip
    notes.append(log_root / "notes.jsonl", note)


def add_reason(log_root: Path, key: tuple[str, str], text: str) -> None:
    """Note `NAME=TEXT` as the reason for a subset, model or variant of the suite, else for all.

    Raises:
        NoteError, OSError: see `add`.
    """
    about, equals, why = text.partition("=")
    known = choices(log_root / key[0])
    if not equals or about.strip() not in known:
        about, why = "", text
    add(log_root, key, "reason", why, about=about)


def add_link(log_root: Path, key: tuple[str, str], text: str) -> None:
    """Note `WHERE TEXT`, a document beside the report: a path or an address, then what it holds.

    Raises:
        NoteError: there is no such first word; else see `add`.
        OSError: see `add`.
    """
    where, _, holds = text.strip().partition(" ")
    if not leads_somewhere(where):
        raise NoteError(
            f"a link begins with a relative path or an http address, and '{where}' is neither; "
            "write 'details.md What it holds'"
        )
    add(log_root, key, "link", holds.strip() or where, about=where)


def leads_somewhere(where: str) -> bool:
    """A relative path, or an address that a browser opens as a page."""
    try:
        scheme = urlsplit(where).scheme
    except ValueError:
        return False
    return bool(where) and not where.startswith("/") and scheme in ("", "http", "https")


def choices(folder: Path) -> set[str]:
    """Subsets, models and labels of the runs of a suite."""
    names = {name for spec in _runs(folder) for name in (spec.subset, spec.model, spec.label)}
    return names - {""}


def _noted(found: Standing) -> set[str]:
    links = {text for pair in found.links for text in pair}
    return {*found.findings, *found.next_steps, *(text for _, text in found.events), *links}


def standing(log_root: Path, key: tuple[str, str]) -> Standing:
    """What the notes of a run or a suite come to."""
    found = notes.standings(notes.read(log_root / "notes.jsonl"))
    return found.get(key, Standing())


def lines(found: Standing) -> list[tuple[str, str]]:
    """(kind, text) of everything noted, in the order of a report."""
    shown = [(name, getattr(found, name)) for name in ("title", "goal", "background", "state")]
    shown += [("tags", ", ".join(sorted(found.tags)))]
    shown += [("why", f"{about}: {why}" if about else why) for about, why in found.reasons.items()]
    shown += [("finding", one) for one in found.findings]
    shown += [("event", f"{date}  {what}") for date, what in found.events]
    shown += [("link", f"{where}  {holds}") for where, holds in found.links]
    shown += [("conclusion", found.conclusion), *(("next", one) for one in found.next_steps)]
    return [(name, text) for name, text in shown if text]
