"""Step timing by windows of steps, without a synchronize per step, and its summary.

On CUDA a host timer around a kernel measures its launch. So device times are event pairs, and the
host clock is read only at window edges, after one synchronize. On a CPU both are the host clock.
The time between two windows (sending messages, checkpoints) belongs to no step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor

from engines import messages
from results.statistics import block_bootstrap_quantile

WINDOW_SECONDS: Final = 0.5
"""Host seconds until a window closes: two synchronizes a second have no measurable cost."""

MAX_WINDOW_STEPS: Final = 500

PARTS: Final = ("data_wait", "transfer", "forward", "backward", "optimizer")


class Stopwatch(Protocol):
    """Clock with time points of the device."""

    def now(self) -> float:
        """Host seconds."""

    def mark(self) -> Any:
        """A time point of the device; cheap, does not wait."""

    def between(self, first: Any, second: Any) -> float:
        """Seconds between two time points; only after `synchronize`."""

    def synchronize(self) -> None:
        """Wait until the device has finished all submitted work."""


class HostStopwatch:
    """For the CPU, where the host clock is the device's."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.now = clock
        self.mark = clock

    def between(self, first: float, second: float) -> float:
        """Seconds between two time points."""
        return second - first

    def synchronize(self) -> None:
        """Nothing to wait for."""


