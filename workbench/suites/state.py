"""State of a run: a pure reducer over the entries of its journal.

Live view, headless output, re-attach and replay all call `advance`, and the record of a run is
computed from the same state. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import Any, Final, Literal

from engines import messages, protocol
from workbench.processes.lanes import LaneStatus
from workbench.suites.curves import NO_CURVE, Curve
from workbench.suites.energy import EnergyCounter
from workbench.suites.orders import NO_ORDERS, Orders

MAX_STEPS: Final = 1_024
"""Steps that are added together: no journal is in memory as a whole."""
MAX_NOTICES: Final = 50
"""Number of notices kept with their text; older ones only in `notice_counts`."""

CLOCK: Final = "clock"
SEEN_SAMPLES: Final = "seen_samples"
"""With `CLOCK` the curves over steps that give the other x axes of a chart."""
STEP_PARTS: Final = ("data_wait", "transfer", "forward", "backward", "optimizer")
"""Fields of a `Step` that its seconds consist of; `data_wait` is of the host, and may overlap."""

RunStatus = Literal["queued", "starting", "running", "ended"]

CLEAN_CAUSES: Final = frozenset({"completed", "pruned", "skipped", "stopped"})
"""Exit causes that need no attention."""

FULL_SHARE: Final = 0.9
"""Samples of a window against those of as many full batches."""


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """One phase of an attempt; times in seconds since the attempt's start. `end` is None while
    it lasts."""

    name: str
    start: float
    end: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunState:
    """State of one run after the entries read so far. Times in seconds, sizes in bytes."""

    status: RunStatus = "queued"
    attempt: int = 0
    pid: int | None = None
    started_wall: float | None = None
    ended_wall: float | None = None
    t: float = 0.0
    """Latest time of any message, in seconds since the attempt's start."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    hello: messages.Hello | None = None
    plan: messages.Plan | None = None
    phases: tuple[PhaseSpan, ...] = ()
    progress: messages.Progress | None = None
    step: int = 0
    samples: int = 0
    """Training samples seen, warm-up included."""
    last: messages.Step | None = None
    last_full: messages.Step | None = None
    """The last window without a short batch: the last one of an epoch may have 8 of 64 samples,
    whose in-batch r@1 has a different chance level."""
    timed_seconds: float = 0.0
    """Seconds of all windows after the warm-up; below their steps and samples."""
    timed_steps: int = 0
    skipped_steps: int = 0
    """Steps without a weight update, because their fp16 gradients overflowed."""
    timed_samples: int = 0
    timed_from: float = 0.0
    """When the first timed step began, on the clock of `t`."""
    timed_parts: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the timed steps by their parts, those of `STEP_PARTS` that the engine measures."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """`loss`, `lr`, `step_seconds`, `r@1`, … over steps; `rss_tree`, `vram`, `cpu`, … over t.
    `CLOCK` and `SEEN_SAMPLES` are t and the training samples at each step."""
    sample: messages.Sample | None = None
    peaks: Mapping[str, float] = field(default_factory=dict)
    energy: EnergyCounter = field(default_factory=EnergyCounter)
    metrics: tuple[messages.Metric, ...] = ()
    evaluations: tuple[messages.Evaluation, ...] = ()
    timing: messages.Timing | None = None
    epochs: tuple[messages.EpochSummary, ...] = ()
    stages: tuple[messages.StageSummary, ...] = ()
    forecast: messages.Forecast | None = None
    memory: Mapping[str, messages.Memory] = field(default_factory=dict)
    artifacts: tuple[messages.Artifact, ...] = ()
    notices: tuple[messages.Notice, ...] = ()
    notice_counts: Mapping[str, int] = field(default_factory=dict)
    ooms: tuple[messages.Oom, ...] = ()
    """OOMs of all attempts; each attempt starts with the settings of the last one."""
    done: messages.Done | None = None
    failed: messages.Failed | None = None
    end: messages.End | None = None
    message_count: int = 0
    unknown: int = 0
    """Number of messages of unknown kinds."""
    last_seq: int = -1
    gaps: int = 0
    """Number of journal entries missing between those read."""

    @property
    def phase(self) -> str:
        """The current or the last phase."""
        return self.phases[-1].name if self.phases else ""

    @property
    def cause(self) -> str:
        """Exit cause of the attempt; empty before its end."""
        return self.end.cause if self.end else ""

    @property
    def fraction(self) -> float | None:
        """Completed share of the current phase, 0 to 1; None: unknown."""
        if self.phase in ("train", "warmup") and self.plan and self.plan.steps:
            return min(1.0, self.step / self.last_step)
        if self.progress and self.progress.total:
            return min(1.0, self.progress.done / self.progress.total)
        return None

    @property
    def last_step(self) -> int:
        """The last training step; a cost probe stops before that of the plan."""
        return (self.plan.stop_at or self.plan.steps) if self.plan else 0

    @property
    def step_seconds(self) -> float | None:
        """Mean seconds of a timed step so far."""
        return self.timed_seconds / self.timed_steps if self.timed_steps else None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the last training step at the current rate; None outside training."""
        training = self.status == "running" and self.phase in ("train", "warmup")
        if not training or self.plan is None or not self.timed_steps:
            return None
        # An engine may spend time between steps, so the slower of both rates is used.
        wall = self.last.t - self.timed_from if self.last else 0.0
        seconds = max(self.timed_seconds, wall)
        return max(0, self.last_step - self.step) * seconds / self.timed_steps

    def phase_seconds(self) -> dict[str, float]:
        """Seconds by phase name, summed over its spans; the current phase counts up to `t`."""
        seconds: dict[str, float] = {}
        for span in self.phases:
            end = self.t if span.end is None else span.end
            seconds[span.name] = seconds.get(span.name, 0.0) + max(0.0, end - span.start)
        return seconds


