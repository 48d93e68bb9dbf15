"""Data screen: profiles of subsets, comparison of two subsets, and a record browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.message import Message
from textual.widgets import Static
from textual.worker import get_current_worker

from workbench.output_language import translate
from workbench.tui.screens.footer_keys import FooterKeys
from workbench.tui.system.child_process import ChildError, read_messages
from workbench.tui.view_models import data_rows
from workbench.tui.widgets.find_input import FindInput
from workbench.tui.widgets.footer import Footer
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.top_bar import Heading, TopBar

if TYPE_CHECKING:
    from datasets_mm.profile.profile import Profile
    from workbench.tui.app import WorkbenchApp
    from workbench.tui.view_models.catalog import SubsetEntry

DATA_ROOT = "data_root"
"""Name under which the folder is remembered."""
COMPARED_SUBSETS = 2
"""Number of subsets in a comparison."""


class SubsetsRead(Message):
    """The list of subsets was read."""

    def __init__(self, entries: tuple[SubsetEntry, ...], problems: tuple[str, ...]) -> None:
        super().__init__()
        self.entries, self.problems = entries, problems


class DataScreen(FooterKeys):
    """Lists the subsets and shows the profile of one, or the comparison of two."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "diff", "Diff of marked"),
        Binding("b", "browse", "Browse"),
        Binding("r", "again", "Scan again"),
        Binding("i", "data_root", "Data root"),
        Binding("slash", "find", "Find", key_display="/"),
        Binding("escape", "clear_find", "Show all", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.entries: tuple[SubsetEntry, ...] = ()
        self.marked: list[str] = []
        self.profiles: dict[str, Profile] = {}
        """Profiles computed while the app runs, by subset."""
        self.busy = False
        self._chosen_name = ""
        """The subset that the cursor is to be placed on."""
        self.data_root: Path | None = None
        """Folder of data that do not ship; None: the local hub cache."""
        self.shown: list[str] = []
        """Names of the subsets whose profiles are shown."""
        self.words = ""
        """Words that the listed subsets have in their name or title; empty: all are listed."""

    @property
    def bench(self) -> WorkbenchApp:
        """The app, by its own type."""
        return cast("WorkbenchApp", self.app)

    def compose(self) -> ComposeResult:
        """List of subsets, and the profile of the current one."""
        yield TopBar("data")
        with Container(id="data-body"):
            with Vertical(id="data-list"):
                yield Heading("Subsets", id="data-heading")
                yield Grid(data_rows.SUBSETS, notice="Reading recipes …", id="data-subsets")
                yield Static("", id="data-about")
                yield FindInput(id="data-find")
            with Vertical(id="data-profile"):
                yield Heading("Profile", id="profile-heading")
                yield Static("", id="profile-trouble")
                yield Grid(data_rows.PROFILE, header=False, notice="", id="profile")
        yield Footer()

    def on_mount(self) -> None:
        """Read the recipes."""
        self.query_one("#data-subsets", Grid).focus()
        root = self.bench.memory.get(DATA_ROOT)
        self.data_root = Path(root) if isinstance(root, str) and root else None
        self._read()

    def footer_titles(self) -> Mapping[str, str]:
        """Keys of the list, then those of the present state."""
        entry = self.current if self.is_mounted else None
        titles = {"choose": "Describe", "mark_row": "Mark", "browse": "Records"}
        if entry is not None and entry.problem:
            titles = {"data_root": "Data root", **titles}
        if len(self.marked) == COMPARED_SUBSETS:
            titles = {"diff": "Compare the marked", **titles}
        if entry is not None and entry.name in self.profiles:
            titles["again"] = "Scan again"
        if self.words:
            titles["clear_find"] = "Show all"
        return {
            **titles, "find": "Find", "data_root": "Data root", "diff": "Compare", "copy": "Copy",
            "palette": "Commands", "jump": "Jump", "log_root": "Log root",
        }  # fmt: skip

    def on_screen_resume(self) -> None:
        """Read the subsets again: some may have been built meanwhile."""
        self.bench.show_busy_suites()
        if self.entries:
            self._read()

    @work(thread=True, exclusive=True, group="recipes")
    def _read(self) -> None:
        from workbench.tui.view_models import catalog

        problems: list[str] = []
        entries = catalog.read_subsets(self.bench.cache_root, problems, self.data_root)
        self.post_message(SubsetsRead(entries, tuple(problems)))

    @on(SubsetsRead)
    def _show_subsets(self, event: SubsetsRead) -> None:
        self.entries = tuple(sorted(event.entries, key=lambda e: (not e.built, bool(e.problem))))
        self._paint_list()
        if self._chosen_name:
            self.show_subset(self._chosen_name)
        if event.problems:
            self._show_trouble(event.problems[0])
        elif not self.shown:
            self._show()

    def show_subset(self, name: str) -> None:
        """Place the cursor on a subset, now or when the list is read."""
        self._chosen_name = name
        for grid in self.query(Grid):
            if grid.id == "data-subsets" and name in grid.keys:
                grid.cursor = list(grid.keys).index(name)
                self._chosen_name = ""
                self._show()

    def _paint_list(self) -> None:
        grid = self.query_one("#data-subsets", Grid)
        words = self.words.lower().split()
        listed = [e for e in self.entries if all(w in f"{e.name} {e.title}".lower() for w in words)]
        if listed:
            grid.show(data_rows.subset_rows(listed, self.marked), [e.name for e in listed])
        else:
            grid.show_notice("No subset has all these words; Esc shows all.")
        built = sum(entry.built for entry in self.entries)
        copies = sum(entry.expected_rows is not None for entry in self.entries)
        of = f", {copies} of them copies" if copies else ""
        remark = f"/ {self.words}" if self.words else f"{len(self.entries)}, {built} built{of}"
        self.query_one("#data-heading", Heading).remark = remark
        self.update_footer()

    # -- painting --------------------------------------------------------------------------

    @on(Grid.Moved, "#data-subsets")
    def _moved(self) -> None:
        if not self.busy:
            self._show()
        self.update_footer()

    def on_descendant_focus(self) -> None:
        """The footer has the keys of the part with the focus."""
        self.update_footer()

    @property
    def current(self) -> SubsetEntry | None:
        """The subset under the cursor."""
        key = self.query_one("#data-subsets", Grid).key
        return next((entry for entry in self.entries if entry.name == key), None)

    def _show(self) -> None:
        """Show the profile of the current subset, or how to compute it."""
        entry = self.current
        if entry is None:
            return
        self._show_trouble("")
        self._show_title(" · ".join(filter(None, (entry.origin, entry.title or entry.problem))))
        profile = self.profiles.get(entry.name)
        if profile is not None:
            self._show_profiles([profile])
            return
        grid = self.query_one("#profile", Grid)
        self.shown = []
        self._show_trouble(translate(entry.problem))
        grid.show_notice(
            "Its data are not here; i names their folder."
            if entry.problem
            else "Enter scans it; b shows its records; Space marks it for a comparison."
        )
        self._set_heading(entry.name, "")

    def _show_profiles(self, profiles: list[Profile]) -> None:
        grid = self.query_one("#profile", Grid)
        pair = len(profiles) == 2
        self.shown = [profile.name for profile in profiles]
        grid.columns = (
            data_rows.comparison_columns(profiles[0].name, profiles[1].name)
            if pair
            else data_rows.PROFILE
        )
        grid.header = pair
        grid.cursor = 0
        grid.show(data_rows.profile_rows(profiles))
        grid.refresh()
        seconds = sum(profile.seconds for profile in profiles)
        self._set_heading(" and ".join(self.shown), f"scanned in {seconds:.1f} s")

    def _set_heading(self, title: str, remark: str) -> None:
        from results.text.sanitize import clean_line

        heading = self.query_one("#profile-heading", Heading)
        heading.title, heading.remark = clean_line(title), clean_line(remark)

    def _show_title(self, sentence: str) -> None:
        from results.text.sanitize import clean_line

        self.query_one("#data-about", Static).update(Text(clean_line(sentence)))

    def _show_trouble(self, sentence: str) -> None:
        from results.text.sanitize import clean_line

        self.set_class(bool(sentence), "trouble")
        self.query_one("#profile-trouble", Static).update(Text(clean_line(sentence, 2_000)))

    # -- actions --------------------------------------------------------------------------

    @on(Grid.Chosen, "#data-subsets")
    def _chosen(self) -> None:
        self.action_describe()

    @on(Grid.Toggled, "#data-subsets")
    def _toggled(self) -> None:
        self.action_mark()

    def action_describe(self) -> None:
        """Scan the subset under the cursor."""
        if (entry := self.current) is not None:
            self._scan([entry.name], fresh=False)

    def action_again(self) -> None:
        """Scan the current subset again."""
        if (entry := self.current) is not None:
            self._scan([entry.name], fresh=True)

    def action_mark(self) -> None:
        """Mark or unmark the current subset; a third mark replaces the first one."""
        if (entry := self.current) is None:
            return
        if entry.name in self.marked:
            self.marked.remove(entry.name)
        else:
            self.marked = [*self.marked, entry.name][-COMPARED_SUBSETS:]
        self._paint_list()

    def action_diff(self) -> None:
        """Compare the two marked subsets."""
        if len(self.marked) != COMPARED_SUBSETS:
            self.notify("Mark two subsets with Space, then press d.")
            return
        self._scan(list(self.marked), fresh=False)

    def action_data_root(self) -> None:
        """Ask for the folder with the data of subsets that do not ship."""
        from workbench.tui.screens.dialogs import TextDialog

        def on_text(text: str | None) -> None:
            if text is not None:
                self.data_root = Path(text).expanduser().absolute()
                self.bench.remember(DATA_ROOT, str(self.data_root))
                self._read()

        now = str(self.data_root or "/data/ReT-M2KR")
        self.app.push_screen(TextDialog("Folder of the data (data_root)", now), on_text)

    def action_browse(self) -> None:
        """Browse records of the current subset."""
        from workbench.tui.screens.record_browser import RecordBrowser

        if (entry := self.current) is not None:
            self.app.push_screen(RecordBrowser(entry.name, data_root=self.data_root))

    def action_find(self) -> None:
        """Find words in names and titles of the subsets."""
        self.add_class("finding")
        self.query_one(FindInput).open(self.words, self.bench.earlier_texts("subsets"))

    @on(FindInput.Changed, "#data-find")
    def _find_words(self, event: FindInput.Changed) -> None:
        if self.has_class("finding"):
            self.words = event.value
            self._paint_list()
            self.query_one("#data-subsets", Grid).cursor = 0

    @on(FindInput.Submitted, "#data-find")
    def _leave_find(self) -> None:
        self.bench.remember_text("subsets", self.words)
        self.remove_class("finding")
        self.query_one("#data-subsets", Grid).focus()

    def action_clear_find(self) -> None:
        """Leave the search and list all subsets again."""
        self.words = ""
        self._leave_find()
        self._paint_list()

    @work(exclusive=True, group="scan")
    async def _scan(self, names: list[str], *, fresh: bool) -> None:
        from workbench.data_profile.profile_process import ProfileRequest

        self.busy = True
        self._show_trouble("")
        name = names[0]
        try:
            for name in names:
                if fresh or name not in self.profiles:
                    command = ProfileRequest(name, self.data_root, fresh=fresh).command()
                    async for message in read_messages(command):
                        self._handle_message(name, message)
            self._show_profiles([self.profiles[name] for name in names])
            self._read()
        except ChildError as error:
            self.query_one("#profile", Grid).show_notice("")
            self._set_heading(name, "")
            self._show_trouble(str(error))
        finally:
            if not get_current_worker().is_cancelled:  # else a newer scan is running
                self.busy = False

    def _handle_message(self, name: str, message: dict[str, Any]) -> None:
        from datasets_mm.profile.profile import Profile

        if message.get("kind") == "progress":
            share = 100 * message["done"] // max(message["total"], 1)
            self._set_heading(name, f"reading {message['unit']} … {share} %")
        elif message.get("kind") == "done":
            self.profiles[name] = Profile.model_validate(message["profile"])
