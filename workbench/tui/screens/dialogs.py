"""Modal dialogs: confirmation, choice, text input and help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from results.text.sanitize import clean
from workbench.tui.view_models.cells import GridColumn, GridRow
from workbench.tui.widgets.grid import Grid


class ConfirmDialog(ModalScreen[bool]):
    """A yes-no question; the result is True for yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
        Binding("left,right", "app.focus_next", show=False),
    ]

    def __init__(self, title: str, text: str, yes: str, no: str = "No, leave it") -> None:
        super().__init__()
        self._title, self._text, self._yes, self._no = title, text, yes, no

    def compose(self) -> ComposeResult:
        """Title, text, two buttons."""
        with Vertical(classes="dialog"):
            yield Static(Text(clean(self._title)), classes="dialog-title")
            yield Static(Text(clean(self._text)), classes="dialog-text")
            with Horizontal(classes="dialog-answers"):
                yield Button(Text(f"n  {self._no}"), id="no", compact=True)
                yield Button(Text(f"y  {self._yes}"), id="yes", compact=True)

    def on_mount(self) -> None:
        """Focus "no", so that Enter alone changes nothing."""
        self.query_one("#no").focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        """Close with an answer."""
        self.dismiss(answer)


class ChoiceDialog(ModalScreen[str | None]):
    """A list of rows; the result is the key of the chosen row, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "Back"),
    ]

    def __init__(
        self,
        title: str,
        columns: Sequence[GridColumn],
        rows: Sequence[GridRow],
        keys: Sequence[str],
        *,
        here: str = "",
        empty: str = "Nothing to choose from.",
    ) -> None:
        super().__init__()
        self._title, self._columns, self._rows, self._keys = title, columns, rows, keys
        self._here, self._empty = here, empty

    def compose(self) -> ComposeResult:
        """Title, list, keys."""
        with Vertical(classes="dialog wide"):
            yield Static(Text(clean(self._title)), classes="dialog-title")
            yield Grid(self._columns, header=False, notice=self._empty, id="choices")
            yield Static(Text("Enter chooses · Esc goes back"), classes="dialog-keys")

    def on_mount(self) -> None:
        """Place the cursor on the current choice."""
        grid = self.query_one(Grid)
        grid.styles.height = max(1, len(self._rows))
        grid.show(self._rows, self._keys)
        if self._here in self._keys:
            grid.cursor = list(self._keys).index(self._here)
        grid.focus()

    @on(Grid.Chosen)
    @on(Grid.Toggled)
    def _chosen(self, event: Grid.Moved) -> None:
        self.dismiss(event.grid.key)

    def action_leave(self) -> None:
        """Close without a choice."""
        self.dismiss(None)


class TextDialog(ModalScreen[str | None]):
    """Input of one line; the result is the text, or None if it is empty or cancelled."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Back")]

    def __init__(self, title: str, placeholder: str) -> None:
        super().__init__()
        self._title, self._placeholder = title, placeholder

    def compose(self) -> ComposeResult:
        """Title, input, keys."""
        with Vertical(classes="dialog wide"):
            yield Static(Text(clean(self._title)), classes="dialog-title")
            yield Input(placeholder=self._placeholder, compact=True, id="answer")
            yield Static(Text("Enter keeps it · Esc goes back"), classes="dialog-keys")

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip() or None)

    def action_leave(self) -> None:
        """Close without a text."""
        self.dismiss(None)


