"""Dialogs of the Results screen for a note on a suite: kind, subject and text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from results.text.sanitize import clean_line
from workbench.tui.screens.dialogs import ChoiceDialog, TextDialog
from workbench.tui.view_models.cells import GridColumn

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
WHOLE_CHOICE: Final = "the choice as a whole"
COLUMNS: Final = (GridColumn("kind", "", 30), GridColumn("now", "", 30, grow=10))


def add_suite_note(app: Any, log_root: Path, suite: str) -> None:
    """Ask for kind and text, then add the note; Esc cancels."""
    from workbench.reporting import note_writer

    key = (suite, "")
    standing = note_writer.read_standing(log_root, key)
    rows = [(name, clean_line(_current_text(standing, kind), 120)) for kind, name in KINDS]

    def on_choice(kind: Any) -> None:
        if kind == "reason":
            _choose_subject(app, log_root, key)
        elif kind is not None:
            _ask_text(app, log_root, key, kind, "")

    app.push_screen(
        ChoiceDialog(f"Note on {suite}", COLUMNS, rows, [kind for kind, _ in KINDS]), on_choice
    )


def _choose_subject(app: Any, log_root: Path, key: tuple[str, str]) -> None:
    from workbench.reporting import note_writer

    names = [WHOLE_CHOICE, *sorted(note_writer.reason_targets(log_root / key[0]))]
    reasons = note_writer.read_standing(log_root, key).reasons
    rows = [
        (name, clean_line(reasons.get("" if name == WHOLE_CHOICE else name, ""), 120))
        for name in names
    ]

    def on_choice(name: str | None) -> None:
        if name is not None:
            _ask_text(app, log_root, key, "reason", "" if name == WHOLE_CHOICE else name)

    app.push_screen(ChoiceDialog("Why was it chosen?", COLUMNS, rows, names), on_choice)


def _ask_text(app: Any, log_root: Path, key: tuple[str, str], kind: Kind, about: str) -> None:
    from workbench.reporting import note_writer

    name = dict(KINDS)[kind]

    def on_text(text: str | None) -> None:
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
        TextDialog(f"{name.capitalize()} ({about or key[0]})", "one line; Enter keeps it"), on_text
    )


def _current_text(standing: RunNotes, kind: str) -> str:
    """The current note of a kind; of a list, its last entry."""
    lists = {"next": standing.next_steps, "finding": standing.findings,
             "event": tuple(text for _, text in standing.events),
             "link": tuple(" ".join(pair) for pair in standing.links),
             "reason": tuple(standing.reasons.values())}  # fmt: skip
    if kind in lists:
        return lists[kind][-1] if lists[kind] else ""
    return str(getattr(standing, kind))
