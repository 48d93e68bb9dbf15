"""The lanes of a suite at work: what each does, and on which one a run may start."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from engines.protocol import RunSpec
from workbench.processes import device_locks, gpu_selection
from workbench.processes.lanes import Lane, LaneStatus, Machine, make_lanes
from workbench.slurm import submission
from workbench.suites import array_tasks, warden_file
from workbench.supervisor import run_gpus
from workbench.supervisor.attempt import EngineAttempt
from workbench.supervisor.run_queue import QueuedRun
from workbench.supervisor.warden_options import WardenOptions
from workbench.telemetry.gpus import GpuWatch

NEIGHBOUR_SECONDS: Final = 2.0
"""Interval of looking for other suites on the machine."""


@dataclass(eq=False)
class LaneWork:
    """A lane and what it does now."""

    lane: Lane
    run: QueuedRun | None = None
    attempt: EngineAttempt | None = None
    waiting: str = ""
    """Why it does not start the next run."""

    def check_contamination(self) -> None:
        """Mark the attempt if another suite computes on one of the lane's devices now."""
        if self.attempt is not None:
            self.attempt.contaminated |= self.lane.locks.contaminated()


class LanePool:
    """The lanes of one suite: without `options.lanes` a single one."""

    def __init__(self, lanes: Sequence[Lane], options: WardenOptions, gpus: GpuWatch) -> None:
        self.works = [LaneWork(lane) for lane in lanes]
        self._options = options
        self._gpus = gpus
        self._predecessor = Path(options.after) if options.after else None
        """Suite that is still to end; None: there is none, or it has ended."""
        self._neighbours_due = 0.0

    @classmethod
    def make(
        cls, specs: Sequence[RunSpec], options: WardenOptions, gpus: GpuWatch, suite: Path
    ) -> Self:
        """The lanes that the options name, for the runs of a suite.

        Raises:
            LaneError: they cannot be had on this machine.
        """
        machine = Machine(gpus.known_gpus(), os.environ, os.sched_getaffinity(0))
        lanes = make_lanes(options.lane_plan, specs, machine, suite)
        if any(lane.gpus for lane in lanes):  # their free memory is to be known before a start
            gpus.read_now((), None, time.monotonic() + gpu_selection.DRIVER_SECONDS)
        return cls(lanes, options, gpus)

    @property
    def attempts(self) -> list[EngineAttempt]:
        """The attempts at work."""
        return [work.attempt for work in self.works if work.attempt is not None]

    @property
    def some_free(self) -> bool:
        """Whether a lane has no run."""
        return any(work.attempt is None for work in self.works)

    @property
    def reasons(self) -> list[str]:
        """Why lanes wait."""
        return [work.waiting for work in self.works if work.waiting]

    def statuses(self) -> tuple[LaneStatus, ...]:
        """What each lane does, for warden.json."""
        return tuple(
            LaneStatus(work.lane.name, work.run.run_id if work.run else "", work.waiting)
            for work in self.works
        )

    def forget_reasons(self) -> None:
        """Before the lanes are looked at anew."""
        for work in self.works:
            work.waiting = ""

    def find_free(self, spec: RunSpec) -> LaneWork | None:
        """A lane on which the run may start; None: all are busy, or wait for the reason noted."""
        for work in self.works:
            if work.attempt is None:
                work.waiting = self._find_obstacle(work.lane, spec)
                if not work.waiting:
                    return work
        return None

    def _find_obstacle(self, lane: Lane, spec: RunSpec) -> str:
        """Why the run must wait on a free lane; empty: it need not."""
        if self._predecessor is not None:
            if _is_unended(self._predecessor):
                return f"behind {self._predecessor.name}"
            self._predecessor = None
        try:
            if not lane.locks.acquire():
                if not self._options.share:
                    return f"behind {lane.locks.behind}"
                lane.locks.share()
        except OSError as error:  # its folder was removed; the other lanes go on
            return f"device locks: {error}"
        if not self._options.lanes or self._options.share:
            return ""
        if not lane.gpus:
            return run_gpus.find_host_obstacle(spec) if self.attempts else ""
        every = [gpu for work in self.works for gpu in work.lane.gpus]
        return run_gpus.find_gpu_obstacle(spec, lane.gpus, self._gpus, every)

    def note_neighbours(self, *, started: bool = False) -> None:
        """Note the other suites at work on this machine in every attempt, once in
        NEIGHBOUR_SECONDS; `started`: at once, since an attempt has just begun."""
        now = time.monotonic()
        if not self.attempts or not (started or now >= self._neighbours_due):
            return
        self._neighbours_due = now + NEIGHBOUR_SECONDS
        names = device_locks.list_other_holders(self.works[0].lane.locks.root)
        for attempt in self.attempts:
            attempt.shared_host |= names

    def release_idle(self) -> None:
        """Free the devices of lanes without a run, for other suites."""
        used = [work.lane.locks for work in self.works if work.attempt is not None]
        for work in self.works:
            if work.lane.locks not in used:
                work.lane.locks.release()


def _is_unended(suite: Path) -> bool:
    """Whether a suite's warden is at work or starts just now, or jobs of it run or wait."""
    if (submitted := submission.read_submission(suite)) is not None:
        return array_tasks.is_at_work(suite, submitted)
    return warden_file.is_starting(suite) or device_locks.is_held(suite / "warden.lock")
