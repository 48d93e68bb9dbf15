"""Compare screen: marked runs with the first one: metrics, curves, cases, settings, logs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final, cast

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from results.text.sanitize import clean, clean_line
from workbench.tui.screens.copying import CopyChoice
from workbench.tui.screens.dialogs import ChoiceDialog
from workbench.tui.screens.footer_keys import FooterKeys
from workbench.tui.screens.results.case import CaseScreen
from workbench.tui.screens.results.case_sources import CaseSources
from workbench.tui.system import cli_commands, idle_loop
from workbench.tui.view_models import suite_feed
from workbench.tui.view_models.cells import GridColumn
from workbench.tui.view_models.live import charts as live_charts
from workbench.tui.view_models.live import lines as live_lines
from workbench.tui.view_models.results import columns, comparison
from workbench.tui.widgets.charts.curve_wall import CurveWall
from workbench.tui.widgets.footer import Footer
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.log_tail import LogTail
from workbench.tui.widgets.top_bar import Heading

if TYPE_CHECKING:
    from results.listing.run_filter import ListedRun
    from workbench.suites.state import RunState
    from workbench.tui.app import WorkbenchApp

VIEWS: Final = {"1": "metrics", "2": "curves", "3": "cases", "4": "differences", "5": "logs"}
"""Key -> part of the screen; one at a time where it is narrow."""
CURVE_KEYS: Final = {
    "x": "x", "l": "log", "e": "smooth", "z": "zoom", "left": "left", "right": "right",
    "shift+left": "back", "shift+right": "ahead",
}  # fmt: skip
"""Key -> change of the curves, as on the Live screen."""
PART_KEYS: Final = {
    "curves": "x axis · l log · e smooth · z one alone · m curve · ← → values",
    "logs": "w wrap · [ ] other run · Tab other side",
}
"""Part -> its own keys, in the heading."""
WIDE_VIEWS: Final = ("metrics", "cases", "differences")
"""Parts that stand beside each other where there is room."""


class CompareScreen(FooterKeys, ModalScreen[None]):
    """Compares runs with the first of them, one pair at a time."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left_square_bracket", "turn(-1)", "Other run", key_display="[ ]"),
        Binding("right_square_bracket", "turn(1)", show=False),
        *(Binding(key, f"view('{view}')", view.capitalize()) for key, view in VIEWS.items()),
        Binding("v", "next_view", show=False),
        *(Binding(key, f"curve('{change}')", show=False) for key, change in CURVE_KEYS.items()),
        Binding("m", "choose_curve", show=False),
        Binding("w", "wrap", show=False),
        Binding("escape,q", "leave", "Back"),
    ]

    def __init__(self, runs: Sequence[ListedRun]) -> None:
        super().__init__()
        self._runs = list(runs)
        self._pairs: tuple[comparison.PairComparison, ...] = ()
        self._at = 0
        self._states: dict[str, RunState] = {}
        """Letter -> state of a run whose journal was read."""
        self._sources: CaseSources | None = None

    def footer_titles(self) -> Mapping[str, str]:
        """Keys of the part that has the focus, then the parts."""
        focused = self.focused.id if self.is_mounted and self.focused is not None else ""
        opened = {"metrics": "Its cases", "cases": "Open the case"}.get(focused or "", "")
        titles = {"choose": opened} if opened else {}
        if len(self._pairs) > 1:
            titles["turn(-1)"] = "Other run"
        views = {f"view('{view}')": view.capitalize() for view in VIEWS.values()}
        return {**titles, **views, "leave": "Back", "copy": "Copy"}

    def on_descendant_focus(self) -> None:
        """Show the keys of the part that has the focus."""
        self.update_footer()

    @property
    def command(self) -> list[str]:
        """Arguments of `workbench` that print this comparison."""
        names = ["/".join(run.summary.key) for run in self._runs]
        return cli_commands.compare_arguments(names, cast("WorkbenchApp", self.app).log_root)

    def copy_choices(self) -> list[CopyChoice]:
        """The command that prints this comparison."""
        return [CopyChoice("command", cli_commands.command_line(self.command))]

    def compose(self) -> ComposeResult:
        """The runs, metrics, differences, cases."""
        yield Heading("Compare", id="compare-heading")
        yield Static(self._describe_runs(), id="compare-runs")
        with Container(id="compare-body"):
            with Vertical(id="compare-metrics"):
                yield Grid(comparison.METRICS, notice="Comparing …", id="metrics")
            with Vertical(id="compare-differences"):
                yield Grid(comparison.DIFFERENCES, notice="", id="differences")
            with Vertical(id="compare-cases"):
                yield Heading("Cases", id="cases-heading")
                yield Grid(comparison.CASES, notice="", id="cases")
            with Vertical(id="compare-curves"):
                yield CurveWall(id="curves")
            with Horizontal(id="compare-logs"):
                for side in ("first", "other"):
                    with Vertical():
                        yield Heading("", id=f"{side}-log-heading")
                        yield LogTail(id=f"{side}-log")
        yield Footer()

    def on_mount(self) -> None:
        """Compare."""
        self.query_one("#metrics", Grid).focus()
        self.add_class("view-metrics")
        self._sources = CaseSources(cast("WorkbenchApp", self.app).cache_root)
        self._compare("")
        self._read_runs()

    def _describe_runs(self) -> Text:
        """A line for each run: letter, label, subset, model, suite."""
        text = Text()
        for letter, run in zip("ABCD", self._runs, strict=False):
            summary = run.summary
            suite = columns.short_suite_name(summary.suite)
            parts = (
                columns.label_text(summary),
                summary.subset,
                summary.model,
                f"seed {summary.seed}",
                suite,
            )
            line = clean_line("  ".join(part for part in parts if part))
            text.append(f" {letter} ", style="bold").append(f"{line}\n")
        text.rstrip()
        return text

    @work(exclusive=True, group="compare")
    async def _compare(self, metric: str) -> None:
        arguments = [
            *self.command, "--json", "--cases", str(comparison.CASES_PER_KIND),
            *(["--case-metric", metric] if metric else []),
        ]  # fmt: skip
        outcome = await cli_commands.run_workbench(arguments)
        if outcome.problem:
            sentence = clean(outcome.problem).splitlines()[-1]
            self.query_one("#metrics", Grid).show_notice(sentence, failed=True)
            return
        self._pairs = comparison.parse_comparisons(outcome.output)
        self._paint()

    @work(group="curves")
    async def _read_runs(self) -> None:
        root = cast("WorkbenchApp", self.app).log_root
        for letter, run in zip("ABCD", self._runs, strict=False):
            try:
                view = await asyncio.to_thread(
                    suite_feed.read_run, root / run.summary.folder, idle_loop.give_way
                )
            except (OSError, ValueError) as error:
                reason = clean_line(str(error), 200)
                self.notify(f"{letter}: {reason}", title="No curves", severity="warning")
                continue
            self._states[letter] = view.state
        marked = [live_charts.MarkedRun(letter, state) for letter, state in self._states.items()]
        if marked:
            self.query_one(CurveWall).show(marked)
        await self._show_logs()

    async def _show_logs(self) -> None:
        """The ends of two logs; of a run that printed nothing its events."""
        root = cast("WorkbenchApp", self.app).log_root
        for side, at in (("first", 0), ("other", self._at + 1)):
            run, letter = self._runs[at], "ABCD"[at]
            lines = await asyncio.to_thread(suite_feed.read_log, root / run.summary.folder)
            state = self._states.get(letter)
            events = live_lines.event_lines(state) if state and not lines else ()
            heading = self.query_one(f"#{side}-log-heading", Heading)
            heading.title = f"{letter}  {'Events' if events else 'Log'}"
            heading.remark = run.summary.run_id
            self.query_one(f"#{side}-log", LogTail).show(lines or events, "No output.")

    def _paint(self) -> None:
        pair = self._pairs[self._at]
        for name, rows in (
            ("metrics", comparison.metric_rows(pair)),
            ("differences", comparison.difference_rows(pair)),
            ("cases", comparison.case_rows(pair)),
        ):
            grid = self.query_one(f"#{name}", Grid)
            grid.set_columns(_with_letter(grid.columns, pair.letter))
            if rows:
                grid.show(rows, [str(at) for at in range(len(rows))])
            else:
                grid.show_notice(f"No {name}.")
        self.query_one("#cases-heading", Heading).remark = comparison.case_summary(pair)
        self._show_heading()
        self.update_footer()

    def _show_heading(self) -> None:
        """What is compared, or the keys of the part that is shown."""
        remark = PART_KEYS.get(next((n for n in PART_KEYS if self.has_class(f"view-{n}")), ""), "")
        if not remark and self._pairs:
            more = f" · [ ] the other {len(self._pairs)}" if len(self._pairs) > 1 else ""
            letter = self._pairs[self._at].letter
            remark = f"{letter} − A, paired where both scored the same items{more}"
        self.query_one("#compare-heading", Heading).remark = remark

    @on(Grid.Chosen, "#metrics")
    def _show_cases(self, event: Grid.Chosen) -> None:
        keys = self._pairs[self._at].metric_keys
        if event.row < len(keys):
            self._compare(keys[event.row])

    @on(Grid.Chosen, "#cases")
    def _open_case(self, event: Grid.Chosen) -> None:
        if self._sources is None:
            return
        grid = event.grid

        def on_left(row: int | None) -> None:
            grid.cursor = row or 0

        case = CaseScreen(self._pairs[self._at], event.row, self._sources)
        self.app.push_screen(case, on_left)

    def action_turn(self, by: int) -> None:
        """Show the next or the previous pair."""
        if self._pairs:
            self._at = (self._at + by) % len(self._pairs)
            self._paint()
            self.run_worker(self._show_logs(), group="logs", exclusive=True)

    def action_view(self, chosen: str) -> None:
        """Show a part and focus it."""
        for name in VIEWS.values():
            self.set_class(name == chosen, f"view-{name}")
        self.set_class(chosen not in WIDE_VIEWS, "view-alone")
        self._show_heading()
        targets = {"logs": "#first-log", "curves": ""}
        if target := targets.get(chosen, f"#{chosen}"):
            self.query_one(target).focus()
        else:
            self.set_focus(None)

    def action_next_view(self) -> None:
        """The next part, where one is shown at a time."""
        names = list(VIEWS.values())
        at = next((i for i, name in enumerate(names) if self.has_class(f"view-{name}")), 0)
        self.action_view(names[(at + 1) % len(names)])

    def action_curve(self, change: str) -> None:
        """Change the curves: axis, log, smooth, one alone, or move the cursor."""
        self.query_one(CurveWall).change(change)

    def action_choose_curve(self) -> None:
        """Choose the curve of the first chart."""
        wall = self.query_one(CurveWall)

        def on_choice(name: str | None) -> None:
            if name is not None:
                wall.put_first(name)

        columns = (GridColumn("name", "", 40, grow=20),)
        names = [(live_charts.curve_title(name),) for name in wall.names]
        self.app.push_screen(
            ChoiceDialog("Curve", columns, names, wall.names, empty="No curve."), on_choice
        )

    def action_wrap(self) -> None:
        """Wrap the lines of the logs, or truncate them."""
        for log in self.query(LogTail):
            log.toggle_wrap()

    def action_leave(self) -> None:
        """Close; without the cursor of the curves first."""
        wall = self.query_one(CurveWall)
        if self.has_class("view-curves") and wall.options.cursor is not None:
            wall.change("plain")
        else:
            self.dismiss(None)


def _with_letter(grid_columns: Sequence[GridColumn], letter: str) -> tuple[GridColumn, ...]:
    """The columns with the other run's letter in the titles."""
    titles = {"b": letter, "delta": f"{letter} − A", "text_b": f"{letter} answers"}
    return tuple(replace(c, title=titles.get(c.key, c.title)) for c in grid_columns)
