"""The searcher process: chooses the trials of a search, one after the other.

    python -m workbench.tuning.searcher SUITE [--parent PID]

A child of the warden that reads the runs' journals and sends commands through control.jsonl: `add`
a trial, `prune` the current one, `close` when all are done. All of its state can be rebuilt from
the suite's files, so it can be killed at any moment.
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

from datasets_mm.atomic_files import write_atomic
from engines import catalog
from engines.messages import Metric
from workbench.planning import plan, search_space
from workbench.planning.search_space import Settings
from workbench.processes import tree
from workbench.suites import control, suite_reader, trials, warden_file
from workbench.suites.control import Command
from workbench.suites.curves import Curve
from workbench.suites.state import CLEAN_CAUSES, RunState, RunView, SuiteState, is_unfinished
from workbench.suites.trials import TrialError
from workbench.tuning.optuna_study import PRUNING_POINTS, SpaceExhaustedError, TuningStudy
from workbench.tuning.searcher_process import GAVE_UP

POLL_SECONDS: Final = 0.25
"""Poll interval; a poll costs a few stat calls."""

ADMIT_SECONDS: Final = 30.0
"""Timeout of an admission; a running warden admits a trial within a beat."""

MAX_FAILURES: Final = 3
"""Consecutive failed trials after which the search ends: the settings are not the reason."""


class SearchError(ValueError):
    """The search cannot continue, and a restart would not help; one sentence."""


class LivePoint(NamedTuple):
    """An intermediate value: the mean over one twentieth of the training."""

    number: int
    """1 to 20."""
    value: float


class Searcher:
    """One search; call `advance` until it returns True."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base, suite_plan = trials.read_base(folder), plan.load(folder / "plan.toml")
        if base is None or suite_plan.search is None:
            raise SearchError(f"{folder.name} is no search")
        self.base, self.search = base, suite_plan.search
        self._params = catalog.load(base.spec.engine).Params
        self._reader = suite_reader.SuiteReader(folder)
        whole = search_space.whole_settings(self.search, self._params)
        self.study = TuningStudy(self.search, whole)
        self._settled: dict[str, int] = {}
        """Run id -> the attempt whose result the study has."""
        self._reported: dict[str, int] = {}
        """Run id -> number of the last point reported to the study."""
        self._removed: set[str] = set()
        """Runs that were skipped, cancelled or pruned by name."""
        self._offset = 0
        self._pending: tuple[str, float] | None = None
        """Run id of a trial that is not admitted yet, and the time of its request."""

    def advance(self) -> bool:
        """Read new entries, update the study, prune or add a trial; True: the search is over.

        Raises:
            SearchError, SpaceExhaustedError: the search cannot continue.
            TimeoutError: the warden admits no trial.
        """
        state = self._reader.poll()
        warden = warden_file.read_warden(self.folder)
        since = warden.started_wall if warden else 0.0
        self._read_commands()
        self._find_direction(state)
        waiting = [v for v in state.runs if not _is_over(v, since, v.spec.run_id in self._removed)]
        for view in state.runs:
            self._update_trial(view, over=view not in waiting)
        if waiting or not self._is_admitted(state):
            return False
        self._check_failures(state)
        if len(state.runs) >= self.base.trials:
            control.send_command(self.folder, Command(do="close"))
            return True
        self._add_trial(state)
        return False

    def _read_commands(self) -> None:
        commands, self._offset = control.read_commands(self.folder, self._offset)
        by_name = (c.run for c in commands if c.do in ("skip", "cancel", "prune"))
        self._removed.update(run for run in by_name if run is not None)

    def _find_direction(self, state: SuiteState) -> None:
        """Take the direction from the first measured metric if the plan has none."""
        if self.study.direction is not None:
            return
        for view in state.runs:
            metric = find_metric(view.state, self.search)
            if metric is not None:
                self.study.direction = "maximize" if metric.higher_is_better else "minimize"
                self._write_summary()
                return

    def _update_trial(self, view: RunView, *, over: bool) -> None:
        """Update the study from one run."""
        run, spec = view.state, view.spec
        if spec.trial is None or self._settled.get(spec.run_id) == run.attempt:
            return
        self.study.add_trial(spec.run_id, spec.trial.settings)
        if not over:
            self._prune_if_worse(view)
            return
        value = None
        if run.cause == "completed":
            value = self._read_value(view)
        if self.study.direction is None:
            return  # again, once it is known
        for point in self._new_points(view):
            self._report(spec.run_id, point)
        self.study.tell_result(spec.run_id, run.cause, value)
        self._settled[spec.run_id] = run.attempt
        self._write_summary()

    def _read_value(self, view: RunView) -> float | None:
        """The metric of a completed trial; None if it is not finite.

        Raises:
            SearchError: the trial has no such metric, so no other will have it.
        """
        metric = find_metric(view.state, self.search)
        if metric is not None:
            return metric.value if math.isfinite(metric.value) else None
        measured = dict.fromkeys(f"{m.name} on {m.split}" for m in view.state.metrics)
        metric_name = self.search.metric + (f" on {self.search.split}" if self.search.split else "")
        has = f"it has {', '.join(measured)}" if measured else "it measured none"
        raise SearchError(f"search.metric: {view.spec.run_id} has no {metric_name}; {has}")

    def _prune_if_worse(self, view: RunView) -> None:
        """Prune the running trial if the median of earlier trials was better at the same point."""
        run_id = view.spec.run_id
        if (
            view.state.status != "running"
            or run_id in self._removed
            or self.study.direction is None
        ):
            return
        for point in self._new_points(view):
            if self._report(run_id, point) and point.number < PRUNING_POINTS:
                reason = (
                    f"pruned at {100 * point.number // PRUNING_POINTS} % of its training: "
                    f"{self.search.live} {point.value:.4g}, where half of the trials before it "
                    "had done better"
                )
                control.send_command(self.folder, Command(do="prune", run=run_id, why=reason))
                self._removed.add(run_id)
                return

    def _new_points(self, view: RunView) -> list[LivePoint]:
        """Points of a run that are not reported to the study yet."""
        run_id = view.spec.run_id
        last = self._reported.get(run_id, 0)
        points = [p for p in live_points(view.state, self.search.live) if p.number > last]
        if points:
            self._reported[run_id] = points[-1].number
        return points

    def _report(self, run_id: str, point: LivePoint) -> bool:
        lower = is_lower_better(self.search.live) == (self.study.direction == "minimize")
        return self.study.report(run_id, point.number, point.value if lower else -point.value)

    def _is_admitted(self, state: SuiteState) -> bool:
        """Whether the last requested trial is a run by now.

        Raises:
            TimeoutError: the warden does not admit it.
        """
        if self._pending is None:
            return True
        run_id, since = self._pending
        if any(view.spec.run_id == run_id for view in state.runs):
            self._pending = None
            return True
        if time.monotonic() - since > ADMIT_SECONDS:
            raise TimeoutError(f"the warden has not admitted {run_id}; its log says why")
        return False

    def _check_failures(self, state: SuiteState) -> None:
        """End the search after `MAX_FAILURES` consecutive failures.

        Raises:
            SearchError: the last three trials failed.
        """
        last = [view for view in state.runs if view.state.cause][-MAX_FAILURES:]
        if len(last) == MAX_FAILURES and not any(v.state.cause in CLEAN_CAUSES for v in last):
            end = last[-1].state.end
            detail = f": {end.detail}" if end and end.detail else ""
            raise SearchError(f"the last {MAX_FAILURES} trials failed{detail}")

    def _add_trial(self, state: SuiteState) -> None:
        number = len(state.runs) + 1
        earlier = [v.spec.trial.settings for v in state.runs if v.spec.trial is not None]
        every = search_space.enumerate_choices(self.search, self._params)
        settings = self.study.suggest(
            number, earlier, lambda s: self._complete(s) is not None, every
        )
        spec = trials.make_spec(self.base, number, settings, self._complete(settings) or {})
        control.send_command(self.folder, Command(do="add", run=spec.run_id, spec=spec))
        self._pending = spec.run_id, time.monotonic()

    def _complete(self, settings: Settings) -> dict[str, Any] | None:
        """All settings of the engine with those of the trial; None: the engine refuses them."""
        try:
            params = self._params.model_validate({**self.base.spec.params, **settings})
        except ValidationError:
            return None
        return params.model_dump(mode="json")

    def _write_summary(self, trouble: str = "") -> None:
        summary = trials.SearchSummary(
            direction=self.study.direction or "",
            importances=self.study.importances(),
            trouble=trouble,
        )
        path = self.folder / trials.SEARCH_FOLDER / "summary.json"
        write_atomic(path, summary.model_dump_json(indent=1) + "\n")

    def give_up(self, error: Exception) -> None:
        """Write the reason into the summary."""
        self._write_summary(str(error))