def advance(state: RunState, entry: protocol.Entry) -> RunState:
    """The state after one more journal entry; entries with an old number are ignored."""
    if entry.seq <= state.last_seq:
        return state
    msg = entry.msg
    if isinstance(msg, messages.Step):
        return _add_steps(state, [entry])
    position: dict[str, Any] = {
        "message_count": state.message_count + 1,
        "last_seq": entry.seq,
        "gaps": state.gaps + max(0, entry.seq - state.last_seq - 1),
    }
    if isinstance(msg, messages.Attempt):
        return RunState(
            status="starting", attempt=msg.number, pid=msg.pid, started_wall=entry.wall,
            environment=msg.environment, unknown=state.unknown, ooms=state.ooms, **position,
        )  # fmt: skip
    changes = _changes(state, msg, entry.wall)
    return replace(state, t=max(state.t, msg.t), **position, **changes)


def reduce_entries(entries: Iterable[protocol.Entry], state: RunState | None = None) -> RunState:
    """`advance` over many entries, from `state` or the empty one; steps are added together."""
    state = state or RunState()
    for is_step, group in groupby(entries, lambda entry: isinstance(entry.msg, messages.Step)):
        if is_step:
            while steps := list(islice(group, MAX_STEPS)):
                state = _add_steps(state, steps)
        else:
            for entry in group:
                state = advance(state, entry)
    return state


def _add_steps(state: RunState, entries: Sequence[protocol.Entry]) -> RunState:
    """The state after entries that all are steps."""
    steps: list[messages.Step] = []
    t, last_seq, gaps = state.t, state.last_seq, state.gaps
    for entry in entries:
        if entry.seq > last_seq and isinstance(entry.msg, messages.Step):
            steps.append(entry.msg)
            t, gaps, last_seq = max(t, entry.msg.t), gaps + entry.seq - last_seq - 1, entry.seq
    if not steps:
        return state
    return replace(
        state, t=t, message_count=state.message_count + len(steps), last_seq=last_seq, gaps=gaps,
        **_step_changes(state, steps),
    )  # fmt: skip


