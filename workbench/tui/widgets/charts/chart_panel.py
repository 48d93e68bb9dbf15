"""Charts of the Live screen, with the options that they share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from textual.app import ComposeResult
from textual.containers import Horizontal

from workbench.tui.view_models.live import charts as live_charts
from workbench.tui.widgets.charts.chart import Chart

if TYPE_CHECKING:
    from workbench.suites.state import RunState, RunView

CHART_SECONDS: Final = 2.5
"""Charts of a running run are repainted in turn, one per interval: each costs 2 ms."""


class ChartPanel(Horizontal):
    """Six charts of one run; one of them alone when zoomed."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.options = live_charts.ChartOptions()
        self._run: RunState | None = None
        self._letter = ""
        self._others: tuple[live_charts.MarkedRun, ...] = ()
        self._stage: tuple[object, ...] | None = None
        self._due = 0.0
        self._turn = 0
        self._zoomed = -1
        """Index of the chart that is shown alone; -1: all are shown."""
        self._visible: list[int] = []
        """Those that were shown before the zoom."""

    def compose(self) -> ComposeResult:
        """The charts."""
        for key, title in live_charts.CHARTS:
            yield Chart(title, id=f"chart-{key}")

    def show(self, view: RunView | None, marked: Mapping[str, RunView] | None = None) -> None:
        """Repaint all charts of a new run or phase, else one per `CHART_SECONDS`.

        `marked`: other runs to draw, by their letters.
        """
        runs = dict(marked or {})
        self._run = view.state if view else None
        ids = {letter: run.spec.run_id for letter, run in runs.items()}
        self._letter = next((k for k, v in ids.items() if view and v == view.spec.run_id), "")
        runs.pop(self._letter, None)
        self._others = tuple(live_charts.MarkedRun(key, run.state) for key, run in runs.items())
        run = (view.spec.run_id, view.state.status, view.state.phase) if view else ()
        stage = (*run, *ids.items())
        now = time.monotonic()
        if stage == self._stage and now < self._due:
            return
        charts = list(self.query(Chart))
        if stage == self._stage:
            visible = [chart for chart in charts if chart.display]
            self._turn = (self._turn + 1) % len(visible)
            charts = [visible[self._turn]]
        self._stage, self._due = stage, now + CHART_SECONDS
        self._paint(charts)

    def _paint(self, charts: list[Chart]) -> None:
        series = live_charts.chart_series(self._run, self.options, self._others, self._letter)
        for chart in charts:
            chart.show(series[str(chart.id).removeprefix("chart-")])

    def change(self, action: str) -> None:
        """Change the options, or with `zoom` show the next chart alone, after the last all."""
        if action == "zoom":
            self._zoom()
        else:
            self.options = self.options.change(action)
        self._paint(list(self.query(Chart)))

    @property
    def moment(self) -> float | None:
        """Seconds of the run's attempt at the cursor; None: there is no cursor."""
        if self._run is None or self.options.cursor is None:
            return None
        return live_charts.cursor_moment(self._run, self.options, self._others)

    @property
    def chosen(self) -> str:
        """Id of the chart that a choice of a curve is about: the one shown alone, else the main."""
        names = [name for name, _ in live_charts.CHARTS]
        return names[self._zoomed] if self._zoomed >= 0 else live_charts.MAIN

    def set_curve(self, curve: str) -> None:
        """Show another curve in the chosen chart."""
        curves = {**self.options.curves, self.chosen: curve}
        self.options = replace(self.options, curves=curves)
        self._paint(list(self.query(Chart)))

    def set_reference(self, view: RunView | None) -> None:
        """Draw the curves of another run behind those of this one; None: of no run."""
        title = live_charts.reference_title(view) if view else ""
        state = view.state if view else None
        self.options = replace(self.options, reference=state, reference_title=title)
        self._paint(list(self.query(Chart)))

    def _zoom(self) -> None:
        charts = list(self.query(Chart))
        if self._zoomed < 0:
            self._visible = [at for at, chart in enumerate(charts) if chart.display]
        for chart in charts:
            chart.remove_class("main")
        later = [at for at in self._visible if at > self._zoomed]
        self._zoomed = later[0] if later else -1
        self.set_class(self._zoomed >= 0, "zoomed")
        if self._zoomed >= 0:
            charts[self._zoomed].add_class("main")
