"""The warden: owns one suite, runs its runs one after the other, and outlives whoever started it.

    python -m workbench.supervisor.warden SUITE [--life-fd N] [--share] [--resume]

One thread, one `selectors` loop, no torch. It is the only one who starts, measures, stops and waits
for engines, and the only writer of journals and records. A person steers it through control.jsonl;
signals and the end of the life pipe mean "stop".
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import secrets
import selectors
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines.protocol import Cause, End, Entry, RunSpec
from workbench import paths
from workbench.processes import device_locks, engine_process, gpu_selection, orphan_reaper, tree
from workbench.processes.limits import Limits
from workbench.suites import state, suite, trials
from workbench.suites.journal import JournalBusyError, JournalLostError, Tail
from workbench.supervisor import run_records
from workbench.supervisor.attempt import Attempt, Setting
from workbench.supervisor.control_queue import Orders
from workbench.supervisor.event_log import leave_out
from workbench.telemetry import environment
from workbench.telemetry.gpus import GpuWatch
from workbench.tuning.searcher_process import Searching

REFRESH_SECONDS = 20.0
"""warden.json is written anew so often: readers on other hosts have no other sign of life."""


class Warden:
    """Runs one suite. `run` returns when nothing of it is left to do."""

    def __init__(
        self,
        folder: Path,
        *,
        command: Sequence[str] = engine_process.ENGINE_COMMAND,
        limits: Limits | None = None,
        life_fd: int = -1,
        share: bool = False,
        resume: bool = False,
    ) -> None:
        self.folder = folder
        self.limits = limits or Limits.from_environment()
        self.token = secrets.token_hex(16)
        self._command = command
        self._share = share
        self._life_fd = life_fd
        self._resume = resume
        self.orders = Orders(folder, resumed=resume)
        self._beat_due = self._refresh_due = 0.0
        self._causes: dict[str, str] = {}
        self._reserve = folder / ".reserve"
        self._logged: set[str] = set()
        self._attempt: Attempt | None = None

    def run(self) -> None:
        """Everything, from the first run to the last record."""
        self._become_warden()
        self._say("starting")
        variables = {**os.environ, **paths.module_path(os.environ)}
        self.gpus = GpuWatch(self.limits, variables)
        common = trials.base(self.folder)
        self._searching = Searching(self.folder, variables) if common else None
        try:
            self._setting = self._make_setting()
            runs = suite.runs(self.folder)
            specs = [spec for _, spec in runs] + ([common.spec] if common else [])
            self._locks = self._make_locks(specs)
            for run, spec in self._all_runs(runs):
                try:
                    self._one(run, spec)
                except (JournalBusyError, JournalLostError) as error:
                    self._give_up(run, spec, error)
            self._locks.release()
            trouble = self._searching.trouble if self._searching is not None else ""
            self._say("ended", self.orders.stopped or trouble)
        finally:
            if self._attempt is not None:
                self._attempt.abort()
            self.gpus.stop()
            if self._searching is not None:
                self._searching.stop()
            self._reserve.unlink(missing_ok=True)

    def _become_warden(self) -> None:
        os.umask(0o077)
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # cores hold data and secrets
        tree.become_subreaper()
        self._file = suite.WardenFile(
            pid=os.getpid(),
            start_ticks=tree.start_ticks(os.getpid()),
            host=socket.gethostname(),
            place=tree.pid_place(),
            token=self.token,
            state="starting",
            started_wall=time.time(),
        )
        self._selector = selectors.DefaultSelector()
        reading, writing = os.pipe()
        for end in (reading, writing):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._watch(reading, lambda: self._on_signal(reading))
        if self._life_fd >= 0:
            os.set_inheritable(self._life_fd, False)
            self._watch(self._life_fd, self._on_life)

    def _make_setting(self) -> Setting:
        self.gpus.start()
        self.gpus.wait_for_facts(gpu_selection.answer_seconds())
        life, _writing = os.pipe()  # nobody writes; its end stays open here as long as we live
        return Setting(
            limits=self.limits,
            token=self.token,
            life_fd=life,
            command=tuple(self._command),
            gpus=self.gpus,
            environment=self._environment(),
            reserve=self._make_reserve(),
            searching=self._searching,
        )

    def _environment(self) -> dict[str, Any]:
        gpus = self.gpus
        facts = environment.collect(gpus.known_gpus(), gpus.facts, gpus.reason)
        return facts.model_dump(mode="json")

    def _make_reserve(self) -> Path:
        with contextlib.suppress(OSError), self._reserve.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.limits.reserve_bytes)
        return self._reserve

    def _make_locks(self, specs: Sequence[RunSpec]) -> device_locks.DeviceLocks:
        gpus = self.gpus.known_gpus()
        used = [device_locks.devices_of(spec, os.environ, gpus) for spec in specs]
        return device_locks.DeviceLocks(set().union(*used), self.folder.name)

    # A search

    def _all_runs(self, known: Sequence[tuple[Path, RunSpec]]) -> Iterator[tuple[Path, RunSpec]]:
        """The runs in their order; in a search also those that are added while others run."""
        yield from known
        searching = self._searching
        while searching is not None and (found := self._next_trial(searching)) is not None:
            yield found

    def _next_trial(self, searching: Searching) -> tuple[Path, RunSpec] | None:
        """Wait for what the searcher asks for; None: nothing more will come."""
        while not self.orders.stopped:
            over = self.orders.closed or searching.ended  # before its last orders are read
            self._take_orders()
            if searching.admitted:
                return searching.admitted.popleft()
            if over:
                break
            self._say("running", "the searcher chooses the next trial")
            self._turn(time.monotonic() + self.limits.beat_seconds)
        return None

    # One run

    def _one(self, run: Path, spec: RunSpec) -> None:
        before = state.fold(Tail(run / "events.jsonl").read_all())
        going = before.end is None or (self._resume and state.unfinished(before))
        while going:
            if (reason := self._may_not_start(spec)) is None:
                before, going = self._attempt_at(run, spec)
                continue
            if before.end is None:  # otherwise the End that it has stays its last word
                before = leave_out(run, *reason)
                self._keep(spec, run, before)
            break
        self._causes[spec.run_id] = before.cause

    def _attempt_at(self, run: Path, spec: RunSpec) -> tuple[state.RunState, bool]:
        """One attempt from start to record; True: a smaller one is to follow."""
        self._say("running", spec.run_id)
        if self.gpus.facts and not self._setting.environment["gpus"]:  # the driver was slow
            self._setting = replace(self._setting, environment=self._environment())
        attempt = self._attempt = self.orders.current = Attempt(run, spec, self._setting)
        attempt.contaminated = self._locks.contaminated()
        attempt.start()
        with self._woken_by_exit(attempt):
            while not attempt.ended:
                self._turn(attempt.due())
                attempt.tick(time.monotonic())
        self._attempt = self.orders.current = None
        self._keep(spec, run, attempt.book.state)
        if attempt.book.state.cause == "pruned":  # it never goes on, and there may be hundreds
            shutil.rmtree(run / "checkpoints", ignore_errors=True)
        return attempt.book.state, attempt.rung is not None

    def _give_up(self, run: Path, spec: RunSpec, error: Exception) -> None:
        """A run without a journal leaves a record, if that at least can be written."""
        log(f"{spec.run_id}: {error}")
        end = End(cause="storage-lost", detail=f"the journal cannot be written: {error}")
        entry = Entry(seq=0, wall=time.time(), src="warden", msg=end)
        self._keep(spec, run, state.fold([entry]))

    def _may_not_start(self, spec: RunSpec) -> tuple[Cause, str, str] | None:
        """Wait until nothing is in the way (None), or say why the run is not to start at all."""
        self._take_orders()
        while (reason := self._why_not(spec)) is None:
            if self.orders.holding:
                self._say("holding", f"before {spec.run_id}")
            elif self._locks.acquire():
                return None
            elif self._share:
                self._locks.share()
                return None
            else:
                self._say("queued", f"behind {self._locks.behind}")
            self._turn(time.monotonic() + self.limits.beat_seconds)
        return reason

    def _why_not(self, spec: RunSpec) -> tuple[Cause, str, str] | None:
        """Cause, sentence, and the need that is to blame."""
        if (order := self.orders.about(spec.run_id)) is not None:
            return *order, ""
        for need in spec.needs:
            if (cause := self._causes.get(need)) != "completed":
                how = f"ended as {cause}" if cause else "is no earlier run of this suite"
                return "skipped", f"needs {need}, which {how}", need
        return None

    def _keep(self, spec: RunSpec, run: Path, ended: state.RunState) -> None:
        """The record, in the run's folder and in the log root."""
        self._causes[spec.run_id] = ended.cause
        try:
            run_records.keep_record(self.folder, run, spec, ended, self._reserve)
        except OSError as error:
            log(f"{spec.run_id}: its record cannot be written: {error}")
            lost = self._file.records_lost + 1
            self._file = self._file.model_copy(update={"records_lost": lost})

    # The loop

    def _turn(self, due: float) -> None:
        """Wait for something to happen, at most until `due`, and handle it."""
        wait = min(due, self._beat_due, self._refresh_due) - time.monotonic()
        for key, _ in self._selector.select(max(0.0, wait)):
            key.data()
        now = time.monotonic()
        if now >= self._beat_due:
            self._beat_due = now + self.limits.beat_seconds
            self._beat()
        if now >= self._refresh_due:
            self._say(self._file.state, self._file.detail)
        current = self._attempt
        if current is not None and current.stopping and self._file.state == "running":
            self._say("stopping", current.spec.run_id)

    def _beat(self) -> None:
        """Everything periodic. An OSError of one part costs its part of this beat only.

        The folder of the locks may be removed while a run works, a device or a disk may answer
        with an error for a while; none of it is a reason to lose a training.
        """
        parts: list[Callable[[], object]] = [
            self._take_orders,
            self.gpus.receive,
            self.gpus.start,  # again, if it died
        ]
        if self._searching is not None:
            parts.append(self._searching.look)
        if self._attempt is not None:
            parts += [self._look_for_company, self._attempt.pump]
        for part in parts:
            try:
                part()
            except OSError as error:
                self._log_once(f"{part.__name__}: {error}")
        attempt = self._attempt
        if attempt is not None and attempt.book.full and self._file.state == "running":
            self._say("running", f"{attempt.spec.run_id}: the disk is full")

    def _look_for_company(self) -> None:
        if self._attempt is not None:
            self._attempt.contaminated |= self._locks.contaminated()

    def _log_once(self, text: str) -> None:
        if text not in self._logged:
            self._logged.add(text)
            log(text)

    @contextlib.contextmanager
    def _woken_by_exit(self, attempt: Attempt) -> Iterator[None]:
        """The end of the engine ends a `_turn`; `tick` then asks for the status.

        Nothing else of an attempt does. Reading events at every beat, instead of waking for every
        message, costs a third of the CPU, and the pipe's MiB holds far more than a beat's worth.
        """
        pidfd = attempt.engine.pidfd if attempt.engine is not None else -1
        watched = pidfd >= 0

        def seen() -> None:
            nonlocal watched
            watched = False
            self._selector.unregister(pidfd)

        if watched:
            self._watch(pidfd, seen)
        yield
        if watched:  # it could not be killed
            self._selector.unregister(pidfd)

    def _watch(self, descriptor: int, action: Callable[[], None]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, action)

    # What people want

    def _on_signal(self, reading: int) -> None:
        for number in os.read(reading, 64):
            self.orders.stop(f"stopped by {signal.Signals(number).name}")

    def _on_life(self) -> None:
        if not os.read(self._life_fd, 64):
            self._selector.unregister(self._life_fd)
            self.orders.stop("stopped because the command that started it has ended")

    def _take_orders(self) -> None:
        for order in self.orders.poll():
            log(f"order: {order.do} {order.run or ''} by {order.by}")
        if self._searching is not None and self.orders.added:
            added, self.orders.added = self.orders.added, []
            for refusal in self._searching.admit(added):
                log(f"not admitted: {refusal}")

    def _say(self, now: state.WardenState, detail: str = "") -> None:
        """Write warden.json, if it says something new or is getting old."""
        clock = time.monotonic()
        if (self._file.state, self._file.detail) == (now, detail) and clock < self._refresh_due:
            return
        self._refresh_due = clock + REFRESH_SECONDS
        self._file = self._file.model_copy(
            update={"state": now, "detail": detail, "updated_wall": time.time()}
        )
        try:
            suite.write_warden(self.folder, self._file)
        except OSError as error:
            log(f"warden.json cannot be written: {error}")


