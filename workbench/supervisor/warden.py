"""The warden: supervisor of one suite, which executes its runs, one at a time on each lane.

    python -m workbench.supervisor.warden SUITE [--life-fd N] [--share] [--resume]
                                          [--time-limit SECONDS] [--lanes all|N|0,1,3]

One thread, one `selectors` loop, no torch. Only the warden starts, measures, stops and waits for
engines, and writes journals and records. Without `--lanes` there is one lane. Commands come through
control.jsonl; signals and the end of the life pipe mean "stop"; SIGUSR1, SIGUSR2 and the time limit
mean "stop, to be continued".
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import resource
import secrets
import selectors
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from engines.protocol import RunSpec
from workbench import paths
from workbench.processes import device_locks, engine_process, gpu_selection, tree
from workbench.processes.limits import Limits
from workbench.suites import state, suite, trials
from workbench.suites.journal import JournalBusyError, JournalLostError
from workbench.supervisor import launch, run_records
from workbench.supervisor.attempt import EngineAttempt
from workbench.supervisor.context import SupervisorContext
from workbench.supervisor.control_queue import ControlQueue
from workbench.supervisor.event_log import end_without_journal, make_reserve, write_end
from workbench.supervisor.lane_pool import LanePool, LaneWork
from workbench.supervisor.run_queue import QueuedRun, Refusal, RunQueue
from workbench.supervisor.state_file import StateFile
from workbench.supervisor.warden_options import WardenOptions
from workbench.telemetry import environment
from workbench.telemetry.gpus import GpuWatch
from workbench.tuning.searcher_process import SearcherProcess

SUSPENDING: Final = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals of schedulers before a job's time ends."""


