"""The frame that all screens share: the bar at the top and the headings of sections."""

from __future__ import annotations

from typing import ClassVar, Final

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


class ModeChosen(Message):
    """A tab was clicked."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode


class Tab(Static):
    """One word of the bar."""

    def __init__(self, mode: str, key: str, title: str, *, here: bool) -> None:
        super().__init__(Text(f" {key} {title} "), classes="here" if here else "")
        self._mode = mode

    def on_click(self, event: events.Click) -> None:
        """Go there."""
        event.stop()
        self.post_message(ModeChosen(self._mode))


class TopBar(Horizontal):
    """Name, the four screens, and at the right what is at work."""

    DEFAULT_CSS = "TopBar { height: 1; dock: top; }"

    def __init__(self, here: str) -> None:
        super().__init__()
        self._here = here
        self._said = ""

    def compose(self) -> ComposeResult:
        """The words."""
        yield Static(Text(" workbench "), classes="name")
        for mode, key, title in TABS:
            yield Tab(mode, key, title, here=mode == self._here)
        yield Static("", classes="work")
        yield Static(Text(" needs 80×24"), classes="needs")

    def say(self, text: str) -> None:
        """Show what is at work. Saying it again would lay out the whole screen again."""
        if text == self._said:
            return
        self._said = text
        self.query_one(".work", Static).update(Text(text, no_wrap=True, overflow="ellipsis"))


class Heading(Widget):
    """A section's title at the left and a quiet remark at the right; no box around anything."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"heading--remark"}
    DEFAULT_CSS = "Heading { height: 1; }"

    remark: reactive[str] = reactive("")
    title: reactive[str] = reactive("")

    def __init__(self, title: str, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.set_reactive(Heading.title, title)

    def render(self) -> RenderResult:
        """One line, cleaned: a title may be a run's name or a suite's."""
        title = clean_line(self.title)
        room = max(0, self.size.width - len(title) - 3)
        remark = Text(f"{clean_line(self.remark)} ", no_wrap=True)
        remark.truncate(room, overflow="ellipsis")
        blank = " " * max(1, self.size.width - len(title) - remark.cell_len - 1)
        remark.stylize(self.get_component_rich_style("heading--remark"))
        return Text.assemble(f" {title}", blank, remark, no_wrap=True)


class Pick(Widget, can_focus=True):
    """A name and the value chosen for it; Enter, Space or a click asks for another one."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"pick--name", "pick--value", "pick--hint"}
    BINDINGS: ClassVar = [("enter,space", "open", "Choose")]
    DEFAULT_CSS = "Pick { height: 1; }"

    value: reactive[str] = reactive("…")

    class Opened(Message):
        """Another value is wanted."""

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
        """Ask for another value."""
        self.post_message(self.Opened(self))

    def on_click(self) -> None:
        """As Enter."""
        self.action_open()
