"""One attempt of one run, from the engine's start to its End in the journal.

Never waits: at every beat the warden's loop calls `pump`, to read what the engine said, and `tick`.
Whatever happens, one End is written, after nothing of the engine runs any more.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines import protocol
from engines.protocol import Cause, RunSpec
from workbench.processes import engine_process, gpu_selection, tree
from workbench.processes.limits import Limits
from workbench.suites import oom_retry
from workbench.suites.journal import LineSplitter
from workbench.supervisor import exit_cause
from workbench.supervisor.event_log import Book
from workbench.supervisor.run_gpus import AttemptGpus
from workbench.supervisor.shutdown import Ladder
from workbench.supervisor.watchdog import RateLimit, Silence, Sleep
from workbench.telemetry.gpus import GpuWatch
from workbench.telemetry.proc import TreeMeter
from workbench.tuning.searcher_process import Searching

SAMPLED_AT = frozenset({"memory", "done", "failed"})
"""After these the engine may be gone at once: its peak is read while it still has one."""


THINNED = frozenset({"step", "progress", "notice"})
"""Of these, and of kinds that nobody knows, no more than `messages_per_second` are kept."""


@dataclass(frozen=True)
class Setting:
    """What all attempts of a suite share."""

    limits: Limits
    token: str
    life_fd: int
    """Read end of the life pipe, inherited by engines."""
    command: Sequence[str]
    gpus: GpuWatch
    environment: Mapping[str, Any]
    """Content of `Attempt.environment`."""
    reserve: Path
    """A file that gives its blocks back when the disk is full, for the last words of a run."""
    searching: Searching | None = None
    """The suite is a search."""

    @property
    def spared(self) -> frozenset[int]:
        """Children of the warden that no stop ladder may touch."""
        searcher = self.searching.pid if self.searching else None
        return frozenset(pid for pid in (self.gpus.pid, searcher) if pid)


class Attempt:
    """A started run. `ended` turns true once its End is written."""

    def __init__(self, folder: Path, spec: RunSpec, setting: Setting) -> None:
        self.folder = folder
        self.spec = spec
        self.setting = setting
        self.limits = setting.limits
        self.book = Book(folder, setting.reserve, keep_going=spec.on_disk_full == "continue")
        self.counts: Counter[str] = Counter()
        self.ended = False
        self.contaminated = False
        self.engine: engine_process.Engine | None = None
        self.rung: protocol.Oom | None = None
        """After an OOM: the smaller attempt that follows this one."""
        self.counts["torn_journal_lines"] = self.book.sealed
        self._splitter = LineSplitter(self.limits.line_bytes)
        self._rate = RateLimit(self.limits.messages_per_second)
        self._sleep = Sleep()
        self._asked: Cause | None = None
        self._asked_detail = self._protocol_error = ""
        self._exit_at: float | None = None
        self._exit_t = 0.0
        self._pipe_open = True
        self._sample_due = self._slow_due = self._pss_due = 0.0
        self._peak: int | None = None
        self._gpus = AttemptGpus(spec, setting.gpus, os.environ)
        self._cpu_start = time.process_time()
        self._sampler_start = setting.gpus.cpu_seconds
        self._oom_start = exit_cause.oom_kills()
        self._log_start = engine_process.log_size(folder)

    def start(self) -> None:
        """Start the engine; an engine that cannot start has ended at once."""
        number = self.book.state.attempt + 1
        smaller = oom_retry.changes(self.book.state)
        variables = engine_process.environment(
            os.environ, self.spec, self.setting.token, number, smaller
        )
        try:
            self.engine = engine_process.start(
                self.setting.command, self.folder, variables, self.setting.life_fd,
                self.limits.pipe_bytes,
            )  # fmt: skip
        except engine_process.EngineStartError as error:
            self.book.write(protocol.Attempt(number=number, pid=0))
            self._end("failed", str(error), engine_process.Status())
            return
        root = self.engine.process
        self.tree = tree.Tree(root, self.setting.token, os.getpid(), self.setting.spared)
        ranks = self.spec.params.get("nproc_per_node", 1)
        several = isinstance(ranks, int) and ranks > 1
        grace = self.limits.torchrun_grace_seconds if several else self.limits.grace_seconds
        self.ladder = Ladder(self.tree, self.limits, grace)
        self.meter = TreeMeter(root.pid)
        self.silence = Silence(self.limits, time.monotonic())
        visible = {"cuda_visible_devices": variables.get(gpu_selection.VISIBLE)}
        environment = {**self.setting.environment, **visible}
        self.book.write(protocol.Attempt(number=number, pid=root.pid, environment=environment))

    def ask(self, cause: Cause, detail: str) -> None:
        """End this attempt, politely first; asking again climbs the ladder."""
        if self._asked is None:
            self._asked, self._asked_detail = cause, detail
        if self.engine is not None and self._exit_at is None:
            self.tree.spared = self.setting.spared
            self.ladder.climb(time.monotonic())

    @property
    def stopping(self) -> bool:
        """Somebody, or a rule, has asked the engine to end."""
        return self.engine is not None and self.ladder.rung > 0

    def pump(self) -> None:
        """Read what the engine said, a bounded amount, and journal it."""
        if self.engine is None or not self._pipe_open:
            return
        left = self.limits.turn_bytes
        while left > 0:
            try:
                data = os.read(self.engine.event_fd, 65_536)
            except BlockingIOError:
                break
            if not data:
                self._pipe_open = False
                break
            left -= len(data)
            for line in self._splitter.feed(data):
                self._receive(line)
        if self.book.size > self.limits.journal_bytes:
            self._break_off(f"more than {self.limits.journal_bytes} bytes of events")

    def _receive(self, line: bytes) -> None:
        now = time.monotonic()
        try:
            message = protocol.decode(line)
        except (ValueError, RecursionError):
            self.counts["malformed_lines"] += 1
            return
        kind = str(getattr(message, "kind", ""))
        if self.book.state.done is not None or self.book.state.failed is not None:
            self.counts["messages_after_the_last"] += 1
            return
        unknown = isinstance(message, protocol.Unknown)
        self.counts["unknown_messages"] += unknown
        if (unknown or kind in THINNED) and not self._rate.allows(now):
            self.counts["messages_dropped_by_warden"] += 1
            return
        self.silence.heard(message, now)
        self.book.write(message, "engine")
        self._gpus.receive(message)
        if isinstance(message, protocol.Hello) and message.protocol != protocol.PROTOCOL:
            self._break_off(
                f"the engine speaks protocol {message.protocol}, the warden {protocol.PROTOCOL}"
            )
        if isinstance(message, protocol.Phase):
            if message.name == "save":
                self.ladder.saves(now)
            self.setting.gpus.mark()
            self._sample(now, peak=True, pss=now >= self._pss_due)
        elif kind in SAMPLED_AT:
            self._sample(now, peak=True)

    def _break_off(self, problem: str) -> None:
        self._protocol_error = self._protocol_error or problem
        if not self.stopping:
            self.ladder.climb(time.monotonic())

    def tick(self, now: float) -> None:
        """Everything that depends on the clock."""
        if self.engine is None or self.ended:
            return
        self.tree.spared = self.setting.spared  # the sampler may be a new one
        self.ladder.tick(now)
        if self._exit_at is None and self.engine.poll() is not None:
            self._exit_at, self._exit_t = now, self.engine.now()
        if self._exit_at is not None:
            self._drain(now)
            return
        if self.ladder.rung == 3 and self.ladder.survivors:
            self._finish()  # what cannot be killed is named, and nobody waits for it
            return
        soon = now + self.limits.beat_seconds / 2  # rather at this beat than half a beat late
        if soon >= self._slow_due:
            self._slow_due = max(self._slow_due, now) + self.limits.slow_seconds
            self._look_after(now)
        if soon >= self._sample_due:
            self._sample_due = max(self._sample_due, now) + self.limits.sample_seconds
            self._sample(now)
        self.book.sync()
        if self.book.problem and not self.stopping:
            self.ladder.climb(now)

    def due(self) -> float:
        """When `tick` must be called, if not at a beat before (CLOCK_MONOTONIC)."""
        if self._exit_at is not None:
            return 0.0 if not self._pipe_open else self._exit_at + self.limits.drain_seconds
        return self.ladder.deadline if self.engine is not None else 0.0

    def _look_after(self, now: float) -> None:
        """Once a second: who belongs to the tree, is the log too long, does it still move?"""
        count = self._refresh_tree()
        tree.reap(os.getpid(), self.tree.spared | {self.tree.root.pid})
        self._peak = self.meter.peak_main() or self._peak
        if count > self.limits.processes:
            self._protocol_error = f"more than {self.limits.processes} processes"
            self.ladder.kill()
        self.counts["engine_log_bytes_cut"] += engine_process.trim_log(
            self.folder, self.limits.log_bytes
        )
        if not self.stopping:
            self._mind_silence(now)

    def _refresh_tree(self) -> int:
        """Measure what belongs to the tree now; returns how many processes that are."""
        pids = tree.descendants(self.tree.root.pid, self.limits.processes * 2)
        known = {*pids, *self.tree.spared}
        adopted = [pid for pid in tree.children(os.getpid()) if pid not in known]
        self.meter.watch([*pids, *adopted])
        return len(pids) + len(adopted)

    def _mind_silence(self, now: float) -> None:
        if seconds := self._sleep.slept():
            text = (
                f"the machine slept for {seconds:.0f} s; times of these steps are not measurements"
            )
            self.book.write(protocol.Notice(t=self._t(), code="machine-slept", text=text))
        quiet, phase = self.silence.seconds(now), self.book.state.phase or "?"
        if (root := tree.look(self.tree.root.pid)) is not None and root.state in "Tt":
            if self.silence.newly_suspended(now):
                text = "a signal has stopped the engine (SIGSTOP); SIGCONT lets it go on"
                self.book.write(protocol.Notice(t=self._t(), code="suspended", text=text))
        elif self.silence.hung(now):
            self.ask("hung", f"no progress for {quiet:.0f} s in phase {phase}")
        elif self.silence.newly_stalled(now):
            dumped = self.silence.dump_stacks(self.tree.root)
            where = "; its stacks are in engine.log" if dumped else ""
            text = f"no progress for {quiet:.0f} s in phase {phase}{where}"
            self.book.write(protocol.Notice(t=self._t(), code="stalled", text=text))

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
        if not self.contaminated and (strangers := self._gpus.strangers(self.meter.pids)):
            self.contaminated = True
            text = f"{strangers} processes of others compute on the GPU; times are theirs too"
            self.book.write(protocol.Notice(t=self._t(), code="other-tenant", text=text))
        sample = protocol.Sample(
            t=self._t(),
            rss_main=reading.rss_main,
            rss_main_peak=self._peak,
            rss_tree=reading.rss_tree,
            pss_tree=self.meter.pss() if pss else None,
            cpu_percent=reading.cpu_percent,
            processes=reading.processes,
            gpus=gpus,
            gpu_reason=reason,
        )
        self.book.write(sample)

    def _drain(self, now: float) -> None:
        """The engine is gone; read its last words, but do not wait for who holds its pipe."""
        assert self._exit_at is not None  # noqa: S101 - tick has just set it
        self.pump()
        if not self._pipe_open or now - self._exit_at >= self.limits.drain_seconds:
            if self._pipe_open:
                self.counts["pipe_held_open"] = 1
            self._finish()

    def _finish(self) -> None:
        """Clear away what is left, judge, and say so."""
        assert self.engine is not None  # noqa: S101 - only called after a start
        self.ladder.kill()
        self._count_vram()
        status = self.engine.poll() or engine_process.Status()
        self._exit_t = self._exit_t or self.engine.now()
        seen = exit_cause.Evidence(
            status=status,
            done=self.book.state.done is not None,
            failed=self.book.state.failed,
            asked=self._asked,
            asked_detail=self._asked_detail,
            protocol_error=self._protocol_error,
            storage_error=self.book.problem,
            artifact_problems=exit_cause.problems(self.book.state.artifacts, self.folder),
            last_words=self._last_words(),
            oom_kills=exit_cause.oom_kills() - self._oom_start,
        )
        cause, detail = exit_cause.judge(seen)
        if cause == "oom-cuda":
            self.rung = oom_retry.following(self.spec, self.book.state)
            detail += oom_retry.outcome(self.rung, self.book.state)
            if self.rung is not None:
                self.book.write(self.rung.model_copy(update={"t": self._exit_t}))
        for notice in self._gpus.notices(self._exit_t):
            self.book.write(notice)
        self._end(cause, detail, status)
        self.meter.close()
        self.engine.close()

    def _last_words(self) -> str:
        """The end of what this attempt wrote to engine.log; earlier attempts are in it too."""
        path = self.folder / "engine.log"
        size = engine_process.log_size(self.folder) - self._log_start
        # Shorter than at the start: its middle was cut out, and the end is this attempt's.
        return engine_process.tail_log(path, 16_384 if size < 0 else min(size, 16_384))

    def _count_vram(self) -> None:
        """Whether the GPUs have it all back; a driver takes a moment after a SIGKILL."""
        last = self.book.state.sample
        if last is None or not last.gpus:
            return
        watch, own = self.setting.gpus, tuple(self.meter.pids)
        shown = {gpu.index for gpu in last.gpus}
        deadline = time.monotonic() + self.limits.vram_seconds
        gpus = watch.fresh(own, shown, deadline)
        while any(gpu.process for gpu in gpus) and time.monotonic() < deadline:
            gpus = watch.fresh(own, shown, deadline) or gpus
        now = {gpu.index: gpu for gpu in gpus}
        for before in last.gpus:
            after = now.get(before.index)
            if after is None:
                continue
            self.counts["vram_held_bytes"] += after.process or 0
            if before.used is not None and after.used is not None:
                self.counts["vram_given_back_bytes"] += max(0, before.used - after.used)

    def _end(self, cause: Cause, detail: str, status: engine_process.Status) -> None:
        ladder = self.ladder if self.engine is not None else None
        self.book.write(
            protocol.End(
                t=self._exit_t,
                cause=cause,
                exit_code=status.code,
                signal=status.signal,
                detail=detail,
                killed=tuple(ladder.killed) if ladder else (),
                survivors=tuple(ladder.survivors) if ladder else (),
                counters=self._counters(),
            )
        )
        self.book.close()
        self.ended = True

    def _counters(self) -> dict[str, float]:
        if self._splitter.torn:
            self.counts["torn_lines"] += 1
        self.counts["oversize_lines"] = self._splitter.oversize
        self.counts["journal_entries_lost"] = self.book.lost
        self.counts["contaminated"] = int(self.contaminated)
        used = self.setting.gpus.cpu_seconds - self._sampler_start
        return {
            **{name: float(value) for name, value in self.counts.items() if value},
            "wall_seconds": self._exit_t,
            "warden_cpu_seconds": time.process_time() - self._cpu_start,
            "sampler_cpu_seconds": used,
        }

    def _t(self) -> float:
        return self.engine.now() if self.engine else 0.0

    def abort(self) -> None:
        """The warden itself fails: leave no process behind. The End is written by who buries it."""
        if self.engine is not None and not self.ended:
            self.ladder.kill()
