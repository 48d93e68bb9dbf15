"""Record browser: sampled records of a subset one at a time, with their pictures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from workbench.tui.system.child_process import ChildError, read_messages
from workbench.tui.widgets.top_bar import Heading

if TYPE_CHECKING:
    from workbench.tui.app import WorkbenchApp

SAMPLE_SIZE: Final = 50
PASSAGE_CHARACTERS: Final = 1_200
"""Maximum shown length of a passage."""


class RecordBrowser(ModalScreen[None]):
    """Shows one record; left and right change it, up and down scroll its text."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,n,space", "turn(1)", "Next"),
        Binding("left,p", "turn(-1)", "Previous"),
        Binding("s", "draw", "Other records"),
        Binding("escape,q,b", "leave", "Back"),
    ]

    def __init__(self, name: str, ids: Sequence[str] = ()) -> None:
        """`ids`: of the records, as score files name them; without, a sample is drawn."""
        super().__init__()
        self.subset, self._seed, self._ids = name, 0, tuple(ids)
        self.records: list[dict[str, Any]] = []
        self.at = 0

    def compose(self) -> ComposeResult:
        """Pictures at the left, text at the right."""
        yield Heading(self.subset, id="sample-title")
        with Horizontal(id="sample-body"):
            yield Vertical(id="sample-pictures")
            with VerticalScroll(id="sample-scroll"):
                yield Static("Reading records …", id="sample-text")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Read a sample of records."""
        self.query_one("#sample-scroll").focus()
        self._read()

    @work(exclusive=True, group="samples")
    async def _read(self) -> None:
        module = "find_records" if self._ids else "sample_records"
        command = [sys.executable, "-m", f"datasets_mm.profile.{module}"]
        command += ["--cache-root", str(cast("WorkbenchApp", self.app).cache_root)]
        command += [f"--id={name}" for name in self._ids]
        command += [] if self._ids else ["--count", str(SAMPLE_SIZE), "--seed", str(self._seed)]
        command += ["--", self.subset]
        self.records, self.at = [], 0
        try:
            async for message in read_messages(command):
                if message.get("kind") == "record":
                    self.records.append(message)
                    if len(self.records) == 1:
                        await self._show()
                    self._show_position()
            if not self.records:
                self._show_failure(
                    "This subset has no record with this id." if self._ids
                    else "This subset has no record."
                )  # fmt: skip
        except ChildError as error:
            self._show_failure(str(error))

    def _show_failure(self, sentence: str) -> None:
        from results.text.sanitize import clean_line

        text = self.query_one("#sample-text", Static)
        text.add_class("failed")
        text.update(Text(clean_line(sentence)))

    def _show_position(self) -> None:
        record = self.records[self.at]
        self.query_one("#sample-title", Heading).remark = (
            f"{self.at + 1} of {len(self.records)} "
            + ("" if self._ids else f"drawn (seed {self._seed}) ")
            + f"· row {record['row']:,} of {record['rows']:,}"
        )

    async def _show(self) -> None:
        from workbench.tui.widgets import image

        record = self.records[self.at]
        self._show_position()
        text = self.query_one("#sample-text", Static)
        text.remove_class("failed")
        text.update(format_record(record))
        self.query_one("#sample-scroll", VerticalScroll).scroll_home(animate=False)
        pictures = self.query_one("#sample-pictures", Vertical)
        await pictures.remove_children()
        chosen = select_pictures(record)
        # Cells are twice as high as wide; half of the window is left for the text.
        height = (self.size.height - 3) // len(chosen) - 2
        pictures.styles.width = max(24, min(self.size.width // 2, 2 * height + 2))
        for title, path in chosen:
            copy = record["pictures"].get(path, {"reason": "no picture"})
            file = Path(copy["file"]) if "file" in copy else None
            await pictures.mount(
                Static(Text(title), classes="picture-title"),
                image.make_widget(file, copy.get("reason", "")),
            )

    def action_turn(self, by: int) -> None:
        """Show the next or the previous record."""
        at = max(0, min(self.at + by, len(self.records) - 1))
        if self.records and at != self.at:
            self.at = at
            self._show_turned()

    @work(exclusive=True, group="page")
    async def _show_turned(self) -> None:
        await self._show()

    def action_draw(self) -> None:
        """Draw another sample, with the next seed."""
        self._seed, self._ids = self._seed if self._ids else self._seed + 1, ()
        self._read()

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)


def select_pictures(record: dict[str, Any]) -> list[tuple[str, str]]:
    """(title, path) of the pictures shown: the query's, and the first positive's."""
    fields = record["fields"]
    pictures = [("query", fields["image_path"])]
    positive = next((path for path in fields["passage_image_path"] if path), "")
    return [*pictures, ("positive", positive)] if positive else pictures


def format_record(record: dict[str, Any]) -> Text:
    """The fields of a record as sanitized text."""
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
    for number, (name, passage, path) in enumerate(passages, 1):
        text.append(f"\npositive {number}  {clean_line(name)}\n", style="bold")
        if path:
            line("picture", path)
        more = " …" if len(passage) > PASSAGE_CHARACTERS else ""
        text.append(f"{clean(passage[:PASSAGE_CHARACTERS])}{more}\n")
    return text
