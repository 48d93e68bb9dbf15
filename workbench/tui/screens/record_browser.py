"""Records of a subset, one at a time, with their pictures where the terminal can show them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from workbench.tui.system.child_process import ChildError, messages
from workbench.tui.widgets.top_bar import Heading

if TYPE_CHECKING:
    from workbench.tui.app import WorkbenchApp

COUNT: Final = 50
PASSAGE_CHARACTERS: Final = 1_200
"""Of each passage: three screens full; the whole text is in the data."""


class SampleScreen(ModalScreen[None]):
    """Left and right turn the pages; up and down scroll the words."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,n,space", "turn(1)", "Next"),
        Binding("left,p", "turn(-1)", "Previous"),
        Binding("s", "draw", "Other records"),
        Binding("escape,q,b", "leave", "Back"),
    ]

    def __init__(self, name: str) -> None:
        super().__init__()
        self.subset, self._seed = name, 0
        self.records: list[dict[str, Any]] = []
        self.at = 0

    def compose(self) -> ComposeResult:
        """Pictures at the left, words at the right."""
        yield Heading(self.subset, id="sample-title")
        with Horizontal(id="sample-body"):
            yield Vertical(id="sample-pictures")
            with VerticalScroll(id="sample-scroll"):
                yield Static("Reading records …", id="sample-text")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Draw records."""
        self.query_one("#sample-scroll").focus()
        self._read()

    @work(exclusive=True, group="samples")
    async def _read(self) -> None:
        cache = cast("WorkbenchApp", self.app).cache_root
        command = [
            sys.executable,
            "-m",
            "datasets_mm.profile.sample_records",
            "--cache-root",
            str(cache),
        ]
        command += ["--count", str(COUNT), "--seed", str(self._seed), "--", self.subset]
        self.records, self.at = [], 0
        try:
            async for said in messages(command):
                if said.get("kind") == "record":
                    self.records.append(said)
                    if len(self.records) == 1:
                        await self._show()
                    self._count()
            if not self.records:
                self._say("This subset has no record.")
        except ChildError as error:
            self._say(str(error))

    def _say(self, sentence: str) -> None:
        from results.text.sanitize import clean_line

        text = self.query_one("#sample-text", Static)
        text.add_class("failed")
        text.update(Text(clean_line(sentence)))

    def _count(self) -> None:
        record = self.records[self.at]
        self.query_one("#sample-title", Heading).remark = (
            f"{self.at + 1} of {len(self.records)} drawn (seed {self._seed}) · "
            f"row {record['row']:,} of {record['rows']:,}"
        )

    async def _show(self) -> None:
        from workbench.tui.widgets import image

        record = self.records[self.at]
        self._count()
        text = self.query_one("#sample-text", Static)
        text.remove_class("failed")
        text.update(page(record))
        self.query_one("#sample-scroll", VerticalScroll).scroll_home(animate=False)
        pictures = self.query_one("#sample-pictures", Vertical)
        await pictures.remove_children()
        for title, path in shown(record):
            copy = record["pictures"].get(path, {"reason": "no picture"})
            file = Path(copy["file"]) if "file" in copy else None
            await pictures.mount(
                Static(Text(title), classes="picture-title"),
                image.widget(file, copy.get("reason", "")),
            )

    def action_turn(self, by: int) -> None:
        """The next record, or the one before."""
        at = max(0, min(self.at + by, len(self.records) - 1))
        if self.records and at != self.at:
            self.at = at
            self._turned()

    @work(exclusive=True, group="page")
    async def _turned(self) -> None:
        await self._show()

    def action_draw(self) -> None:
        """Draw other records."""
        self._seed += 1
        self._read()

    def action_leave(self) -> None:
        """Back."""
        self.dismiss(None)


def shown(record: dict[str, Any]) -> list[tuple[str, str]]:
    """(title, path) of the pictures at the left: the query's, and that of the first positive."""
    fields = record["fields"]
    found = [("query", fields["image_path"])]
    positive = next((path for path in fields["passage_image_path"] if path), "")
    return [*found, ("positive", positive)] if positive else found


def page(record: dict[str, Any]) -> Text:
    """The words of a record, cleaned."""
    from results.text.sanitize import clean, clean_line

    fields = record["fields"]
    text = Text()

    def line(name: str, value: str) -> None:
        text.append(f"{name:<12}", style="dim")
        text.append(f"{clean_line(value) or '–'}\n")

    line("question", fields["question"])
    line("instruction", fields["instruction"])
    for letter, option in zip("abcd", fields.get("options") or (), strict=False):
        line(f"  {letter}", option)
    line("answer", ", ".join(fields["answer"]))
    line("picture", fields["image_path"])
    line("id", f"{fields['data_id']}  ({fields['dataset_id']})")
    passages = zip(
        fields["passage_id"], fields["passage_text"], fields["passage_image_path"], strict=True
    )
    for number, (name, said, path) in enumerate(passages, 1):
        text.append(f"\npositive {number}  {clean_line(name)}\n", style="bold")
        if path:
            line("picture", path)
        more = " …" if len(said) > PASSAGE_CHARACTERS else ""
        text.append(f"{clean(said[:PASSAGE_CHARACTERS])}{more}\n")
    return text
