"""Charts of compared runs: one curve each, all runs in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from textual.app import ComposeResult
from textual.containers import Container

from workbench.tui.view_models.live import charts as live_charts
from workbench.tui.widgets.charts.chart import Chart

CHARTS: Final = 6


class CurveWall(Container):
    """Up to six charts over each other and beside each other, as there is room."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.options = live_charts.ChartOptions()
        self._runs: tuple[live_charts.MarkedRun, ...] = ()
        self._names: list[str] = []

    def compose(self) -> ComposeResult:
        """The charts."""
        for number in range(CHARTS):
            yield Chart("", id=f"curve-{number}")

    @property
    def names(self) -> list[str]:
        """Curves that the runs have, in the order in which they are shown."""
        return self._names

    def show(self, runs: Sequence[live_charts.MarkedRun]) -> None:
        """Set the runs."""
        self._runs = tuple(runs)
        self._names = live_charts.shared_curves([run.state for run in runs])
        self._paint()

    def change(self, action: str) -> None:
        """Change the options, or with `zoom` show the first chart alone or all."""
        if action == "zoom":
            self.toggle_class("zoomed")
        else:
            self.options = self.options.change(action)
        self._paint()

    def put_first(self, name: str) -> None:
        """Show a curve in the first chart."""
        self._names = [name, *(other for other in self._names if other != name)]
        self._paint()

    def _paint(self) -> None:
        names = self._names[:CHARTS]
        shown = live_charts.compared_charts(self._runs, self.options, names) if self._runs else []
        for chart, series in zip(self.query(Chart), shown, strict=False):
            chart.show(series)
