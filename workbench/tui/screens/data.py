"""Data: what is in the subsets, two of them side by side, and records to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Static
from textual.worker import get_current_worker

from workbench.tui.system.child_process import ChildError, messages
from workbench.tui.view_models import data_rows
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.top_bar import Heading, TopBar

if TYPE_CHECKING:
    from datasets_mm.profile.profile import Profile
    from workbench.tui.app import WorkbenchApp
    from workbench.tui.view_models.catalog import SubsetEntry

MARKED = 2
"""As many subsets can be compared."""


class SubsetsRead(Message):
    """The list of subsets is there."""

    def __init__(self, entries: tuple[SubsetEntry, ...], problems: tuple[str, ...]) -> None:
        super().__init__()
        self.entries, self.problems = entries, problems


class DataScreen(Screen[None]):
    """See the module's docstring."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "diff", "Diff of marked"),
        Binding("b", "browse", "Browse"),
        Binding("r", "again", "Scan again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.entries: tuple[SubsetEntry, ...] = ()
        self.marked: list[str] = []
        self.profiles: dict[str, Profile] = {}
        """What was described while the screen is open."""
        self.busy = False
        self.shown: list[str] = []
        """Whose profiles are on screen."""

    @property
    def bench(self) -> WorkbenchApp:
        """The app, by its own type."""
        return cast("WorkbenchApp", self.app)

    def compose(self) -> ComposeResult:
        """Subsets, and what is known of the one under the cursor."""
        yield TopBar("data")
        with Container(id="data-body"):
            with Vertical(id="data-list"):
                yield Heading("Subsets", id="data-heading")
                yield Grid(data_rows.SUBSETS, notice="Reading recipes …", id="data-subsets")
                yield Static("", id="data-about")
            with Vertical(id="data-profile"):
                yield Heading("Profile", id="profile-heading")
                yield Static("", id="profile-trouble")
                yield Grid(data_rows.ONE, header=False, notice="", id="profile")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Read the recipes."""
        self.query_one("#data-subsets", Grid).focus()
        self._read()

    def on_screen_resume(self) -> None:
        """Subsets may have been built meanwhile."""
        self.bench.say_work()
        if self.entries:
            self._read()

    @work(thread=True, exclusive=True, group="recipes")
    def _read(self) -> None:
        from workbench.tui.view_models import catalog

        problems: list[str] = []
        entries = catalog.subsets(self.bench.cache_root, problems)
        self.post_message(SubsetsRead(entries, tuple(problems)))

    @on(SubsetsRead)
    def _take(self, event: SubsetsRead) -> None:
        self.entries = event.entries
        self._paint_list()
        if event.problems:
            self._trouble(event.problems[0])
        elif not self.shown:
            self._show()

    def _paint_list(self) -> None:
        grid = self.query_one("#data-subsets", Grid)
        grid.show(data_rows.subsets(self.entries, self.marked), [e.name for e in self.entries])
        built = sum(entry.built for entry in self.entries)
        self.query_one("#data-heading", Heading).remark = f"{len(self.entries)}, {built} built"

    # -- what is shown ---------------------------------------------------------------------

    @on(Grid.Moved, "#data-subsets")
    def _moved(self) -> None:
        if not self.busy:
            self._show()

    @property
    def here(self) -> SubsetEntry | None:
        """The subset under the cursor."""
        key = self.query_one("#data-subsets", Grid).key
        return next((entry for entry in self.entries if entry.name == key), None)

    def _show(self) -> None:
        """The profile of the subset under the cursor, or how to get it."""
        entry = self.here
        if entry is None:
            return
        self._trouble("")
        self._about(entry.title or entry.problem)
        known = self.profiles.get(entry.name)
        if known is not None:
            self._show_profiles([known])
            return
        grid = self.query_one("#profile", Grid)
        self.shown = []
        grid.say("Enter scans it and shows what is in it. Space marks it for a comparison.")
        self._head(entry.name, "")

    def _show_profiles(self, found: list[Profile]) -> None:
        grid = self.query_one("#profile", Grid)
        pair = len(found) == 2
        self.shown = [profile.name for profile in found]
        grid.columns = data_rows.pair(found[0].name, found[1].name) if pair else data_rows.ONE
        grid.header = pair
        grid.cursor = 0
        grid.show(data_rows.profile(found))
        grid.refresh()
        seconds = sum(profile.seconds for profile in found)
        self._head(" and ".join(self.shown), f"scanned in {seconds:.1f} s")

    def _head(self, title: str, remark: str) -> None:
        from results.text.sanitize import clean_line

        heading = self.query_one("#profile-heading", Heading)
        heading.title, heading.remark = clean_line(title), clean_line(remark)

    def _about(self, sentence: str) -> None:
        from results.text.sanitize import clean_line

        self.query_one("#data-about", Static).update(Text(clean_line(sentence)))

    def _trouble(self, sentence: str) -> None:
        from results.text.sanitize import clean_line

        self.set_class(bool(sentence), "trouble")
        self.query_one("#profile-trouble", Static).update(Text(clean_line(sentence, 2_000)))

    # -- what a person does ----------------------------------------------------------------

    @on(Grid.Chosen, "#data-subsets")
    def _chosen(self) -> None:
        self.action_describe()

    @on(Grid.Toggled, "#data-subsets")
    def _toggled(self) -> None:
        self.action_mark()

    def action_describe(self) -> None:
        """Scan the subset under the cursor."""
        if (entry := self.here) is not None:
            self._scan([entry.name], fresh=False)

    def action_again(self) -> None:
        """Scan it even if it is known."""
        if (entry := self.here) is not None:
            self._scan([entry.name], fresh=True)

    def action_mark(self) -> None:
        """Mark for a comparison; a third mark takes the first one away."""
        if (entry := self.here) is None:
            return
        if entry.name in self.marked:
            self.marked.remove(entry.name)
        else:
            self.marked = [*self.marked, entry.name][-MARKED:]
        self._paint_list()

    def action_diff(self) -> None:
        """Compare the two that are marked."""
        if len(self.marked) != MARKED:
            self.notify("Mark two subsets with Space, then press d.")
            return
        self._scan(list(self.marked), fresh=False)

    def action_browse(self) -> None:
        """Look at records of the subset under the cursor."""
        from workbench.tui.screens.record_browser import SampleScreen

        if (entry := self.here) is not None:
            self.app.push_screen(SampleScreen(entry.name))

    @work(exclusive=True, group="scan")
    async def _scan(self, names: list[str], *, fresh: bool) -> None:
        from workbench.subsets.profile_process import ProfileRequest

        self.busy = True
        self._trouble("")
        name = names[0]
        try:
            for name in names:
                if fresh or name not in self.profiles:
                    command = ProfileRequest(name, fresh=fresh).command()
                    async for said in messages(command):
                        self._hear(name, said)
            self._show_profiles([self.profiles[name] for name in names])
            self._read()
        except ChildError as error:
            self.query_one("#profile", Grid).say("")
            self._head(name, "")
            self._trouble(str(error))
        finally:
            if not get_current_worker().is_cancelled:  # else the scan that took its place goes on
                self.busy = False

    def _hear(self, name: str, said: dict[str, Any]) -> None:
        from datasets_mm.profile.profile import Profile

        if said.get("kind") == "progress":
            share = 100 * said["done"] // max(said["total"], 1)
            self._head(name, f"reading {said['unit']} … {share} %")
        elif said.get("kind") == "done":
            self.profiles[name] = Profile.model_validate(said["profile"])
