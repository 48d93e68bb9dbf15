"""Widgets shared by all screens: top bar, section heading and pick field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.app import ComposeResult, RenderResult
from textual.containers import Horizontal
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Static

from results.text.sanitize import clean_line

TABS: Final = (
    ("plan", "1", "Plan"), ("live", "2", "Live"),
    ("results", "3", "Results"), ("data", "4", "Data"),
)  # fmt: skip


MIN_ROOT_CELLS: Final = 8
"""Less of the log root's path is left out."""


class ModeChosen(Message):
    """A tab was clicked."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode


class Tab(Static):
    """Tab of one screen in the top bar; a click opens the screen."""

    def __init__(self, mode: str, key: str, title: str, *, here: bool) -> None:
        super().__init__(Text(f" {key} {title} "), classes="here" if here else "")
        self._mode = mode

    def on_click(self, event: events.Click) -> None:
        """Open the screen."""
        event.stop()
        self.post_message(ModeChosen(self._mode))


class BarStatus(Widget):
    """Running suites, then as much of the log root's path as fits, its end first."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"status--root"}
    DEFAULT_CSS = "BarStatus { height: 1; width: 1fr; }"

    activity: reactive[str] = reactive("")
    root: reactive[str] = reactive("")

    def render(self) -> RenderResult:
        """One line, aligned to the right."""
        room = max(0, self.size.width - 2)
        activity = Text(clean_line(self.activity), no_wrap=True)
        activity.truncate(room, overflow="ellipsis")
        free = room - activity.cell_len - (2 if activity else 0)
        root = clean_line(self.root)
        if cell_len(root) > free:
            root = root if free >= MIN_ROOT_CELLS else ""
            while root and cell_len(root) >= free:
                root = root[1:]
            root = f"…{root}" if root else ""
        parts = [activity, Text(root, style=self.get_component_rich_style("status--root"))]
        text = Text("  ").join(part for part in parts if part)
        text.pad_left(max(0, room + 1 - text.cell_len))
        return text


class TopBar(Horizontal):
    """Name of the app, tabs of the four screens, running suites and log root at the right."""

    DEFAULT_CSS = "TopBar { height: 1; dock: top; }"

    def __init__(self, here: str) -> None:
        super().__init__()
        self._here = here
        # Made here: the app may set them before this bar is composed.
        self._status = BarStatus(classes="work")
        self._small_pane = Static(Text(" reading …"), classes="small-pane")

    def compose(self) -> ComposeResult:
        """Name, tabs, activity, and what a pane below 80×24 shows instead of all else."""
        yield Static(Text(" workbench "), classes="name")
        for mode, key, title in TABS:
            yield Tab(mode, key, title, here=mode == self._here)
        yield self._status
        yield self._small_pane

    def show_status(self, activity: str, root: str) -> None:
        """Set what runs and which log root is shown."""
        self._status.activity, self._status.root = activity, root

    def show_small_pane(self, lines: Sequence[str]) -> None:
        """Set the lines that a small pane shows."""
        text = Text("\n".join(f" {line}" for line in lines), no_wrap=True, overflow="ellipsis")
        self._small_pane.update(text)


class Heading(Widget):
    """Title of a section at the left and a dim remark at the right."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"heading--remark"}
    DEFAULT_CSS = "Heading { height: 1; }"

    remark: reactive[str] = reactive("")
    title: reactive[str] = reactive("")

    def __init__(self, title: str, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.set_reactive(Heading.title, title)

    def render(self) -> RenderResult:
        """One line, sanitized: a title may be the name of a run or suite."""
        title = clean_line(self.title)
        room = max(0, self.size.width - len(title) - 3)
        remark = Text(f"{clean_line(self.remark)} ", no_wrap=True)
        remark.truncate(room, overflow="ellipsis")
        blank = " " * max(1, self.size.width - len(title) - remark.cell_len - 1)
        remark.stylize(self.get_component_rich_style("heading--remark"))
        return Text.assemble(f" {title}", blank, remark, no_wrap=True)


class Pick(Widget, can_focus=True):
    """A name and its chosen value; Enter, Space or a click posts `Opened`."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"pick--name", "pick--value", "pick--hint"}
    BINDINGS: ClassVar = [("enter,space", "open", "Choose")]
    DEFAULT_CSS = "Pick { height: 1; }"

    value: reactive[str] = reactive("…")

    class Opened(Message):
        """The choices are to be opened."""

        def __init__(self, pick: Pick) -> None:
            super().__init__()
            self.pick = pick

        @property
        def control(self) -> Pick:
            """For `@on(Pick.Opened, "#id")`."""
            return self.pick

    def __init__(self, name: str, hint: str, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._name_text, self._hint = name, hint

    def render(self) -> RenderResult:
        """One line."""
        hint = f"{self._hint} ▾ "
        shown, style = clean_line(self.value), self.get_component_rich_style("pick--value")
        value = Text(shown, style=style, no_wrap=True)
        value.truncate(max(1, self.size.width - 15 - len(hint)), overflow="ellipsis")
        blank = " " * max(1, self.size.width - 14 - value.cell_len - len(hint))
        name_style = self.get_component_rich_style("pick--name")
        hint_style = self.get_component_rich_style("pick--hint")
        return Text.assemble(
            (f" {self._name_text:<13}", name_style), value, (f"{blank}{hint}", hint_style)
        )

    def action_open(self) -> None:
        """Post `Opened`."""
        self.post_message(self.Opened(self))

    def on_click(self) -> None:
        """As `action_open`."""
        self.action_open()
