"""The warden: supervisor of one suite, which executes its runs one after the other.

    python -m workbench.supervisor.warden SUITE [--life-fd N] [--share] [--resume]
                                          [--time-limit SECONDS]

One thread, one `selectors` loop, no torch. Only the warden starts, measures, stops and waits for
engines, and writes journals and records. Commands come through control.jsonl; signals and the end
of the life pipe mean "stop"; SIGUSR1, SIGUSR2 and the time limit mean "stop, to be continued".
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from engines.protocol import Cause, End, Entry, RunSpec
from workbench import paths
from workbench.processes import device_locks, engine_process, gpu_selection, orphan_reaper, tree
from workbench.processes.limits import Limits
from workbench.suites import state, suite, trials
from workbench.suites.journal import JournalBusyError, JournalLostError, Tail
from workbench.supervisor import run_records
from workbench.supervisor.attempt import EngineAttempt, SupervisorContext
from workbench.supervisor.control_queue import ControlQueue
from workbench.supervisor.event_log import write_end
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
        self._beat_due = 0.0
        self._causes: dict[str, str] = {}
        self._reserve = self.home / ".reserve"
        self._logged: set[str] = set()
        self._attempt: EngineAttempt | None = None

    def run(self) -> None:
        """Execute all runs of the suite, from the locks to the last record."""
        self._become_warden()
        self._write_state("starting")
        variables = {**os.environ, **paths.module_path(os.environ)}
        self.gpus = GpuWatch(self.limits, variables)
        common = trials.read_base(self.folder)
        self._searcher = SearcherProcess(self.folder, variables) if common else None
        try:
            self._context = self._make_context()
            runs = suite.read_runs(self.folder)
            specs = [spec for _, spec in runs] + ([common.spec] if common else [])
            self._locks = self._make_locks(specs)
            for run, spec in self._all_runs(runs):
                try:
                    self._run_one(run, spec)
                except (JournalBusyError, JournalLostError) as error:
                    self._record_lost_journal(run, spec, error)
            self._locks.release()
            trouble = self._searcher.trouble if self._searcher is not None else ""
            if self.control.suspended:
                self._state_file.mark_suspended()
            self._write_state("ended", self.control.stopped or trouble)
        finally:
            if self._attempt is not None:
                self._attempt.abort()
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
            reserve=self._make_reserve(),
            searcher=self._searcher,
        )

    def _environment(self) -> dict[str, Any]:
        gpus = self.gpus
        facts = environment.collect_environment(gpus.known_gpus(), gpus.facts, gpus.reason)
        return facts.model_dump(mode="json")

    def _make_reserve(self) -> Path:
        with contextlib.suppress(OSError), self._reserve.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.limits.reserve_bytes)
        return self._reserve

    def _make_locks(self, specs: Sequence[RunSpec]) -> device_locks.DeviceLocks:
        gpus = self.gpus.known_gpus()
        used = [device_locks.device_names(spec, os.environ, gpus) for spec in specs]
        log_root = str(self.folder.parent)
        return device_locks.DeviceLocks(set().union(*used), self.folder.name, log_root=log_root)

    # A search

    def _all_runs(self, planned: Sequence[tuple[Path, RunSpec]]) -> Iterator[tuple[Path, RunSpec]]:
        """The runs in their order; in a search also those that are added while others run."""
        yield from planned
        searcher = self._searcher
        while searcher is not None and (trial := self._next_trial(searcher)) is not None:
            yield trial

    def _next_trial(self, searcher: SearcherProcess) -> tuple[Path, RunSpec] | None:
        """Wait for the next trial of the searcher; None: there will be none."""
        while not self.control.stopped:
            over = self.control.closed or searcher.ended  # before its last orders are read
            self._read_commands()
            if searcher.admitted:
                return searcher.admitted.popleft()
            if over:
                break
            self._write_state("running", "the searcher chooses the next trial")
            self._handle_events(time.monotonic() + self.limits.beat_seconds)
        return None

    # One run

    def _run_one(self, run: Path, spec: RunSpec) -> None:
        before = state.reduce_entries(Tail(run / "events.jsonl").read_all())
        going = before.end is None or (self._options.resume and state.is_unfinished(before))
        while going:
            if (reason := self._wait_to_start(spec)) is None:
                before, going = self._run_attempt(run, spec)
                continue
            if before.end is None:  # otherwise the End that it has stays its last word
                before = write_end(run, *reason)
                self._keep_record(spec, run, before)
            break
        self._causes[spec.run_id] = before.cause

    def _run_attempt(self, run: Path, spec: RunSpec) -> tuple[state.RunState, bool]:
        """One attempt from start to record; True: a retry with less memory follows."""
        self._write_state("running", spec.run_id)
        if self.gpus.facts and not self._context.environment["gpus"]:  # the driver was slow
            self._context = replace(self._context, environment=self._environment())
        attempt = self._attempt = self.control.current = EngineAttempt(run, spec, self._context)
        attempt.contaminated = self._locks.contaminated()
        attempt.start()
        with self._wake_on_exit(attempt):
            while not attempt.ended:
                self._handle_events(attempt.next_deadline())
                attempt.tick(time.monotonic())
        self._attempt = self.control.current = None
        self._keep_record(spec, run, attempt.event_log.state)
        if attempt.event_log.state.cause == "pruned":  # it never goes on, and there may be hundreds
            shutil.rmtree(run / "checkpoints", ignore_errors=True)
        return attempt.event_log.state, attempt.retry is not None

    def _record_lost_journal(self, run: Path, spec: RunSpec, error: Exception) -> None:
        """Write the record of a run whose journal cannot be written."""
        log(f"{spec.run_id}: {error}")
        end = End(cause="storage-lost", detail=f"the journal cannot be written: {error}")
        entry = Entry(seq=0, wall=time.time(), src="warden", msg=end)
        self._keep_record(spec, run, state.reduce_entries([entry]))

    def _wait_to_start(self, spec: RunSpec) -> tuple[Cause, str, str] | None:
        """Wait for device locks and the end of a pause (None), or return why it must not start."""
        self._read_commands()
        while (reason := self._find_stop_reason(spec)) is None:
            if self.control.paused:
                self._write_state("paused", f"before {spec.run_id}")
            elif self._locks.acquire():
                return None
            elif self._options.share:
                self._locks.share()
                return None
            else:
                self._write_state("queued", f"behind {self._locks.behind}")
            self._handle_events(time.monotonic() + self.limits.beat_seconds)
        return reason

    def _find_stop_reason(self, spec: RunSpec) -> tuple[Cause, str, str] | None:
        """Cause, sentence and the unmet need of a run that must not start; None: it may."""
        if (order := self.control.stop_reason(spec.run_id)) is not None:
            return *order, ""
        for need in spec.needs:
            if (cause := self._causes.get(need)) != "completed":
                how = f"ended as {cause}" if cause else "is no earlier run of this suite"
                return "skipped", f"needs {need}, which {how}", need
        return None

    def _keep_record(self, spec: RunSpec, run: Path, ended: state.RunState) -> None:
        """Write the record into the run's folder and the log root."""
        self._causes[spec.run_id] = ended.cause
        try:
            run_records.keep_record(
                self._options.records_path(run), run, spec, ended, self._reserve
            )
        except OSError as error:
            log(f"{spec.run_id}: its record cannot be written: {error}")
            self._state_file.count_lost_record()

    # The loop

    def _handle_events(self, due: float) -> None:
        """Wait for events, at most until `due` (CLOCK_MONOTONIC), and handle them."""
        wakes = (due, self._beat_due, self._state_file.refresh_due, self._suspend_due)
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
        if now >= self._state_file.refresh_due:
            self._write_state(self._state_file.state, self._state_file.detail)
        current = self._attempt
        if current is not None and self.control.stopped and self._state_file.state == "running":
            self._write_state("stopping", current.spec.run_id)

    def _beat(self) -> None:
        """Periodic work. An OSError of one part is logged and skips only that part of this beat.

        The folder of the locks may be removed, or a device or disk may fail for a while; none of
        these must end a training.
        """
        parts: list[Callable[[], object]] = [
            self._read_commands,
            self.gpus.receive,
            self.gpus.start,  # again, if it died
        ]
        if self._searcher is not None:
            parts.append(self._searcher.poll)
        if self._attempt is not None:
            parts += [self._check_contamination, self._attempt.read_events]
        for part in parts:
            try:
                part()
            except OSError as error:
                self._log_once(f"{part.__name__}: {error}")
        attempt = self._attempt
        if attempt is not None and attempt.event_log.full and self._state_file.state == "running":
            self._write_state("running", f"{attempt.spec.run_id}: the disk is full")

    def _check_contamination(self) -> None:
        if self._attempt is not None:
            self._attempt.contaminated |= self._locks.contaminated()

    def _log_once(self, text: str) -> None:
        if text not in self._logged:
            self._logged.add(text)
            log(text)

    @contextlib.contextmanager
    def _wake_on_exit(self, attempt: EngineAttempt) -> Iterator[None]:
        """Wake the loop at the engine's exit; `tick` then reads the status.

        No other event of an attempt does. Reading events at every beat, instead of waking for every
        message, costs a third of the CPU, and the pipe's MiB holds far more than a beat's worth.
        """
        pidfd = attempt.engine.pidfd if attempt.engine is not None else -1
        watched = pidfd >= 0

        def on_exit() -> None:
            nonlocal watched
            watched = False
            self._selector.unregister(pidfd)

        if watched:
            self._watch(pidfd, on_exit)
        yield
        if watched:  # it could not be killed
            self._selector.unregister(pidfd)

    def _watch(self, descriptor: int, action: Callable[[], None]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, action)

    # Commands

    def _on_signal(self, reading: int) -> None:
        for number in os.read(reading, 64):
            name = signal.Signals(number).name
            if number in SUSPENDING:
                self.control.suspend(f"by {name}")
            else:
                self.control.stop(f"stopped by {name}")

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

    def _write_state(self, now: state.WardenState, detail: str = "") -> None:
        """Write warden.json; a failure is logged."""
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
    orphan_reaper.fork_reaper(warden.token, warden.limits.kill_seconds)
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