class MessageDialog(ModalScreen[None]):
    """A text of any length, whole and wrapped."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter", "leave", "Back")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        """Title, text, keys."""
        with Vertical(classes="dialog wide"):
            yield Static(Text(clean(self._title)), classes="dialog-title")
            with VerticalScroll(id="message"):
                yield Static(Text(clean(self._text)))
            yield Static(Text("Esc goes back"), classes="dialog-keys")

    def on_mount(self) -> None:
        """Focus the text, so that arrow keys scroll it."""
        self.query_one("#message").focus()

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)


HELP_SECTIONS: Final = (
    ("Everywhere", (
        ("1 2 3 4 · F1 F2 F3 F4", "Plan, Live, Results, Data"),
        ("Tab · Shift+Tab", "next, previous part of the screen"),
        ("↑ ↓ · PgUp PgDn · Home End", "move in a list (j k, too, but on Live)"),
        ("/ · ↑ in it · Esc", "find in the list that has the focus · earlier words · show all"),
        ("' · Ctrl+O", "a letter over each part of the screen: the letter goes there"),
        ("O", "another log root"),
        (":", "search for anything: action, suite, run, subset, setting, theme, docs"),
        ("y", "copy: command, folder, row, table, cell"),
        ("? · Ctrl+S", "this help · a picture of the screen, saved in the log root"),
        ("q · Ctrl+Q · Ctrl+C", "leave; suites go on by themselves"),
    )),
    ("Plan", (
        ("Space · *", "choose a subset or model; turn a switch · pin it to the top of its list"),
        ("Enter", "edit a setting, open a group · Backspace: its default"),
        ("s · / · Esc", "to the settings · find words in a list · show all"),
        ("p · e · i", "start from a preset, suite, plan file · engine · folder of the data"),
        ("x · K J · < >", "in Runs: leave a run out · subset, model of the run earlier, later"),
        ("u · w", "take the last change back · save as a preset; the draft itself is kept"),
        ("Q", "start when another suite has ended"),
        ("v", "settings, runs, plan file: where there is room for one"),
        ("F5 · P · f", "start · cost probes · run done runs again"),
    )),
    ("Live", (
        ("o · [ ]", "choose a suite · the one before, after"),
        ("f", "follow the run at work"),
        ("s · k · c · p", "stop suite · skip run · cancel queued run · pause or resume"),
        ("u · Enter", "take a cancel or skip back · all about a run: failure, notices"),
        ("r", "resume a suite that is paused, or has ended with runs left"),
        ("Space", "mark up to four runs: they share the charts"),
        ("z · l · e · x · m", "charts: one alone · log · smooth · step, time, samples · a curve"),
        ("← → · Shift+← → · Esc", "all panels at an earlier moment · in small steps · now"),
        ("+", "an earlier run behind the curves, away"),
        ("/ n N · w · L · a · v", "log: find · wrap · alone · attempt before · metrics instead"),
        ("A · E", "audit: faults and remedies · a small run that tells what ails this one"),
    )),
    ("Results", (
        ("/", 'filter: since:7d end:ok score>.3 model:clip lr<1e-4 -label:old "two words"'),
        ("", "end: ok, failed, never, a cause · fields: suite run label subset model engine task"),
        ("", "seed steps wall epoch step rss vram loss note tag, settings, metrics · in:trash"),
        ("< > · r", "sort by another column · turn the order round"),
        ("c · m", "columns and their order · metric and split of the score"),
        ("g · Enter", "group by suite, label, subset, model · fold a group"),
        ("v", "saved views; save this one"),
        ("Space · C", "mark up to four runs · compare them; there: Enter shows cases"),
        ("", "there 1 to 5: metrics, curves, cases, settings, logs; in a case n p turn"),
        ("b", "single items of the run, the worst first; d: the item's record in Data"),
        ("Enter", "all that is known of a run; there: n notes a finding, s a state"),
        ("x · w", "export marked or shown runs · report of marked runs, or of the suite"),
        ("n", "note on the suite: next step, finding, reason, timeline, conclusion"),
        ("t · u", "put a run into the trash, nothing is deleted · take it back"),
    )),
    ("Data", (
        ("/", "find subsets by words of name and title"),
        ("Enter", "describe the subset: what its records hold"),
        ("Space · d", "mark two subsets · their differences"),
        ("b", "browse records with their pictures; there: c many at once, / those with words"),
        ("i", "folder of data that do not ship"),
        ("r", "scan again what was scanned before"),
    )),
)  # fmt: skip


class HelpDialog(ModalScreen[None]):
    """Keys of all screens."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark", "leave", "Back")]

    def compose(self) -> ComposeResult:
        """A list of keys for each screen."""
        with Vertical(classes="dialog wide"), VerticalScroll(id="help"):
            for title, keys in HELP_SECTIONS:
                yield Static(Text(title), classes="help-title")
                for key, description in keys:
                    with Horizontal(classes="help-line"):
                        yield Static(Text(key), classes="help-key")
                        yield Static(Text(description), classes="help-what")

    def on_mount(self) -> None:
        """Focus the list, so that arrow keys scroll it."""
        self.query_one("#help").focus()

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)