def log(text: str) -> None:
    """One line into warden.log, where stderr goes."""
    with contextlib.suppress(OSError):  # a full disk
        os.write(2, f"{time.strftime('%H:%M:%S')} {text}\n".encode("utf-8", "replace"))


def serve(warden: Warden) -> int:
    """Run it as the only warden of its suite; the exit status of the process."""
    held = device_locks.take(warden.folder / "warden.lock")
    if held is None:
        who = device_locks.held_by(warden.folder / "warden.lock")
        known = f" ({who})" if who else ""
        log(f"{warden.folder.name} has a warden already{known}; `workbench attach` shows it")
        return 2
    orphan_reaper.stand(warden.token, warden.limits.kill_seconds)
    try:
        warden.run()
    except (suite.SuiteError, ValueError) as error:
        log(str(error))
        return 1
    return 0


def main() -> int:
    """Entry point of `python -m workbench.supervisor.warden`."""
    parser = argparse.ArgumentParser(prog="warden", description=__doc__)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--life-fd", type=int, default=-1, help="stop when this pipe closes")
    parser.add_argument("--share", action="store_true", help="run beside others on a device")
    parser.add_argument("--resume", action="store_true", help="start ended runs again")
    options = parser.parse_args()
    folder = options.suite.absolute()
    return serve(
        Warden(folder, life_fd=options.life_fd, share=options.share, resume=options.resume)
    )


if __name__ == "__main__":
    sys.exit(main())
