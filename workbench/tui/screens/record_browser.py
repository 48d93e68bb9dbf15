"""Record browser: records of a subset one at a time with their pictures, or as a contact sheet;
drawn at random, or those that have the searched words."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from rich.console import Group
from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from datasets_mm.recipes.record_classes import LETTERS
from workbench.tui.screens.footer_keys import FooterKeys
from workbench.tui.system.child_process import ChildError, read_messages
from workbench.tui.widgets.find_input import FindInput
from workbench.tui.widgets.footer import Footer
from workbench.tui.widgets.name_table import make_name_table
from workbench.tui.widgets.top_bar import Heading

if TYPE_CHECKING:
    from workbench.tui.app import WorkbenchApp

SAMPLE_SIZE: Final = 50
PASSAGE_CHARACTERS: Final = 1_200
NAME_CELLS: Final = 12
"""Maximum shown length of a passage."""
SHEET_CELLS: Final = (28, 9)
"""Least columns and rows of a record on a contact sheet."""
SHEET_LIMITS: Final = ((2, 4), (1, 3))
"""Least and most records in a row of a sheet, and rows of it."""
WORDS: Final = "records"
"""Name of the earlier texts of the search."""


class RecordBrowser(FooterKeys, ModalScreen[None]):
    """Shows one record, or a sheet of them; left and right change it, up and down scroll."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,n,space", "turn(1)", "Next"),
        Binding("left,p", "turn(-1)", "Previous"),
        Binding("down,j", "move_row(1)", show=False),
        Binding("up,k", "move_row(-1)", show=False),
        Binding("c", "sheet", "Contact sheet"),
        Binding("enter", "open", "Open"),
        Binding("slash", "find", "Find", key_display="/"),
        Binding("s", "draw", "Other records"),
        Binding("escape", "clear", "Back"),
        Binding("q,b", "leave", show=False),
    ]

    def __init__(self, name: str, ids: Sequence[str] = (), data_root: Path | None = None) -> None:
        """`ids`: of the records, as score files name them; without, a sample is drawn."""
        super().__init__()
        self.subset, self._seed, self._ids = name, 0, tuple(ids)
        self.words = ""
        """Words that the records have; empty: a random sample, or those of the ids."""
        self._data_root = data_root
        self.records: list[dict[str, Any]] = []
        self.at = 0
        self._page = -1
        """First record of the sheet that is painted; -1: none is."""
        self._painting = asyncio.Lock()
        """Held while pictures are mounted: records are read and turned at the same time."""

    @property
    def bench(self) -> WorkbenchApp:
        """The app, by its own type."""
        return cast("WorkbenchApp", self.app)

    def compose(self) -> ComposeResult:
        """Pictures at the left, text at the right; or the sheet."""
        yield Heading(self.subset, id="sample-title")
        with Horizontal(id="sample-body"):
            yield Vertical(id="sample-pictures")
            with VerticalScroll(id="sample-scroll"):
                yield Static("Reading records …", id="sample-text")
        yield Container(id="sheet")
        yield FindInput(id="sample-find")
        yield Footer()

    def on_mount(self) -> None:
        """Read records."""
        self.query_one("#sample-scroll").focus()
        self._read()

    def footer_titles(self) -> Mapping[str, str]:
        """Keys of the sheet or of the record."""
        if not self.records:
            return {"find": "Find", "draw": "Other records", "clear": "Back"}
        shown = {"open": "Open"} if self.has_class("sheet") else {"sheet": "Contact sheet"}
        turning = {"turn(1)": "Next", "turn(-1)": "Previous"}
        return {**turning, **shown, "find": "Find", "draw": "Other records", "clear": "Back"}

    # -- reading ---------------------------------------------------------------------------

    def _command(self) -> list[str]:
        name = "find_records" if self._ids else "sample_records"
        options = [f"--cache-root={self.bench.cache_root}", *(f"--id={i}" for i in self._ids)]
        if not self._ids:
            options += [f"--count={SAMPLE_SIZE}", f"--seed={self._seed}", f"--find={self.words}"]
            options += [f"--data-root={self._data_root}"] if self._data_root else []
        return [sys.executable, "-m", f"datasets_mm.profile.{name}", *options, "--", self.subset]

    @work(exclusive=True, group="samples")
    async def _read(self) -> None:
        self.records, self.at, self._page = [], 0, -1
        try:
            async for message in read_messages(self._command()):
                if message.get("kind") == "record":
                    self.records.append(message)
                    if len(self.records) == 1:
                        await self._show()
                    self._show_position()
            if not self.records:
                which = f"has all of: {self.words}" if self.words else "is in this subset"
                which = "has this id" if self._ids else which
                self._show_failure(f"No record {which}.")
            elif self.has_class("sheet"):
                self._page = -1
                await self._show()
        except ChildError as error:
            self._show_failure(str(error))
        self.update_footer()

    def _show_failure(self, sentence: str) -> None:
        from results.text.sanitize import clean_line

        self.remove_class("sheet")
        self.query_one("#sample-pictures").remove_children()
        text = self.query_one("#sample-text", Static)
        text.add_class("failed")
        text.update(Text(clean_line(sentence)))
        self.query_one("#sample-title", Heading).remark = "/ finds others" if self.words else ""

    def _show_position(self) -> None:
        record = self.records[self.at]
        source = "" if self._ids else f"drawn (seed {self._seed}) "
        if self.words:
            source = f"of {record['found']:,} with: {self.words} "
        self.query_one("#sample-title", Heading).remark = (
            f"{self.at + 1} of {len(self.records)} {source}· "
            f"row {record['row']:,} of {record['rows']:,}"
        )

    # -- painting --------------------------------------------------------------------------

    async def _show(self) -> None:
        async with self._painting:
            self._show_position()
            if self.has_class("sheet"):
                await self._show_sheet()
            else:
                await self._show_record()

    async def _show_record(self) -> None:
        from workbench.tui.widgets import image

        record = self.records[self.at]
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

    @property
    def sheet_shape(self) -> tuple[int, int]:
        """Records in a row of the sheet, and its rows, as the window has room."""
        room = (self.size.width, self.size.height - 3)
        columns, rows = (
            max(low, min(high, cells // least))
            for cells, least, (low, high) in zip(room, SHEET_CELLS, SHEET_LIMITS, strict=True)
        )
        return columns, rows

    async def _show_sheet(self) -> None:
        """Paint the page of the current record, if it is another one, and mark the record."""
        columns, rows = self.sheet_shape
        first = self.at - self.at % (columns * rows)
        sheet = self.query_one("#sheet", Container)
        if first != self._page:
            self._page = first
            await sheet.remove_children()
            sheet.styles.grid_size_columns, sheet.styles.grid_size_rows = columns, rows
            height = (self.size.height - 3) // rows - 3
            for record in self.records[first : first + columns * rows]:
                await sheet.mount(_make_cell(record, height))
        for number, cell in enumerate(sheet.children, first):
            cell.set_class(number == self.at, "here")

    # -- actions ---------------------------------------------------------------------------

    def action_turn(self, by: int) -> None:
        """Show the next or the previous record."""
        at = max(0, min(self.at + by, len(self.records) - 1))
        if self.records and at != self.at:
            self.at = at
            self._show_turned()

    def action_move_row(self, by: int) -> None:
        """On a sheet to the record above or below; else scroll the text."""
        if self.has_class("sheet"):
            self.action_turn(by * self.sheet_shape[0])
        else:
            self.query_one("#sample-scroll", VerticalScroll).scroll_relative(y=by, animate=False)

    @work(exclusive=True, group="page")
    async def _show_turned(self) -> None:
        await self._show()

    def action_sheet(self) -> None:
        """Show several records at once, or one."""
        if self.records:
            self.toggle_class("sheet")
            self._page = -1
            self._show_turned()
            self.update_footer()

    def action_open(self) -> None:
        """Open the record that is marked on the sheet."""
        if self.has_class("sheet"):
            self.action_sheet()

    def action_draw(self) -> None:
        """Draw another sample, with the next seed."""
        self._seed, self._ids = self._seed if self._ids else self._seed + 1, ()
        self.words = ""
        self._read()

    def action_find(self) -> None:
        """Search the records for words; `id:q17` is the record with this id."""
        self.add_class("finding")
        self.query_one(FindInput).open(self.words, self.bench.earlier_texts(WORDS))

    @on(FindInput.Submitted, "#sample-find")
    def _search(self, event: FindInput.Submitted) -> None:
        event.stop()
        self.words, self._ids = event.value.strip(), ()
        self.bench.remember_text(WORDS, self.words)
        self._leave_find()
        self._read()

    def _leave_find(self) -> None:
        self.remove_class("finding")
        self.query_one("#sample-scroll").focus()

    def action_clear(self) -> None:
        """Leave the input, then the sheet, then the browser."""
        if self.has_class("finding"):
            self._leave_find()
        elif self.has_class("sheet"):
            self.action_sheet()
        else:
            self.dismiss(None)

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)

    def on_resize(self) -> None:
        """Fit the sheet to the window."""
        if self.records and self.has_class("sheet"):
            self._page = -1
            self._show_turned()


def _make_cell(record: Mapping[str, Any], height: int) -> Vertical:
    """A record on a sheet: its first picture, row, question and answer. `height`: of the picture,
    in lines."""
    from results.text.sanitize import clean_line
    from workbench.tui.widgets import image

    fields = record["fields"]
    pictures = [path for path in (fields["image_path"], *fields["passage_image_path"]) if path]
    copy = record["pictures"].get(pictures[0] if pictures else "", {"reason": "no picture"})
    picture = image.make_widget(
        Path(copy["file"]) if "file" in copy else None, copy.get("reason", "")
    )
    picture.styles.height = max(1, height)
    answer = ", ".join(fields["answer"]) or (fields["passage_text"] or [""])[0]
    words = Text()
    words.append(f"{record['row']:,}  ", style="dim")
    words.append(f"{clean_line(fields['question'] or fields['instruction'], 200)}\n")
    words.append(clean_line(answer, 200), style="dim")
    return Vertical(picture, Static(words, classes="sheet-text"), classes="sheet-cell")


def select_pictures(record: dict[str, Any]) -> list[tuple[str, str]]:
    """(title, path) of the pictures shown: the query's, and the first positive's."""
    fields = record["fields"]
    pictures = [("query", fields["image_path"])]
    positive = next((path for path in fields["passage_image_path"] if path), "")
    return [*pictures, ("positive", positive)] if positive else pictures


def format_record(record: dict[str, Any]) -> Group:
    """The fields of a record as sanitized text."""
    from results.text.sanitize import clean, clean_line

    fields = record["fields"]
    options = zip(LETTERS, fields.get("options") or (), strict=False)
    lines = [
        ("question", fields["question"]),
        ("instruction", fields["instruction"]),
        *((f"  {letter}", option) for letter, option in options),
        ("answer", ", ".join(fields["answer"])),
        ("picture", fields["image_path"]),
        ("id", f"{fields['data_id']}  ({fields['dataset_id']})"),
    ]
    rows = [(Text(name, "dim"), Text(clean_line(value) or "–")) for name, value in lines]
    text = Text()
    passages = zip(
        fields["passage_id"], fields["passage_text"], fields["passage_image_path"], strict=True
    )
    for number, (name, passage, path) in enumerate(passages, 1):
        text.append(f"\npositive {number}  {clean_line(name)}\n", style="bold")
        if path:
            text.append("picture  ", style="dim").append(f"{clean_line(path)}\n")
        more = " …" if len(passage) > PASSAGE_CHARACTERS else ""
        text.append(f"{clean(passage[:PASSAGE_CHARACTERS])}{more}\n")
    return Group(make_name_table(rows, NAME_CELLS), text)
