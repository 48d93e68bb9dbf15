"""Incremental reading of a suite: journals of its runs, reduced to its state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from engines.protocol import Entry
from results.text import formats
from workbench.processes import device_locks
from workbench.slurm import submission
from workbench.suites import array_tasks, journal, state, trials
from workbench.suites.control import read_orders
from workbench.suites.orders import Orders
from workbench.suites.suite import SuiteError, list_run_names, read_runs
from workbench.suites.warden_file import (
    WardenFile,
    is_alive,
    is_here,
    is_starting,
    read_warden,
)

NO_NEWS: Final = "no news from"
"""Begins the detail of a suite whose warden, on another machine, is silent."""
WHOLE_BYTES: Final = 1 << 20


def _describe_warden(warden: WardenFile, *, gone: bool) -> str:
    """Its own detail; of a silent one on another machine, since when it is silent."""
    if gone and warden.state not in ("ended", "lost") and not is_here(warden):
        age = time.time() - warden.updated_wall
        return f"{NO_NEWS} {warden.host} for {formats.clock(age)}"
    return warden.detail


def _read_on(tail: journal.Tail, limit: int) -> Iterator[list[Entry]]:
    """New entries in parts of about `limit` bytes; a part may hold the middle of a long line."""
    while True:
        before = tail.offset
        entries = tail.poll(limit)
        if tail.offset == before:
            return
        yield entries


class SuiteReader:
    """Incremental reader of one suite; a `poll` without news costs a few stat calls."""

    def __init__(self, suite: Path) -> None:
        self.suite = suite
        self._views: list[state.RunView] = []
        self._tails: list[journal.Tail] = []
        self.behind = False
        """Whether the last `poll` ended before it had read all that was there."""
        self.bad_lines = 0
        """Number of journal lines that could not be decoded."""
        self._add_new_runs()
        try:
            common = trials.read_base(suite)
        except trials.TrialError as error:
            raise SuiteError(str(error)) from None
        self._trials = common.trials if common else 0
        self._orders = Orders()
        self._orders_mark: tuple[int, float] | None = None
        """Size of control.jsonl and start of the warden when `_orders` were read."""

    def _add_new_runs(self) -> None:
        """Add runs that are new: a search's come one by one, and none is ever removed."""
        if len(list_run_names(self.suite)) == len(self._views):
            return
        indexes = {view.folder: index for index, view in enumerate(self._views)}
        views, tails = [], []
        for folder, spec in read_runs(self.suite):
            index = indexes.get(folder.name)
            if index is None:
                views.append(state.RunView(spec, folder.name))
                tails.append(journal.Tail(folder / "events.jsonl"))
            else:
                views.append(self._views[index])
                tails.append(self._tails[index])
        self._views, self._tails = views, tails

    def poll(
        self, seconds: float = math.inf, give_way: Callable[[], object] | None = None
    ) -> state.SuiteState:
        """The present state of the suite; the reading of journals ends after about `seconds`.

        `give_way` is called after each `journal.TURN_BYTES`, and may wait.
        """
        warden = read_warden(self.suite)
        ended = warden is None or not is_alive(warden)  # before the journals are read
        self._add_new_runs()
        self._read_journals(time.monotonic() + seconds, give_way)
        self.bad_lines = sum(tail.bad for tail in self._tails)
        if (submitted := submission.read_submission(self.suite)) is not None:
            run_ids = [view.folder for view in self._views]
            tasks = array_tasks.read_tasks(self.suite, submitted, run_ids)
            runs = array_tasks.locate_runs(self._views, tasks)
            orders = self._read_orders(submitted.submitted_wall)
            return array_tasks.summarize_tasks(self.suite.name, runs, tasks, orders)
        suite_state = self._warden_state(warden, gone=ended)
        orders = self._read_orders(warden.started_wall if warden else 0.0)
        over = warden is None or suite_state in ("ended", "lost")
        return state.SuiteState(
            name=self.suite.name,
            warden=suite_state,
            warden_pid=warden.pid if warden else None,
            detail=_describe_warden(warden, gone=ended) if warden else "",
            started_wall=warden.started_wall if warden else None,
            suspended=warden.suspended if warden else False,
            records_lost=warden.records_lost if warden else 0,
            runs=tuple(self._views),
            lanes=warden.lanes if warden and not ended else (),
            trials=self._trials,
            orders=orders,
            to_retry=frozenset() if over else self._find_retries(orders, warden),
        )

    def _read_journals(self, deadline: float, give_way: Callable[[], object] | None) -> None:
        self.behind = False
        limit = journal.TURN_BYTES if give_way else WHOLE_BYTES
        for index, tail in enumerate(self._tails):
            for entries in _read_on(tail, limit):
                view = self._views[index]
                folded = state.reduce_entries(entries, view.state)
                self._views[index] = state.RunView(view.spec, view.folder, folded)
                if give_way is not None:
                    give_way()
                if time.monotonic() > deadline:
                    self.behind = True
                    break

    def _read_orders(self, since: float) -> Orders:
        try:
            mark = ((self.suite / "control.jsonl").stat().st_size, since)
        except OSError:
            mark = (0, since)
        if mark != self._orders_mark:
            self._orders, self._orders_mark = read_orders(self.suite, since), mark
        return self._orders

    def _find_retries(self, orders: Orders, warden: WardenFile | None) -> frozenset[str]:
        """Ids of runs that ended before the warden started and that it will try again."""
        since = warden.started_wall if warden else 0.0
        return frozenset(
            view.spec.run_id
            for view in self._views
            if state.is_unfinished(view.state)
            and view.spec.run_id not in orders.removed
            and (view.state.end is None or (view.state.ended_wall or since) < since)
        )

    def _warden_state(self, warden: WardenFile | None, *, gone: bool) -> state.WardenState:
        if warden is None:
            if device_locks.is_held(self.suite / "warden.lock"):
                return "running"  # its file was deleted; it is written anew within 20 s
            return "starting" if is_starting(self.suite) else "lost"
        if warden.state == "ended" or not gone:
            return warden.state
        return "lost"
