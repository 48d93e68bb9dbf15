"""Warden of one run of a suite, beside wardens of other runs, maybe on other nodes.

    python -m workbench.supervisor.run_warden SUITE --run RUN [options of the warden]

A task of an array of Slurm, or of any other queue. It writes into the folder of its run only;
commands are read from the suite's control.jsonl.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.protocol import RunSpec
from workbench.processes import device_locks
from workbench.processes.lanes import Lane
from workbench.slurm import commands, submission
from workbench.suites import state
from workbench.suites.journal import Tail
from workbench.supervisor.control_queue import ControlQueue
from workbench.supervisor.lane_pool import LanePool
from workbench.supervisor.run_queue import RunQueue
from workbench.supervisor.warden import Warden, main
from workbench.supervisor.warden_options import WardenOptions


class JobLocks(device_locks.DeviceLocks):
    """Locks of the GPUs of a job; it may have none."""

    def contaminated(self) -> bool:
        """Whether another suite computes on one of them now."""
        return bool(self.devices) and super().contaminated()


class RunWarden(Warden):
    """Supervisor of the run `options.run`."""

    def __init__(self, folder: Path, *, options: WardenOptions, **arguments: Any) -> None:
        super().__init__(folder, options=options, **arguments)
        submitted = submission.read_submission(folder)
        offset = submitted.control_offset if submitted else None
        self.control = ControlQueue(folder, resumed=True, offset=offset)
        self._queue = RunQueue(self.control, resumed=options.resume)

    def _queue_runs(self, planned: Sequence[tuple[Path, RunSpec]]) -> None:
        """The one run; before it the exit causes of the runs that it needs are read."""
        for run, spec in planned:
            if spec.run_id == self._options.run:
                self._queue.add(run, spec)
                return
            ended = state.reduce_entries(Tail(run / "events.jsonl").read_all())
            self._queue.note_cause(spec.run_id, ended.cause)

    def _make_lanes(self, specs: Sequence[RunSpec]) -> LanePool:
        """One lane, of this run's devices. Inside a job the cores are Slurm's to give, not ours."""
        pool = super()._make_lanes([s for s in specs if s.run_id == self._options.run])
        if not commands.job_name(os.environ):
            return pool
        names = {name for work in pool.works for name in work.lane.locks.devices}
        locks = JobLocks(names - {device_locks.CPU}, self.folder.name)
        return LanePool([Lane(locks)], self._options, self.gpus)

    def _obey_signal(self, number: signal.Signals) -> None:
        """As of every warden, but a SIGTERM to a job does not hurry a stop.

        Slurm sends it to every process of the job, and `run-one` passes its own on; so it comes
        twice, and after a SIGUSR2 while the run still saves. Slurm kills at the end of KillWait.
        """
        repeated = number == signal.SIGTERM and bool(self.control.stopped)
        if not (repeated and commands.job_name(os.environ)):
            super()._obey_signal(number)

    def _start_runs(self) -> bool:
        """As of every warden, but a job must not wait for the end of a pause."""
        self._read_commands()
        if self.control.paused and not self._queue.running:
            self.control.stop("the suite is paused, and a job must not wait")
        return super()._start_runs()


if __name__ == "__main__":
    sys.exit(main(RunWarden))
