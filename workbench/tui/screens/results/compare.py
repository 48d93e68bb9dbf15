"""Compare screen: marked runs with the first one: metrics, what differs, single cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final, cast

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from results.text.sanitize import clean, clean_line
from workbench.tui.screens.copying import CopyChoice
from workbench.tui.system import cli_commands
from workbench.tui.view_models.cells import GridColumn
from workbench.tui.view_models.results import columns, comparison
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.top_bar import Heading

if TYPE_CHECKING:
    from results.listing.run_filter import ListedRun
    from workbench.tui.app import WorkbenchApp

VIEWS: Final = ("metrics", "differences", "cases")
"""Parts of the screen; one at a time where it is narrow."""


class CaseDialog(ModalScreen[None]):
    """All that both runs wrote about one item."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "leave", "Back")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The text."""
        with Vertical(classes="dialog wide"), VerticalScroll(id="case"):
            yield Static(Text(self._text))

    def on_mount(self) -> None:
        """Focus the text, so that arrow keys scroll it."""
        self.query_one("#case").focus()

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)


class CompareScreen(ModalScreen[None]):
    """Compares runs with the first of them, one pair at a time."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Cases of the metric · a case"),
        Binding("left_square_bracket", "turn(-1)", "Other run", key_display="[ ]"),
        Binding("right_square_bracket", "turn(1)", show=False),
        Binding("v", "view", "View"),
        Binding("escape,q", "leave", "Back"),
    ]

    def __init__(self, runs: Sequence[ListedRun]) -> None:
        super().__init__()
        self._runs = list(runs)
        self._pairs: tuple[comparison.PairComparison, ...] = ()
        self._at = 0

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
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Compare."""
        self.query_one("#metrics", Grid).focus()
        self.add_class("view-metrics")
        self._compare("")

    def _describe_runs(self) -> Text:
        """A line for each run: letter, label, subset, model, suite."""
        text = Text(no_wrap=True, overflow="ellipsis")
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
        more = f" · [ ] the other {len(self._pairs)}" if len(self._pairs) > 1 else ""
        remark = f"{pair.letter} − A, paired where both scored the same items{more}"
        self.query_one("#compare-heading", Heading).remark = remark

    @on(Grid.Chosen, "#metrics")
    def _show_cases(self, event: Grid.Chosen) -> None:
        keys = self._pairs[self._at].metric_keys
        if event.row < len(keys):
            self._compare(keys[event.row])

    @on(Grid.Chosen, "#cases")
    def _open_case(self, event: Grid.Chosen) -> None:
        self.app.push_screen(CaseDialog(comparison.case_text(self._pairs[self._at], event.row)))

    def action_turn(self, by: int) -> None:
        """Show the next or the previous pair."""
        if self._pairs:
            self._at = (self._at + by) % len(self._pairs)
            self._paint()

    def action_view(self) -> None:
        """The next part, where one is shown at a time; and focus it."""
        at = next((i for i, name in enumerate(VIEWS) if self.has_class(f"view-{name}")), 0)
        chosen = VIEWS[(at + 1) % len(VIEWS)]
        for name in VIEWS:
            self.set_class(name == chosen, f"view-{name}")
        self.query_one(f"#{chosen}", Grid).focus()

    def action_leave(self) -> None:
        """Close."""
        self.dismiss(None)


def _with_letter(grid_columns: Sequence[GridColumn], letter: str) -> tuple[GridColumn, ...]:
    """The columns with the other run's letter in the titles."""
    titles = {"b": letter, "delta": f"{letter} − A", "text_b": f"{letter} answers"}
    return tuple(replace(c, title=titles.get(c.key, c.title)) for c in grid_columns)
