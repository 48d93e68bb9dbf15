"""Notes on a whole suite, from the Results screen: what kind, for what, and the text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from results.text.sanitize import clean_line
from workbench.tui.screens.dialogs import Ask, Choose
from workbench.tui.view_models.cells import Column

if TYPE_CHECKING:
    from results.records.notes import Kind, RunNotes

KINDS: Final[tuple[tuple[Kind, str], ...]] = (
    ("next", "next step"),
    ("finding", "key finding"),
    ("reason", "why a subset, model or variant"),
    ("event", "line of the timeline, today"),
    ("link", "document: where, what it holds"),
    ("conclusion", "conclusion"),
    ("title", "title of the report"),
    ("goal", "goal"),
    ("background", "background"),
)
ALL: Final = "the choice as a whole"
COLUMNS: Final = (Column("kind", "", 30), Column("now", "", 30, grow=10))


def begin(app: Any, log_root: Path, suite: str) -> None:
    """Ask for the kind, then for the text, and add the note; Esc leaves at any time."""
    from workbench.reporting import note_writer

    key = (suite, "")
    found = note_writer.read_standing(log_root, key)
    rows = [(name, clean_line(_now(found, kind), 120)) for kind, name in KINDS]

    def take(kind: Any) -> None:
        if kind == "reason":
            _choose_subject(app, log_root, key)
        elif kind is not None:
            _ask(app, log_root, key, kind, "")

    app.push_screen(Choose(f"Note on {suite}", COLUMNS, rows, [kind for kind, _ in KINDS]), take)


def _choose_subject(app: Any, log_root: Path, key: tuple[str, str]) -> None:
    from workbench.reporting import note_writer

    names = [ALL, *sorted(note_writer.reason_targets(log_root / key[0]))]
    reasons = note_writer.read_standing(log_root, key).reasons
    rows = [(name, clean_line(reasons.get("" if name == ALL else name, ""), 120)) for name in names]

    def take(name: str | None) -> None:
        if name is not None:
            _ask(app, log_root, key, "reason", "" if name == ALL else name)

    app.push_screen(Choose("Why was it chosen?", COLUMNS, rows, names), take)


def _ask(app: Any, log_root: Path, key: tuple[str, str], kind: Kind, about: str) -> None:
    from workbench.reporting import note_writer

    name = dict(KINDS)[kind]

    def take(text: str | None) -> None:
        if not text:
            return
        try:
            if kind == "link":
                note_writer.add_link(log_root, key, text)
            else:
                note_writer.add_note(log_root, key, kind, text, about=about)
        except (OSError, note_writer.NoteError) as error:
            app.notify(clean_line(str(error)), title="Not noted", severity="error")
            return
        app.notify(clean_line(text, 200), title=f"Noted: {about or name}")

    app.push_screen(
        Ask(f"{name.capitalize()} ({about or key[0]})", "one line; Enter keeps it"), take
    )


def _now(found: RunNotes, kind: str) -> str:
    """What is noted already; of a list, its last line."""
    lists = {"next": found.next_steps, "finding": found.findings,
             "event": tuple(text for _, text in found.events),
             "link": tuple(" ".join(pair) for pair in found.links),
             "reason": tuple(found.reasons.values())}  # fmt: skip
    if kind in lists:
        return lists[kind][-1] if lists[kind] else ""
    return str(getattr(found, kind))