class CudaStopwatch:
    """Stopwatch of CUDA events in the current stream; about a microsecond each."""

    def __init__(self) -> None:
        self.now = time.perf_counter

    def mark(self) -> torch.cuda.Event:
        """An event, recorded now."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch
        event.record()
        return event

    def between(self, first: torch.cuda.Event, second: torch.cuda.Event) -> float:
        """Seconds between two events that have both happened."""
        return float(first.elapsed_time(second)) / 1000

    def synchronize(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize()


def stopwatch(device: torch.device) -> Stopwatch:
    """The stopwatch for a device."""
    return CudaStopwatch() if device.type == "cuda" else HostStopwatch()


@dataclass
class _Window:
    start: float
    first: Any
    parts: list[tuple[str, Any, Any]] = field(default_factory=list)
    """Name, begin and end of each part of a step."""
    data_wait: float = 0.0
    """Host seconds."""
    data_stalls: list[tuple[Any, Any]] = field(default_factory=list)
    """Begin and end on the device."""
    ends: list[Any] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    overflows: list[Tensor] = field(default_factory=list)
    metrics: dict[str, list[Tensor]] = field(default_factory=dict)


class StepTimer:
    """Times the parts of steps in consecutive windows.

    `open`, then per step `end_part(name)` after each part and `end_step`; `close` when `is_due`.
    """

    def __init__(
        self,
        watch: Stopwatch,
        warmup_steps: int,
        steps_per_epoch: int,
        *,
        short_last: bool = False,
    ) -> None:
        self._watch = watch
        self._short_last = short_last
        """The last step of an epoch has fewer rows and is a window of its own, as its loss and r@1
        are of a smaller batch."""
        self.warmup_steps = warmup_steps
        self.warmup_until = warmup_steps
        """Steps up to this one are warm-up. A resumed run warms up again."""
        self._steps_per_epoch = steps_per_epoch
        self.skipped_in_a_row = 0
        """Consecutive skipped steps up to the end of the last window."""
        self._window: _Window | None = None
        self._part_host = 0.0
        self._part_mark: Any = None

    @property
    def running(self) -> bool:
        """Whether a window is open."""
        return self._window is not None

    def open(self) -> None:
        """Begin a window; waits for the device first."""
        self._watch.synchronize()
        self._part_host = self._watch.now()
        self._part_mark = self._watch.mark()
        self._window = _Window(self._part_host, self._part_mark)

    def end_part(self, name: str) -> None:
        """End the part `name` of a step. `data_wait` is host time, the others device time."""
        window = self._open_window()
        mark = self._watch.mark()
        host = self._watch.now()
        if name == "data_wait":
            window.data_wait += host - self._part_host
            window.data_stalls.append((self._part_mark, mark))
        else:
            window.parts.append((name, self._part_mark, mark))
        self._part_host, self._part_mark = host, mark

    def end_step(
        self,
        samples: int,
        loss: Tensor,
        metrics: Mapping[str, Tensor],
        norm: Tensor,
        overflow: Tensor | None = None,
    ) -> None:
        """End a step with its last part. Tensors stay on the device until the window closes.

        `overflow`: 1 where the optimizer skipped the step; None: it cannot.
        """
        window = self._open_window()
        window.ends.append(self._part_mark)
        window.samples.append(samples)
        window.losses.append(loss)
        window.norms.append(norm)
        if overflow is not None:
            window.overflows.append(overflow)
        for name, value in metrics.items():
            window.metrics.setdefault(name, []).append(value)

    def is_due(self, step: int, *, first: bool) -> bool:
        """Whether the window must close after step `step`: at an edge, or because it is long.

        Edges: end of the warm-up, of an epoch, and of the first step (time to first step).
        """
        window = self._open_window()
        step_in_epoch = step % self._steps_per_epoch
        before_short = self._short_last and step_in_epoch == self._steps_per_epoch - 1
        edge = step == self.warmup_until or step_in_epoch == 0 or before_short
        long = (
            len(window.ends) >= MAX_WINDOW_STEPS
            or self._watch.now() - window.start >= WINDOW_SECONDS
        )
        return first or edge or long

    def close(self, step: int, lr: float) -> messages.Step:
        """Close the window; returns its message. Waits for the device."""
        window = self._open_window()
        self._watch.synchronize()
        seconds = self._watch.now() - window.start
        self._window = None
        marks = [window.first, *window.ends]
        durations = tuple(self._watch.between(a, b) for a, b in pairwise(marks))
        parts = dict.fromkeys(PARTS[1:], 0.0)
        for name, first, last in window.parts:
            parts[name] += self._watch.between(first, last)
        skipped = _read_skipped(window)
        for flag in skipped:
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if flag else 0
        norms = [norm for norm, flag in zip(window.norms, skipped, strict=True) if not flag]
        return messages.Step(
            step=step,
            count=len(durations),
            samples=sum(window.samples),
            epoch=step / self._steps_per_epoch,
            warmup=step <= self.warmup_until,
            seconds=seconds,
            step_seconds=durations,
            data_wait=window.data_wait,
            data_stall=sum(self._watch.between(first, last) for first, last in window.data_stalls),
            **parts,
            loss=_mean(window.losses, window.samples),
            lr=lr,
            grad_norm=_mean(norms, [1] * len(norms)) if norms else None,
            skipped_steps=sum(skipped),
            metrics={n: _mean(values, window.samples) for n, values in window.metrics.items()},
        )

    def _open_window(self) -> _Window:
        if self._window is None:
            raise RuntimeError("no window is open")
        return self._window


def _read_skipped(window: _Window) -> list[bool]:
    """Which steps of the window were skipped; one copy from the device."""
    if not window.overflows:
        return [False] * len(window.norms)
    return [bool(flag) for flag in torch.stack(window.overflows).tolist()]


def _mean(values: Sequence[Tensor], weights: Sequence[int]) -> float:
    """Weighted mean: the last batch of an epoch may hold one pair, whose r@1 is always 1."""
    stacked = torch.stack([v.detach().float() for v in values])
    weight = torch.tensor(weights, dtype=torch.float32, device=stacked.device)
    return float((stacked * weight).sum() / weight.sum())


class TimingSummary:
    """Accumulates the windows of a run; `timing()` gives its `Timing` message."""

    def __init__(self, steps_per_epoch: int, warmup_steps: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._warmup_steps = warmup_steps
        self._durations: list[float] = []
        self._samples: list[float] = []
        self._seconds = 0.0
        self._data_wait = 0.0
        self._data_stall = 0.0
        self._optimizer = 0.0
        self._epochs: dict[int, _EpochTimes] = {}
        self.time_to_first_step: float | None = None

    def add(self, window: messages.Step) -> None:
        """Add a window. Windows never straddle the end of the warm-up or of an epoch."""
        index = (window.step - 1) // self._steps_per_epoch
        epoch = self._epochs.setdefault(index, _EpochTimes())
        if not epoch.all_steps:
            epoch.first = window.step - window.count
        epoch.all_steps += window.count
        epoch.all_seconds += window.seconds
        epoch.samples += window.samples
        epoch.losses += window.loss * window.samples
        if window.warmup:
            return
        epoch.timed_steps += window.count
        epoch.seconds += window.seconds
        epoch.data_stall += window.data_stall or 0.0
        self._durations.extend(window.step_seconds)
        self._samples.extend([window.samples / window.count] * window.count)
        self._seconds += window.seconds
        self._data_wait += window.data_wait or 0.0
        self._data_stall += window.data_stall or 0.0
        self._optimizer += window.optimizer or 0.0

    def epoch(self, number: int) -> tuple[float | None, float | None]:
        """Mean loss and seconds of the steps of epoch `number` (from 1), if all were added."""
        epoch = self._epochs.get(number - 1)
        if epoch is None or epoch.all_steps < self._steps_per_epoch:
            return None, None
        return epoch.losses / epoch.samples, epoch.all_seconds

    def timing(self) -> messages.Timing:
        """The run's times; an unmeasured one is null, with a reason."""
        reasons: dict[str, str] = {}
        whole = [
            e
            for e in self._epochs.values()
            if e.all_steps == self._steps_per_epoch and e.timed_steps
        ]
        if not whole:
            reasons["epoch_wall_seconds"] = reasons["epoch_stall_seconds"] = self._no_epoch_reason()
        if self.time_to_first_step is None:
            reasons["time_to_first_step"] = "no step was done"
        epoch = whole[-1] if whole else None
        base: dict[str, Any] = {
            "time_to_first_step": self.time_to_first_step,
            "epoch_wall_seconds": epoch.seconds if epoch else None,
            "epoch_stall_seconds": epoch.data_stall if epoch else None,
            "epoch_steps": epoch.timed_steps if epoch else 0,
            "timed_steps": len(self._durations),
            "warmup_steps": self._warmup_steps,
            **self._loss_fields(reasons),
        }
        if not self._durations:
            missing = f"no step after the {self._warmup_steps} of the timing warm-up"
            return messages.Timing(**base, reasons=reasons).with_reason(missing)
        return messages.Timing(**base, **self._step_fields(), reasons=reasons)

    def _loss_fields(self, reasons: dict[str, str]) -> dict[str, Any]:
        """Mean loss of the last epoch as far as it was trained; none if resumed within it."""
        if not self._epochs:
            reasons["epoch_loss"] = "no step was done"
            return {}
        index, last = max(self._epochs.items())
        if last.first != index * self._steps_per_epoch:
            reasons["epoch_loss"] = f"the run was resumed at step {last.first} within the epoch"
            return {}
        return {"epoch_loss": last.losses / last.samples, "epoch_loss_steps": last.all_steps}

    def _step_fields(self) -> dict[str, Any]:
        durations = np.asarray(self._durations)
        median, p95 = np.quantile(durations, [0.5, 0.95])
        of_median = block_bootstrap_quantile(durations, 0.5)
        of_p95 = block_bootstrap_quantile(durations, 0.95)
        return {
            "step_median": float(median),
            "step_median_low": of_median.low,
            "step_median_high": of_median.high,
            "step_p95": float(p95),
            "step_p95_low": of_p95.low,
            "step_p95_high": of_p95.high,
            "interval_method": of_median.method,
            "data_wait_share": self._data_wait / self._seconds,
            "data_stall_share": self._data_stall / self._seconds,
            "optimizer_share": self._optimizer / self._seconds,
            "samples_per_second": sum(self._samples) / self._seconds,
            "samples_per_second_median": float(np.median(self._samples) / median),
        }

    def _no_epoch_reason(self) -> str:
        steps = max((e.all_steps for e in self._epochs.values()), default=0)
        if steps == self._steps_per_epoch == 1:
            return "the one step of the epoch was timing warm-up"
        if steps == self._steps_per_epoch:
            return f"all {steps} steps of the epoch were timing warm-up"
        return f"no whole epoch was run: {steps} of {self._steps_per_epoch} steps"


@dataclass
class _EpochTimes:
    first: int = 0
    """Steps of the run before the first added one."""
    all_steps: int = 0
    all_seconds: float = 0.0
    timed_steps: int = 0
    seconds: float = 0.0
    data_stall: float = 0.0
    samples: int = 0
    losses: float = 0.0