def _is_over(view: RunView, since: float, out: bool) -> bool:
    """Whether a run is final: it ended under this warden, or is not repeated.

    `since`: when this warden started. A warden that resumes a suite starts unfinished runs again.
    """
    run = view.state
    if run.end is None:
        return False
    return out or not is_unfinished(run) or (run.ended_wall or 0.0) >= since


def find_metric(run: RunState, search: search_space.SearchPlan) -> Metric | None:
    """The searched metric of a completed run; None: it has none.

    `loss` is the mean over the last twentieth of the training, where no evaluation has that name.
    """
    if run.cause != "completed":
        return None
    for metric in run.metrics:
        if metric.name == search.metric and search.split in ("", metric.split):
            return metric
    points = live_points(run, "loss") if search.metric == "loss" and not search.split else []
    if not points:
        return None
    last = points[-1].value
    return Metric(
        name="loss", value=last, split="train", n=1, higher_is_better=False, method="last 5 %"
    )


def is_lower_better(live_name: str) -> bool:
    """Whether a live value is better if lower: losses and perplexities are."""
    return live_name.endswith("loss") or "perplexity" in live_name


def live_points(run: RunState, name: str) -> list[LivePoint]:
    """Means of a curve over each completed twentieth of the training."""
    curve, total = run.curves.get(name), run.plan.steps if run.plan else 0
    if curve is None or not total:
        return []
    points = []
    for number in range(1, PRUNING_POINTS + 1):
        first, last = (total * (number - 1) / PRUNING_POINTS, total * number / PRUNING_POINTS)
        if run.step < math.floor(last):
            break
        values = [y for x, y in _curve_points(curve) if first < x <= last]
        if values:
            points.append(LivePoint(number, sum(values) / len(values)))
    return points


def _curve_points(curve: Curve) -> list[tuple[float, float]]:
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
        tree.die_with_parent(options.parent)
    searcher = Searcher(options.suite)
    try:
        while not searcher.advance():
            time.sleep(POLL_SECONDS)
    except (SearchError, SpaceExhaustedError, TrialError) as error:
        searcher.give_up(error)
        print(error, file=sys.stderr)  # noqa: T201 - its log
        return GAVE_UP
    return 0


if __name__ == "__main__":
    sys.exit(main())