def _changes(state: RunState, msg: messages.Message, wall: float) -> dict[str, Any]:
    """The fields that a message changes."""
    match msg:
        case messages.Sample():
            return _sample_changes(state, msg)
        case messages.Progress():
            return {"progress": msg}
        case messages.Phase():
            span = PhaseSpan(msg.name, msg.t, None, msg.detail)
            return {"phases": (*_close_phase(state, msg.t), span), "progress": None}
        case messages.Metric():
            return {"metrics": (*state.metrics, msg)}
        case messages.Notice():
            counts = {**state.notice_counts}
            counts[msg.code] = counts.get(msg.code, 0) + msg.count
            return {"notices": (*state.notices, msg)[-MAX_NOTICES:], "notice_counts": counts}
        case messages.Hello():
            return {"status": "running", "hello": msg}
        case messages.End():
            phases = _close_phase(state, msg.t)
            return {"status": "ended", "end": msg, "ended_wall": wall, "phases": phases}
        case _:
            return _rare_changes(state, msg)


_LISTED: Final = frozenset({"evaluations", "epochs", "stages", "artifacts", "ooms"})


def _rare_changes(state: RunState, msg: messages.Message) -> dict[str, Any]:
    single = (messages.Plan, messages.Timing, messages.Forecast, messages.Done, messages.Failed)
    if isinstance(msg, single):  # each has the field of its name
        return {msg.kind: msg}
    if (name := str(getattr(msg, "kind", "")) + "s") in _LISTED:  # all messages of a kind
        return {name: (*getattr(state, name), msg)}
    if isinstance(msg, messages.Memory):
        return {"memory": {**state.memory, msg.phase: msg}}
    return {"unknown": state.unknown + 1}


def _close_phase(state: RunState, t: float) -> tuple[PhaseSpan, ...]:
    if not state.phases or state.phases[-1].end is not None:
        return state.phases
    return (*state.phases[:-1], replace(state.phases[-1], end=t))


def is_full_window(plan: messages.Plan | None, msg: messages.Step) -> bool:
    """Whether the window is of full batches, but for `FULL_SHARE`; True without a plan.

    Means are weighted by samples, so a short batch among many full ones changes them little, and
    windows that the emitter merged over the end of an epoch still count.
    """
    return plan is None or msg.samples >= FULL_SHARE * msg.count * plan.effective_batch


def _step_changes(state: RunState, steps: Sequence[messages.Step]) -> dict[str, Any]:
    added: dict[str, tuple[list[float], list[float]]] = {}
    parts, samples, last_full = {**state.timed_parts}, state.samples, state.last_full
    timed_from, timed_seconds = state.timed_from, state.timed_seconds
    timed_steps, timed_samples = state.timed_steps, state.timed_samples
    for msg in steps:
        samples += msg.samples
        whole = is_full_window(state.plan, msg)
        values = {"lr": msg.lr, CLOCK: msg.t, SEEN_SAMPLES: float(samples)}
        if whole or last_full is None:  # a short batch would be a cliff at the end of each epoch
            values |= {"loss": msg.loss, **msg.metrics}
        last_full = msg if whole else last_full
        if msg.count:
            values["step_seconds"] = msg.seconds / msg.count
        if msg.grad_norm is not None:
            values["grad_norm"] = msg.grad_norm
        for name, value in values.items():
            xs, ys = added.setdefault(name, ([], []))
            xs.append(msg.step)
            ys.append(value)
        if msg.warmup:
            continue
        timed_from = timed_from if timed_steps else msg.t - msg.seconds
        timed_seconds += msg.seconds
        timed_steps += msg.count
        timed_samples += msg.samples
        for name in STEP_PARTS:
            if (seconds := getattr(msg, name)) is not None:
                parts[name] = parts.get(name, 0.0) + seconds
    curves = {n: state.curves.get(n, NO_CURVE).extend(*points) for n, points in added.items()}
    return {
        "step": max(state.step, *(msg.step for msg in steps)), "samples": samples,
        "skipped_steps": state.skipped_steps + sum(msg.skipped_steps for msg in steps),
        "last": steps[-1], "last_full": last_full, "timed_from": timed_from,
        "timed_seconds": timed_seconds, "timed_steps": timed_steps,
        "timed_samples": timed_samples, "timed_parts": parts, "curves": {**state.curves, **curves},
    }  # fmt: skip


