"""One attempt of one run, from the engine's start to its End in the journal.

Nothing here blocks: the warden's loop calls `read_events` and `tick` at every beat. Exactly one End
is written, after no process of the engine is left.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Set
from pathlib import Path

from engines import messages, protocol
from engines.messages import Cause
from engines.protocol import RunSpec
from workbench.processes import engine_process, gpu_selection, tree
from workbench.processes.shutdown import Shutdown
from workbench.processes.watchdog import HangDetector, RateLimit, SuspendDetector
from workbench.suites import oom_retry
from workbench.suites.journal import LineSplitter
from workbench.supervisor import exit_cause
from workbench.supervisor.context import SupervisorContext
from workbench.supervisor.event_log import EventLog
from workbench.supervisor.run_gpus import AttemptGpus
from workbench.telemetry.proc import TreeMeter

SAMPLED_KINDS = frozenset({"memory", "done", "failed"})
"""Kinds of messages after which the engine may exit: its memory peak is read at once."""


RATE_LIMITED = frozenset({"step", "progress", "notice"})
"""At most `Limits.messages_per_second` messages of these and of unknown kinds are kept."""


class EngineAttempt:
    """One attempt of a run; `ended` is true once its End is written."""

    def __init__(
        self,
        folder: Path,
        spec: RunSpec,
        context: SupervisorContext,
        cores: Set[int] = frozenset(),
    ) -> None:
        """`spec`: with the GPUs of its lane; `cores`: of its lane; empty: all of the warden."""
        self.folder = folder
        self.spec = spec
        self.shared_host: set[str] = set()
        """Ids of other runs of the suite, and names of other suites, at work meanwhile."""
        self._cores = cores
        self._token = tree.make_attempt_token(context.token)
        self.context = context
        self.limits = context.limits
        self.event_log = EventLog(
            folder, context.reserve, keep_going=spec.on_disk_full == "continue"
        )
        self.counts: Counter[str] = Counter()
        self.ended = False
        self.contaminated = False
        self.exit_fd = -1
        """Descriptor that the warden's loop watches for the engine's exit; -1: none."""
        self.engine: engine_process.EngineProcess | None = None
        self.retry: messages.Oom | None = None
        """After an OOM: what the next attempt does with less memory; None: there is none."""
        self.counts["torn_journal_lines"] = self.event_log.sealed
        self._splitter = LineSplitter(self.limits.line_bytes)
        self._rate = RateLimit(self.limits.messages_per_second)
        self._suspend_detector = SuspendDetector()
        self._stop_cause: Cause | None = None
        self._stop_detail = self._protocol_error = ""
        self._exit_at: float | None = None
        self._exit_t = 0.0
        self._pipe_open = True
        self._sample_due = self._slow_due = self._pss_due = 0.0
        self._peak: int | None = None
        self._gpus = AttemptGpus(spec, context.gpus, os.environ)
        self._cpu_start = time.process_time()
        self._sampler_start = context.gpus.cpu_seconds
        self._oom_start = exit_cause.count_oom_kills()
        self._log_start = 0

    def start(self) -> None:
        """Start the engine. If its process cannot be made, the attempt ends as `failed`."""
        number = self.event_log.state.attempt + 1
        if number > 1:
            engine_process.mark_attempt(self.folder, number)
        self._log_start = engine_process.log_size(self.folder)
        smaller = oom_retry.overrides(self.event_log.state)
        variables = engine_process.engine_environment(
            os.environ, self.spec, self._token, number, smaller,
            self.context.gpus.known_gpus(),
        )  # fmt: skip
        try:
            self.engine = engine_process.start_engine(
                self.context.command, self.folder, variables, self.context.life_fd,
                self.limits.pipe_bytes, self._cores,
            )  # fmt: skip
        except engine_process.EngineStartError as error:
            self.event_log.write(messages.Attempt(number=number, pid=0))
            self._write_end("failed", str(error), engine_process.ExitStatus())
            return
        root = self.engine.process
        log = os.path.realpath(self.folder / "engine.log")
        self.tree = tree.Tree(root, self._token, os.getpid(), log=log)
        self.context.engine_pids.add(root.pid)
        self._protect_others()
        several = protocol.count_ranks(self.spec.params) > 1
        grace = self.limits.ranks_grace_seconds if several else self.limits.grace_seconds
        self.shutdown = Shutdown(self.tree, self.limits, grace)
        self.meter = TreeMeter(root.pid)
        self.hang_detector = HangDetector(self.limits, time.monotonic())
        visible = {"cuda_visible_devices": variables.get(gpu_selection.VISIBLE)}
        cores = {"cores": len(self._cores)} if self._cores else {}
        environment = {**self.context.environment, **visible, **cores}
        self.event_log.write(messages.Attempt(number=number, pid=root.pid, environment=environment))

    def request_stop(self, cause: Cause, detail: str) -> None:
        """Start the shutdown with `cause`; a repeated request goes to its next stage."""
        if self._stop_cause is None:
            self._stop_cause, self._stop_detail = cause, detail
        if self.engine is not None and self._exit_at is None:
            self._protect_others()
            self.shutdown.escalate(time.monotonic())

    @property
    def stopping(self) -> bool:
        """The shutdown of the engine has started."""
        return self.engine is not None and self.shutdown.stage > 0

    def read_events(self) -> None:
        """Read at most `Limits.turn_bytes` from the event pipe and write them to the journal."""
        if self.engine is None or not self._pipe_open:
            return
        remaining = self.limits.turn_bytes
        while remaining > 0:
            try:
                data = os.read(self.engine.event_fd, 65_536)
            except BlockingIOError:
                break
            if not data:
                self._pipe_open = False
                break
            remaining -= len(data)
            for line in self._splitter.feed(data):
                self._receive(line)
        if self.event_log.size > self.limits.journal_bytes:
            self._stop_for_protocol_error(f"more than {self.limits.journal_bytes} bytes of events")

    def _receive(self, line: bytes) -> None:
        now = time.monotonic()
        try:
            message = protocol.decode(line)
        except (ValueError, RecursionError):
            self.counts["malformed_lines"] += 1
            return
        kind = str(getattr(message, "kind", ""))
        if self.event_log.state.done is not None or self.event_log.state.failed is not None:
            self.counts["messages_after_the_last"] += 1
            return
        unknown = isinstance(message, messages.Unknown)
        self.counts["unknown_messages"] += unknown
        if (unknown or kind in RATE_LIMITED) and not self._rate.allows(now):
            self.counts["messages_dropped_by_warden"] += 1
            return
        self.hang_detector.record_message(message, now)
        self.event_log.write(message, "engine")
        self._gpus.receive(message)
        if isinstance(message, messages.Hello) and message.protocol != messages.PROTOCOL:
            self._stop_for_protocol_error(
                f"the engine speaks protocol {message.protocol}, the warden {messages.PROTOCOL}"
            )
        if isinstance(message, messages.Phase):
            if message.name == "save":
                self.shutdown.extend_for_save(now)
            self.context.gpus.mark()
            self._sample(now, peak=True, pss=now >= self._pss_due)
        elif kind in SAMPLED_KINDS:
            self._sample(now, peak=True)

    def _stop_for_protocol_error(self, problem: str) -> None:
        self._protocol_error = self._protocol_error or problem
        if not self.stopping:
            self.shutdown.escalate(time.monotonic())

    def tick(self, now: float) -> None:
        """Clock-driven work (`now`: CLOCK_MONOTONIC): exit, deadlines, samples, sync."""
        if self.engine is None or self.ended:
            return
        self._protect_others()
        self.shutdown.tick(now)
        if self._exit_at is None and self.engine.poll() is not None:
            self._exit_at, self._exit_t = now, self.engine.now()
        if self._exit_at is not None:
            self._drain(now)
            return
        if self.shutdown.stage == 3 and self.shutdown.survivors:
            self._finish()  # what cannot be killed is named, and nobody waits for it
            return
        soon = now + self.limits.beat_seconds / 2  # rather at this beat than half a beat late
        if soon >= self._slow_due:
            self._slow_due = max(self._slow_due, now) + self.limits.slow_seconds
            self._check_tree(now)
        if soon >= self._sample_due:
            self._sample_due = max(self._sample_due, now) + self.limits.sample_seconds
            self._sample(now)
        self.event_log.sync()
        if self.event_log.problem and not self.stopping:
            self.shutdown.escalate(now)

    def _protect_others(self) -> None:
        """Tell the tree what it must not kill: the sampler may be new, another engine started."""
        others = self.context.engine_pids - {self.tree.root.pid}
        self.tree.protected = self.context.protected_pids - {self.tree.root.pid}
        self.tree.alone = not others

    def next_deadline(self) -> float:
        """Latest time of the next `tick`, if no beat comes before it (CLOCK_MONOTONIC)."""
        if self._exit_at is not None:
            return 0.0 if not self._pipe_open else self._exit_at + self.limits.drain_seconds
        return self.shutdown.deadline if self.engine is not None else 0.0

    def _check_tree(self, now: float) -> None:
        """Once a second: members of the process tree, length of engine.log, progress."""
        count = self._refresh_tree()
        tree.reap_children(os.getpid(), self.tree.protected | {self.tree.root.pid})
        self._peak = self.meter.peak_main() or self._peak
        if count > self.limits.processes:
            self._protocol_error = f"more than {self.limits.processes} processes"
            self.shutdown.kill()
        self.counts["engine_log_bytes_cut"] += engine_process.trim_log(
            self.folder, self.limits.log_bytes
        )
        if not self.stopping:
            self._check_progress(now)

    def _refresh_tree(self) -> int:
        """Update the processes that the meter reads; returns how many there are."""
        pids = tree.descendant_pids(self.tree.root.pid, self.limits.processes * 2)
        listed = {*pids, *self.tree.protected}
        if not self.tree.alone:
            self.tree.note_members(pids)
        children = tree.child_pids(os.getpid())
        adopted = [pid for pid in children if pid not in listed and self.tree.owns(pid)]
        self.meter.watch([*pids, *adopted])
        return len(pids) + len(adopted)

    def _check_progress(self, now: float) -> None:
        if seconds := self._suspend_detector.suspended_seconds():
            text = (
                f"the machine slept for {seconds:.0f} s; times of these steps are not measurements"
            )
            self.event_log.write(
                messages.Notice(t=self._seconds(), code="machine-slept", text=text)
            )
        quiet, phase = self.hang_detector.idle_seconds(now), self.event_log.state.phase or "?"
        if (root := tree.read_process(self.tree.root.pid)) is not None and root.state in "Tt":
            if self.hang_detector.newly_suspended(now):
                text = "a signal has stopped the engine (SIGSTOP); SIGCONT lets it go on"
                self.event_log.write(
                    messages.Notice(t=self._seconds(), code="suspended", text=text)
                )
        elif self.hang_detector.is_hung(now):
            self.request_stop("hung", f"no progress for {quiet:.0f} s in phase {phase}")
        elif self.hang_detector.newly_stalled(now):
            dumped = self.hang_detector.dump_stacks(self.tree.root)
            note = "; its stacks are in engine.log" if dumped else ""
            text = f"no progress for {quiet:.0f} s in phase {phase}{note}"
            self.event_log.write(messages.Notice(t=self._seconds(), code="stalled", text=text))

    def _sample(self, now: float, *, peak: bool = False, pss: bool = False) -> None:
        if self._exit_at is not None:
            return
        if pss:
            self._pss_due = now + self.limits.pss_seconds
            self._refresh_tree()
        reading = self.meter.read()
        if peak:
            self._peak = self.meter.peak_main() or self._peak
        gpus, reason = self._gpus.read(self.meter.pids)
        if not self.contaminated and (
            foreign := self._gpus.count_foreign_processes(self.meter.pids)
        ):
            self.contaminated = True
            text = f"{foreign} processes of others compute on the GPU; times are theirs too"
            self.event_log.write(messages.Notice(t=self._seconds(), code="other-tenant", text=text))
        sample = messages.Sample(
            t=self._seconds(),
            rss_main=reading.rss_main,
            rss_main_peak=self._peak,
            rss_tree=reading.rss_tree,
            pss_tree=self.meter.pss() if pss else None,
            cpu_percent=reading.cpu_percent,
            processes=reading.processes,
            gpus=gpus,
            gpu_reason=reason,
        )
        self.event_log.write(sample)

    def _drain(self, now: float) -> None:
        """After the exit: read what is left in the pipe, at most for `Limits.drain_seconds`."""
        assert self._exit_at is not None  # noqa: S101 - tick has just set it
        self.read_events()
        if not self._pipe_open or now - self._exit_at >= self.limits.drain_seconds:
            if self._pipe_open:
                self.counts["pipe_held_open"] = 1
            self._finish()

    def _finish(self) -> None:
        """Kill what is left of the tree, decide the exit cause and write the End."""
        assert self.engine is not None  # noqa: S101 - only called after a start
        self.shutdown.kill()
        self._measure_released_vram()
        status = self.engine.poll() or engine_process.ExitStatus()
        self._exit_t = self._exit_t or self.engine.now()
        evidence = exit_cause.ExitEvidence(
            status=status,
            done=self.event_log.state.done is not None,
            failed=self.event_log.state.failed,
            stop_cause=self._stop_cause,
            stop_detail=self._stop_detail,
            protocol_error=self._protocol_error,
            storage_error=self.event_log.problem,
            artifact_problems=exit_cause.find_artifact_problems(
                self.event_log.state.artifacts, self.folder
            ),
            log_tail=self._log_tail(),
            oom_kills=exit_cause.count_oom_kills() - self._oom_start,
        )
        cause, detail = exit_cause.decide_cause(evidence)
        if cause == "oom-cuda":
            self.retry = oom_retry.next_attempt(self.spec, self.event_log.state)
            detail += oom_retry.describe_outcome(self.retry, self.event_log.state)
            if self.retry is not None:
                self.event_log.write(self.retry.model_copy(update={"t": self._exit_t}))
        for notice in self._gpus.notices(self._exit_t):
            self.event_log.write(notice)
        self._write_end(cause, detail, status)
        self.meter.close()
        self.engine.close()
        self.context.engine_pids.discard(self.engine.pid)

    def _log_tail(self) -> str:
        """The last 16 KiB of what this attempt, and no earlier one, wrote to engine.log."""
        path = self.folder / "engine.log"
        size = engine_process.log_size(self.folder) - self._log_start
        # Shorter than at the start: its middle was cut out, and the end is this attempt's.
        return engine_process.tail_log(path, 16_384 if size < 0 else min(size, 16_384))

    def _measure_released_vram(self) -> None:
        """Count VRAM released and VRAM still held; a driver needs a moment after a SIGKILL."""
        last = self.event_log.state.sample
        if last is not None and last.gpus:
            deadline = time.monotonic() + self.limits.vram_seconds
            vram = self._gpus.wait_for_release(last.gpus, tuple(self.meter.pids), deadline)
            self.counts["vram_held_bytes"] += vram.held
            self.counts["vram_given_back_bytes"] += vram.released

    def _write_end(self, cause: Cause, detail: str, status: engine_process.ExitStatus) -> None:
        shutdown = self.shutdown if self.engine is not None else None
        self.event_log.write(
            messages.End(
                t=self._exit_t,
                cause=cause,
                exit_code=status.code,
                signal=status.signal,
                detail=detail,
                killed=tuple(shutdown.killed) if shutdown else (),
                survivors=tuple(shutdown.survivors) if shutdown else (),
                counters=self._counters(),
                shared_host=tuple(sorted(self.shared_host)),
            )
        )
        self.event_log.close()
        self.ended = True

    def _counters(self) -> dict[str, float]:
        if self._splitter.torn:
            self.counts["torn_lines"] += 1
        self.counts["oversize_lines"] = self._splitter.oversize
        self.counts["journal_entries_lost"] = self.event_log.lost
        self.counts["contaminated"] = int(self.contaminated)
        used = self.context.gpus.cpu_seconds - self._sampler_start
        return {
            **{name: float(value) for name, value in self.counts.items() if value},
            "wall_seconds": self._exit_t,
            "warden_cpu_seconds": time.process_time() - self._cpu_start,
            "sampler_cpu_seconds": used,
        }

    def _seconds(self) -> float:
        return self.engine.now() if self.engine else 0.0

    def abort(self) -> None:
        """Kill the tree because the warden fails; `recover_dead_suite` writes the End later."""
        if self.engine is not None and not self.ended:
            self.shutdown.kill()
