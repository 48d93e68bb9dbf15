"""The searcher: chooses the trials of a search, one after the other.

    python -m workbench.tuning.searcher SUITE [--parent PID]

A child of the warden that reads the runs' journals like every other reader, and says what it wants
by orders in control.jsonl: `add` a trial, `prune` the one at work, `close` when all are done. It
keeps nothing in memory that the suite's files do not have, so it can be killed at any moment.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from engines import catalog
from engines.protocol import Metric
from workbench.planning import plan, search_space
from workbench.planning.search_space import Settings
from workbench.processes import tree
from workbench.suites import suite, trials
from workbench.suites.state import GOOD, Curve, RunState, RunView, SuiteState, unfinished
from workbench.suites.suite import Command
from workbench.suites.trials import TrialError
from workbench.tuning.optuna_study import POINTS, NothingLeftError, Study
from workbench.tuning.searcher_process import GAVE_UP

POLL_SECONDS: Final = 0.25
"""A new trial waits so long at most before it is asked for; a poll costs some stat calls."""

ADMIT_SECONDS: Final = 30.0
"""A warden that lives admits a trial within a beat."""

FAILURES: Final = 3
"""So many trials in a row that fail: something else is wrong than their settings."""


class SearchError(ValueError):
    """The search cannot go on, and starting it again would not help; one sentence."""


class Point(NamedTuple):
    """A live value: the mean over one twentieth of the training."""

    place: int
    """1 to 20."""
    value: float


class Searcher:
    """One search. `turn` until it says that the search is over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base, asked = trials.base(folder), plan.load(folder / "plan.toml")
        if base is None or asked.search is None:
            raise SearchError(f"{folder.name} is no search")
        self.base, self.search = base, asked.search
        self._params = catalog.load(base.spec.engine).Params
        self._reader = suite.Reader(folder)
        whole = search_space.whole_settings(self.search, self._params)
        self.study = Study(folder / trials.FOLDER / "study.jsonl", self.search, whole)
        self._settled: dict[str, int] = {}
        """By run: the attempt whose end the study knows."""
        self._seen: dict[str, int] = {}
        """By run: the last of its points that the study knows."""
        self._out: set[str] = set()
        """Runs that were skipped, cancelled or pruned by name, whoever said so."""
        self._orders = 0
        self._asked: tuple[str, float] | None = None
        """A trial that is not admitted yet, and since when."""
        if self.search.direction is not None:
            self.study.open(self.search.direction)

    def turn(self) -> bool:
        """Take in what is new and act on it; True: the search is over."""
        state = self._reader.poll()
        warden = suite.read_warden(self.folder)
        since = warden.started_wall if warden else 0.0
        self._read_orders()
        self._find_direction(state)
        waiting = [v for v in state.runs if not _over(v, since, v.spec.run_id in self._out)]
        for view in state.runs:
            self._take_in(view, over=view not in waiting)
        if waiting or not self._admitted(state):
            return False
        self._check_failures(state)
        if len(state.runs) >= self.base.trials:
            suite.send(self.folder, Command(do="close"))
            return True
        self._ask_for(state)
        return False

    def _read_orders(self) -> None:
        commands, self._orders = suite.read_commands(self.folder, self._orders)
        by_name = (c.run for c in commands if c.do in ("skip", "cancel", "prune"))
        self._out.update(run for run in by_name if run is not None)

    def _find_direction(self, state: SuiteState) -> None:
        """Without it in the plan, the first trial that has measured the metric tells."""
        if self.study.opened:
            return
        for view in state.runs:
            found = measured(view.state, self.search)
            if found is not None:
                self.study.open("maximize" if found.higher_is_better else "minimize")
                self._summarise()
                return

    def _take_in(self, view: RunView, *, over: bool) -> None:
        """Tell the study what is new of one run."""
        run, spec = view.state, view.spec
        if spec.trial is None or self._settled.get(spec.run_id) == run.attempt:
            return
        self.study.mirror(spec.run_id, spec.trial.settings)
        if not over:
            self._watch(view)
            return
        value = None
        if run.cause == "completed":
            value = self._value(view)
        if not self.study.opened:
            return  # again, once it is
        for point in self._news(view):
            self._report(spec.run_id, point)
        self.study.settle(spec.run_id, run.cause, value)
        self._settled[spec.run_id] = run.attempt
        self._summarise()

    def _value(self, view: RunView) -> float | None:
        """The metric of a completed trial; None for one that is no number.

        Raises:
            SearchError: the trial has no such metric, so no other will have it.
        """
        found = measured(view.state, self.search)
        if found is not None:
            return found.value if math.isfinite(found.value) else None
        known = dict.fromkeys(f"{m.name} on {m.split}" for m in view.state.metrics)
        wanted = self.search.metric + (f" on {self.search.split}" if self.search.split else "")
        has = f"it has {', '.join(known)}" if known else "it measured none"
        raise SearchError(f"search.metric: {view.spec.run_id} has no {wanted}; {has}")

    def _watch(self, view: RunView) -> None:
        """Prune the trial at work if trials before it were better at the same point."""
        run_id = view.spec.run_id
        if view.state.status != "running" or run_id in self._out or not self.study.opened:
            return
        for point in self._news(view):
            if self._report(run_id, point) and point.place < POINTS:
                why = (
                    f"pruned at {100 * point.place // POINTS} % of its training: "
                    f"{self.search.live} {point.value:.4g}, where half of the trials before it "
                    "had done better"
                )
                suite.send(self.folder, Command(do="prune", run=run_id, why=why))
                self._out.add(run_id)
                return

    def _news(self, view: RunView) -> list[Point]:
        """Points of a run that the study was not told of yet."""
        run_id = view.spec.run_id
        known = self._seen.get(run_id, 0)
        points = [p for p in live(view.state, self.search.live) if p.place > known]
        if points:
            self._seen[run_id] = points[-1].place
        return points

    def _report(self, run_id: str, point: Point) -> bool:
        lower = lower_is_better(self.search.live) == (self.study.direction == "minimize")
        return self.study.report(run_id, point.place, point.value if lower else -point.value)

    def _admitted(self, state: SuiteState) -> bool:
        """Whether the last trial that was asked for is a run by now.

        Raises:
            TimeoutError: the warden does not take it.
        """
        if self._asked is None:
            return True
        run_id, since = self._asked
        if any(view.spec.run_id == run_id for view in state.runs):
            self._asked = None
            return True
        if time.monotonic() - since > ADMIT_SECONDS:
            raise TimeoutError(f"the warden has not admitted {run_id}; its log says why")
        return False

    def _check_failures(self, state: SuiteState) -> None:
        """Enough of failures in a row.

        Raises:
            SearchError: the last three trials failed.
        """
        last = [view for view in state.runs if view.state.cause][-FAILURES:]
        if len(last) == FAILURES and not any(v.state.cause in GOOD for v in last):
            end = last[-1].state.end
            said = f": {end.detail}" if end and end.detail else ""
            raise SearchError(f"the last {FAILURES} trials failed{said}")

    def _ask_for(self, state: SuiteState) -> None:
        number = len(state.runs) + 1
        taken = [v.spec.trial.settings for v in state.runs if v.spec.trial is not None]
        every = search_space.every(self.search, self._params)
        settings = self.study.suggest(number, taken, lambda s: self._complete(s) is not None, every)
        spec = trials.make(self.base, number, settings, self._complete(settings) or {})
        suite.send(self.folder, Command(do="add", run=spec.run_id, spec=spec))
        self._asked = spec.run_id, time.monotonic()

    def _complete(self, settings: Settings) -> dict[str, Any] | None:
        """All settings of the engine with those of the trial; None: it refuses them together."""
        try:
            params = self._params.model_validate({**self.base.spec.params, **settings})
        except ValidationError:
            return None
        return params.model_dump(mode="json")

    def _summarise(self, trouble: str = "") -> None:
        found = trials.Summary(
            direction=self.study.direction or "",
            importances=self.study.importances(),
            trouble=trouble,
        )
        suite.replace(self.folder / trials.FOLDER / "summary.json", found.model_dump_json(indent=1))

    def give_up(self, error: Exception) -> None:
        """Leave the reason for whoever reads the suite."""
        self._summarise(str(error))