def _sample_changes(state: RunState, msg: messages.Sample) -> dict[str, Any]:
    names = ("rss_main", "rss_main_peak", "rss_tree", "pss_tree")
    values = {**{name: getattr(msg, name) for name in names}, "cpu": msg.cpu_percent}
    for gpu in msg.gpus:
        values[f"vram_device[{gpu.index}]"] = gpu.used
        values[f"vram_process[{gpu.index}]"] = gpu.process
        values[f"gpu_utilisation[{gpu.index}]"] = gpu.utilisation
        values[f"power[{gpu.index}]"] = gpu.power
    curves, peaks = {**state.curves}, {**state.peaks}
    if state.hello is None:  # before its interpreter is loaded a process has a few hundred KiB
        values["rss_main_peak"] = None
    for name, value in ((name, value) for name, value in values.items() if value is not None):
        peaks[name] = max(peaks.get(name, value), value)
        if name != "rss_main_peak":
            curves[name] = curves.get(name, NO_CURVE).extend([msg.t], [value])
    is_timed = state.timed_steps > 0 and state.phase == "train"
    energy = state.energy.add(msg, state.samples, is_timed=is_timed)
    return {"sample": msg, "curves": curves, "peaks": peaks, "energy": energy}


def is_unfinished(run: RunState) -> bool:
    """Whether a resumed suite executes this run: not if it completed, was pruned or skipped.

    A run that was skipped because of an unmet need is tried again.
    """
    if run.end is not None and run.cause == "skipped":
        return bool(run.end.need)
    return run.cause not in ("completed", "pruned")


@dataclass(frozen=True, slots=True)
class RunView:
    """One run of a suite: its spec and its state."""

    spec: protocol.RunSpec
    folder: str
    """Name of its folder under `runs/`."""
    state: RunState = field(default_factory=RunState)
    location: str = ""
    """`slurm 1234_5 · gpu07 · PENDING (Priority)`; empty: where its suite's warden is."""


WardenState = Literal["starting", "queued", "running", "paused", "stopping", "ended", "lost"]


@dataclass(frozen=True, slots=True)
class SuiteState:
    """State of a suite: its warden and its runs in order."""

    name: str
    warden: WardenState = "starting"
    warden_pid: int | None = None
    detail: str = ""
    """One sentence: `behind 20261121-…-demo-1a2b on cpu`."""
    started_wall: float | None = None
    suspended: bool = False
    """It ended to be continued: its time limit, or a scheduler's signal."""
    records_lost: int = 0
    """Runs whose record is missing in results.jsonl."""
    runs: tuple[RunView, ...] = ()
    lanes: tuple[LaneStatus, ...] = ()
    """What each lane does; empty: one run at a time."""
    trials: int = 0
    """Planned number of trials of a search; 0: the suite is no search."""
    orders: Orders = NO_ORDERS
    to_retry: frozenset[str] = frozenset()
    """Ids of runs that ended before the present warden started and that it tries again."""

    @property
    def working(self) -> tuple[RunView, ...]:
        """The runs at work: one, or one a lane."""
        return tuple(r for r in self.runs if r.state.status in ("starting", "running"))

    @property
    def current(self) -> RunView | None:
        """Of the runs at work the first."""
        return next(iter(self.working), None)

    @property
    def total(self) -> int:
        """Largest number of runs that there will be."""
        return max(self.trials, len(self.runs))

    @property
    def unit(self) -> str:
        """Word for its runs."""
        return "trials" if self.trials else "runs"

    @property
    def to_come(self) -> int:
        """Planned trials that are not chosen yet."""
        return self.total - len(self.runs)

    @property
    def ended(self) -> bool:
        """No process of this suite runs any more."""
        return self.warden in ("ended", "lost")