class Warden:
    """Supervisor of one suite; `run` returns when no run is left."""

    def __init__(
        self,
        folder: Path,
        *,
        command: Sequence[str] = engine_process.ENGINE_COMMAND,
        limits: Limits | None = None,
        life_fd: int = -1,
        options: WardenOptions | None = None,
    ) -> None:
        self.folder = folder
        self._options = options or WardenOptions()
        self.home = self._options.state_folder(folder)
        self._suspend_due = time.monotonic() + self._options.time_limit
        self.limits = limits or Limits.from_environment()
        self.token = secrets.token_hex(16)
        self._command = command
        self._life_fd = life_fd
        self.control = ControlQueue(folder, resumed=self._options.resume)
        self._queue = RunQueue(self.control, resumed=self._options.resume)
        self._beat_due = 0.0
        self._reserve = self.home / ".reserve"
        self._logged: set[str] = set()

    def run(self) -> None:
        """Execute all runs of the suite, from the locks to the last record."""
        self._become_warden()
        self._write_state("starting")
        variables = {**os.environ, **paths.module_path(os.environ)}
        self.gpus = GpuWatch(self.limits, variables)
        self._lanes = LanePool((), self._options, self.gpus)
        common = trials.read_base(self.folder)
        self._searcher = SearcherProcess(self.folder, variables) if common else None
        try:
            self._context = self._make_context()
            runs = suite.read_runs(self.folder)
            specs = [spec for _, spec in runs] + ([common.spec] if common else [])
            self._lanes = self._make_lanes(specs)
            self._queue_runs(runs)
            while self._start_runs():
                self._handle_events(self._next_deadline())
                self._tick_attempts()
            self._lanes.release_idle()
            self._state_file.lanes = ()
            trouble = self._searcher.trouble if self._searcher is not None else ""
            if self.control.suspended:
                self._state_file.mark_suspended()
            self._write_state("ended", self.control.stopped or trouble)
        finally:
            for attempt in self._lanes.attempts:
                attempt.abort()
            self.gpus.stop()
            if self._searcher is not None:
                self._searcher.stop()
            self._reserve.unlink(missing_ok=True)

    def _become_warden(self) -> None:
        os.umask(0o077)
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # cores hold data and secrets
        tree.become_subreaper()
        self._state_file = StateFile(self.home, self.token)
        self._selector = selectors.DefaultSelector()
        reading, writing = os.pipe()
        for end in (reading, writing):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *SUSPENDING):
            signal.signal(number, lambda *_: None)
        self._watch(reading, lambda: self._on_signal(reading))
        if self._life_fd >= 0:
            os.set_inheritable(self._life_fd, False)
            self._watch(self._life_fd, self._on_life_pipe)

    def _make_context(self) -> SupervisorContext:
        self.gpus.start()
        self.gpus.wait_for_facts(gpu_selection.driver_timeout())
        life, _writing = os.pipe()  # nobody writes; its end stays open here as long as we live
        return SupervisorContext(
            limits=self.limits,
            token=self.token,
            life_fd=life,
            command=tuple(self._command),
            gpus=self.gpus,
            environment=self._environment(),
            reserve=make_reserve(self._reserve, self.limits.reserve_bytes),
            searcher=self._searcher,
        )

    def _environment(self) -> dict[str, Any]:
        gpus = self.gpus
        facts = environment.collect_environment(gpus.known_gpus(), gpus.facts, gpus.reason)
        return facts.model_dump(mode="json")

    def _make_lanes(self, specs: Sequence[RunSpec]) -> LanePool:
        return LanePool.make(specs, self._options, self.gpus, self.folder)

    # The queue

    def _queue_runs(self, planned: Sequence[tuple[Path, RunSpec]]) -> None:
        for folder, spec in planned:
            self._queue.add(folder, spec)

    def _start_runs(self) -> bool:
        """Start what may start now; False: nothing is left to do."""
        self._read_commands()
        searcher = self._searcher
        while searcher is not None and searcher.admitted and not self.control.stopped:
            self._queue.add(*searcher.admitted.popleft())
        for refusal in self._queue.take_refused(turn=self._lanes.some_free):
            self._refuse(refusal)
        self._lanes.forget_reasons()
        if not self.control.paused:
            for run in self._queue.startable():
                if (lane := self._lanes.find_free(run.spec)) is not None:
                    self._start_attempt(lane, run)
        if not self._queue.pending and self._options.lanes:
            self._lanes.release_idle()
        unfinished = bool(self._queue.pending or self._queue.running or self._expects_trials())
        if unfinished:
            self._write_progress()
        return unfinished

    def _expects_trials(self) -> bool:
        """Whether the searcher of a search may send another trial."""
        searcher = self._searcher
        if searcher is None or self.control.stopped:
            return False
        over = self.control.closed or searcher.ended  # before its last orders are read
        self._read_commands()
        return bool(searcher.admitted) or not over

    def _refuse(self, refusal: Refusal) -> None:
        """Write End and record of a run that must not start; an End that it has stays the last."""
        run = refusal.run
        if run.read_state().end is not None:
            return
        try:
            ended = write_end(run.folder, refusal.cause, refusal.detail, refusal.need)
        except (JournalBusyError, JournalLostError) as error:
            log(f"{run.run_id}: {error}")
            ended = end_without_journal(error)
        self._keep_record(run, ended)

    # One attempt

    def _start_attempt(self, work: LaneWork, run: QueuedRun) -> None:
        self._queue.start(run)
        if self.gpus.facts and not self._context.environment["gpus"]:  # the driver was slow
            self._context = replace(self._context, environment=self._environment())
        lane = work.lane
        try:
            cores = frozenset() if run.spec.exclusive else lane.cores  # all: no neighbour has any
            attempt = EngineAttempt(run.folder, lane.place_run(run.spec), self._context, cores)
        except (JournalBusyError, JournalLostError) as error:
            log(f"{run.run_id}: {error}")
            ended = end_without_journal(error)
            self._keep_record(run, ended)
            self._queue.end(run, ended, retry=False)
            return
        for other in self._lanes.attempts:
            other.shared_host.add(run.run_id)
            attempt.shared_host.add(other.spec.run_id)
        work.run, work.attempt = run, attempt
        self.control.working.append(attempt)
        attempt.contaminated = lane.locks.contaminated()
        self._lanes.note_neighbours(started=True)
        self._write_progress()
        attempt.start()
        self._watch_exit(attempt)

    def _tick_attempts(self) -> None:
        for work in self._lanes.works:
            if work.attempt is not None:
                work.attempt.tick(time.monotonic())
                if work.attempt.ended:
                    self._end_attempt(work, work.attempt)

    def _end_attempt(self, work: LaneWork, attempt: EngineAttempt) -> None:
        """Record an ended attempt; after an out-of-memory error the run may start again."""
        assert work.run is not None  # noqa: S101 - set together with the attempt
        run, work.run, work.attempt = work.run, None, None
        self.control.working.remove(attempt)
        self._unwatch_exit(attempt)
        ended = attempt.event_log.state
        self._keep_record(run, ended)
        if ended.cause == "pruned":  # it never goes on, and there may be hundreds
            shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
        self._queue.end(run, ended, retry=attempt.retry is not None)

    def _keep_record(self, run: QueuedRun, ended: state.RunState) -> None:
        """Write the record into the run's folder and the log root."""
        try:
            path = self._options.records_path(run.folder)
            run_records.keep_record(path, run.folder, run.spec, ended, self._reserve)
        except OSError as error:
            log(f"{run.run_id}: its record cannot be written: {error}")
            self._state_file.count_lost_record()

    # The loop

    def _next_deadline(self) -> float:
        """When the loop must go on, if no event comes before it (CLOCK_MONOTONIC)."""
        later = time.monotonic() + self.limits.beat_seconds
        return min((attempt.next_deadline() for attempt in self._lanes.attempts), default=later)

    def _handle_events(self, due: float) -> None:
        """Wait for events, at most until `due` (CLOCK_MONOTONIC), and handle them."""
        wakes = (due, self._beat_due, self._suspend_due)
        wait = min(wakes) - time.monotonic()
        for key, _ in self._selector.select(max(0.0, wait)):
            key.data()
        now = time.monotonic()
        if now >= self._suspend_due:
            self._suspend_due = math.inf
            self.control.suspend(f"at its time limit of {self._options.time_limit:,.0f} s")
        if now >= self._beat_due:
            self._beat_due = now + self.limits.beat_seconds
            self._beat()

    def _beat(self) -> None:
        """Periodic work. An OSError of one part is logged and skips only that part of this beat.

        The folder of the locks may be removed, or a device or disk may fail for a while; none of
        these must end a training.
        """
        parts: list[Callable[[], object]] = [self._read_commands, self.gpus.receive]
        parts.append(self.gpus.start)  # again, if it died
        if self._searcher is not None:
            parts.append(self._searcher.poll)
        parts.append(self._lanes.note_neighbours)
        for work in self._lanes.works:
            if work.attempt is not None:
                parts += [work.check_contamination, work.attempt.read_events]
        for part in parts:
            try:
                part()
            except OSError as error:
                if (text := f"{part.__name__}: {error}") not in self._logged:
                    self._logged.add(text)
                    log(text)

    def _watch_exit(self, attempt: EngineAttempt) -> None:
        """Wake the loop at the engine's exit; `tick` then reads the status.

        No other event of an attempt does. Reading events at every beat, instead of waking for every
        message, costs a third of the CPU, and the pipe's MiB holds far more than a beat's worth.
        """
        if attempt.engine is not None:
            pidfd = attempt.exit_fd = attempt.engine.pidfd
            self._watch(pidfd, lambda: self._unwatch_exit(attempt))

    def _unwatch_exit(self, attempt: EngineAttempt) -> None:
        if attempt.exit_fd >= 0:
            self._selector.unregister(attempt.exit_fd)
            attempt.exit_fd = -1

    def _watch(self, descriptor: int, action: Callable[[], None]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, action)

    # Commands

    def _on_signal(self, reading: int) -> None:
        for number in os.read(reading, 64):
            self._obey_signal(signal.Signals(number))

    def _obey_signal(self, number: signal.Signals) -> None:
        if number in SUSPENDING:
            self.control.suspend(f"by {number.name}")
        else:
            self.control.stop(f"stopped by {number.name}")

    def _on_life_pipe(self) -> None:
        if not os.read(self._life_fd, 64):
            self._selector.unregister(self._life_fd)
            self.control.stop("stopped because the command that started it has ended")

    def _read_commands(self) -> None:
        for order in self.control.poll():
            log(f"order: {order.do} {order.run or ''} by {order.by}")
        if self._searcher is not None and self.control.added_specs:
            added, self.control.added_specs = self.control.added_specs, []
            for refusal in self._searcher.admit(added):
                log(f"not admitted: {refusal}")

    def _write_progress(self) -> None:
        """Write what the lanes do now."""
        self._state_file.lanes = self._lanes.statuses() if self._options.lanes else ()
        attempts, reasons = self._lanes.attempts, self._lanes.reasons
        if attempts:
            full = "".join(": the disk is full" for first in attempts[:1] if first.event_log.full)
            runs = ", ".join(attempt.spec.run_id for attempt in attempts)
            self._write_state("stopping" if self.control.stopped else "running", f"{runs}{full}")
        elif self.control.paused and self._queue.pending:
            self._write_state("paused", f"before {self._queue.pending[0].run_id}")
        elif reasons:
            self._write_state("queued", reasons[0])
        elif self._searcher is not None:
            self._write_state("running", "the searcher chooses the next trial")

    def _write_state(self, now: state.WardenState, detail: str = "") -> None:
        """Write warden.json if it changes or is old; a failure is logged."""
        try:
            self._state_file.write(now, detail)
        except OSError as error:
            log(f"warden.json cannot be written: {error}")