def _over(view: RunView, since: float, out: bool) -> bool:
    """Whether a run is not going to change: it ended under this warden, or is not done again.

    `since`: when this warden started. A warden that resumes a suite starts unfinished runs again.
    """
    run = view.state
    if run.end is None:
        return False
    return out or not unfinished(run) or (run.ended_wall or 0.0) >= since


def measured(run: RunState, search: search_space.Search) -> Metric | None:
    """The metric that is searched for, of a run that has completed; None: it has none.

    `loss` is the mean over the last twentieth of the training, where no evaluation has that name.
    """
    if run.cause != "completed":
        return None
    for metric in run.metrics:
        if metric.name == search.metric and search.split in ("", metric.split):
            return metric
    points = live(run, "loss") if search.metric == "loss" and not search.split else []
    if not points:
        return None
    last = points[-1].value
    return Metric(
        name="loss", value=last, split="train", n=1, higher_is_better=False, method="last 5 %"
    )


def lower_is_better(live_name: str) -> bool:
    """Of what is seen while a trial trains: a loss is, a score is not."""
    return live_name.endswith("loss") or "perplexity" in live_name


def live(run: RunState, name: str) -> list[Point]:
    """The curve of that name as means over each twentieth of the training that has passed."""
    curve, total = run.curves.get(name), run.plan.steps if run.plan else 0
    if curve is None or not total:
        return []
    found = []
    for place in range(1, POINTS + 1):
        first, last = (total * (place - 1) / POINTS, total * place / POINTS)
        if run.step < math.floor(last):
            break
        values = [y for x, y in _points(curve) if first < x <= last]
        if values:
            found.append(Point(place, sum(values) / len(values)))
    return found


def _points(curve: Curve) -> list[tuple[float, float]]:
    last = [curve.last] if curve.last and curve.last != curve.points[-1] else []
    return [*curve.points, *last]


def main() -> int:
    """Entry point of `python -m workbench.tuning.searcher`."""
    parser = argparse.ArgumentParser(prog="searcher", description=__doc__)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--parent", type=int, default=0, help="die with this process")
    options = parser.parse_args()
    os.umask(0o077)
    if options.parent:
        tree.die_with(options.parent)
    searcher = Searcher(options.suite)
    try:
        while not searcher.turn():
            time.sleep(POLL_SECONDS)
    except (SearchError, NothingLeftError, TrialError) as error:
        searcher.give_up(error)
        print(error, file=sys.stderr)  # noqa: T201 - its log
        return GAVE_UP
    return 0


if __name__ == "__main__":
    sys.exit(main())