def log(text: str) -> None:
    """Write one line to stderr, which is warden.log."""
    with contextlib.suppress(OSError):  # a full disk
        os.write(2, f"{time.strftime('%H:%M:%S')} {text}\n".encode("utf-8", "replace"))


def run_warden(warden: Warden) -> int:
    """Run the warden under the suite's lock; returns the exit code of the process."""
    held = device_locks.lock_file(warden.home / "warden.lock")
    if held is None:
        who = device_locks.describe_holder(warden.home / "warden.lock")
        by = f" ({who})" if who else ""
        log(f"{warden.folder.name} has a warden already{by}; `workbench attach` shows it")
        return 2
    launch.fork_reaper(warden.token, warden.limits.kill_seconds)
    try:
        warden.run()
    except (suite.SuiteError, ValueError) as error:
        log(str(error))
        return 1
    return 0


def main(kind: type[Warden] = Warden) -> int:
    """Entry point of `python -m workbench.supervisor.warden`."""
    parser = argparse.ArgumentParser(prog="warden", description=__doc__)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--life-fd", type=int, default=-1, help="stop when this pipe closes")
    WardenOptions.add_arguments(parser)
    arguments = parser.parse_args()
    options = WardenOptions.from_arguments(arguments)
    suite_folder = arguments.suite.absolute()
    return run_warden(kind(suite_folder, life_fd=arguments.life_fd, options=options))


if __name__ == "__main__":
    sys.exit(main())
