"""Cost forecast by a cost probe: trains a few steps exactly as the run would, forecasts the rest.

Works for everything that trains with `training.loop`.

How the interval is made (docs/cost.md has it in words). Steps i = 1…n with seconds x_i and
samples s_i; rate r = Σx/Σs, so a short last batch counts by its true size; residuals
e_i = x_i - r s_i. They are cut into b blocks of neighbours of about m = n/b steps. With B the
variance of the blocks' means (b-1 degrees of freedom) and W the variance within blocks, a slow
component that lasts for about a block has the variance S = max(0, B - W/m) (one-way random
effects). The mean of M further steps, at another time, then differs from the mean that was seen by

    max(B/b, W/n)   the rate was seen in b blocks only
  + S               the further steps have a slow component of their own, taken to last
  + W/M             and their own fast noise

in variance. Correlated steps and drift raise B and so widen the interval; independent steps leave
S near 0 and the interval near the textbook one. Student's t with b-1 degrees of freedom makes a
half-width of its root.

Variation that a probe of some seconds cannot see is added in quadrature: a machine that is fast now
and slow a minute later, in the same process. On a virtual machine with two cores, blocks of 400
steps of one process took 24 to 35 ms a step, for no reason that is visible from inside (no stolen
time). Its size comes from earlier forecasts of the machine (`Probe.unseen`), else it is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from engines import messages, protocol
from engines.emitter import Emitter
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.checkpointing.trained_tensors import trainable_tensors
from engines.torchkit.training import loop

Numbers = npt.NDArray[np.float64]

BLOCKS: Final = 10
"""Enough for a variance, few enough to be longer than what makes neighbouring steps alike."""

LEAST_STEPS: Final = 20
"""Fewer timed steps (four blocks of five) give a number without an interval."""


class UnseenVariation(NamedTuple):
    """Variation of the machine that a short probe cannot see: half-width over the forecast."""

    share: float
    source: str
    """Where the share comes from; ends the text of the interval's method."""


DEFAULT_UNSEEN: Final = {
    "cpu": UnseenVariation(
        0.10, "assumed for a CPU, as long as fewer than 3 forecasts here were tested"
    ),
    "cuda": UnseenVariation(
        0.05, "assumed for a GPU, as long as fewer than 3 forecasts here were tested"
    ),
}
"""By device type, for a machine without a history. A CPU is shared with others. A GPU lowers its
clocks by power limit and heat within minutes, after the probe has ended: a card with room to spare
by a few percent; a T4 at its 70 W or a 4090 at 80 °C by 10-30 %, which the run's notice `throttled`
then tells."""

CHECK_STEPS: Final = 30
CHECK_SECONDS: Final = 3.0
"""Timed steps and seconds before the width of the interval is first checked."""

CHECK_GROWTH: Final = 1.2
"""It is checked again after a fifth more steps: checking always would stop by luck."""

STUDENT: Final = {3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5 % points of Student's t by degrees of freedom."""


class StepsForecast(NamedTuple):
    """Forecast seconds of further steps; `half`: half-width of the 95 % interval, None: none."""

    seconds: float
    half: float | None
    method: str
    sampled: float | None = None
    """The part of `half` that more steps make narrower."""

    @property
    def share(self) -> float:
        """The half-width as a share of the forecast; infinite without one."""
        return math.inf if self.half is None or not self.seconds else self.half / self.seconds


class BatchOrder(Protocol):
    """Sizes of the batch order (see `data_loader.EpochPermutation`)."""

    rows: int
    per_step: int
    steps_per_epoch: int


def forecast_steps(
    seconds: Sequence[float] | Numbers,
    samples: Sequence[float] | Numbers,
    steps: int,
    total_samples: float,
    unseen: UnseenVariation,
) -> StepsForecast:
    """Seconds of `steps` further steps with `total_samples` samples in all, from timed ones.

    `seconds`, `samples`: one number a step that was timed, in order, at least one.
    """
    x, s = np.asarray(seconds, np.float64), np.asarray(samples, np.float64)
    n, rate = x.size, float(x.sum() / s.sum())
    value = rate * total_samples
    if n < LEAST_STEPS or not math.isfinite(rate):
        return StepsForecast(value, None, f"{n} timed steps: too few for an interval")
    blocks = min(BLOCKS, n // 5)
    parts = np.array_split(x - rate * s, blocks)
    means = np.array([part.mean() for part in parts])
    within = sum(float(((part - part.mean()) ** 2).sum()) for part in parts) / (n - blocks)
    between = float((means**2).sum() / (blocks - 1))
    slow = max(0.0, between - within * blocks / n)
    variance = max(between / blocks, within / n) + slow + within / max(1, steps)
    sampled = STUDENT[blocks - 1] * steps * math.sqrt(variance)
    method = f"{n} timed steps, {blocks} blocks, 95%, ± {100 * unseen.share:.2g} % {unseen.source}"
    return StepsForecast(value, math.hypot(sampled, unseen.share * value), method, sampled)


def count_samples(order: BatchOrder, step: int) -> int:
    """Training samples in the first `step` steps, the short last batch of each epoch counted."""
    epochs, step_in_epoch = divmod(step, order.steps_per_epoch)
    return epochs * order.rows + min(order.rows, step_in_epoch * order.per_step)


def last_probe_step(probe: protocol.Probe, order: BatchOrder, steps: int, warmup: int) -> int:
    """The last step of a cost probe at the latest.

    After the steps asked for, or at the end of the first epoch most of which was timed: that is a
    measurement of the epoch.
    """
    per_epoch = order.steps_per_epoch
    epochs = range(per_epoch, steps + 1, per_epoch)
    whole = next((end for end in epochs if min(per_epoch, end - warmup) * 2 >= per_epoch), steps)
    return min(warmup + probe.steps, whole, steps)


class CostProbe:
    """Cost probe: collects windows of steps, ends the run when they suffice, and forecasts."""

    def __init__(
        self,
        probe: protocol.Probe,
        job: loop.TrainingJob[Any],
        warmup: int,
        now: Callable[[], float],
    ) -> None:
        """Ends `job` early. `warmup`: timing warm-up steps; `now`: seconds since the start."""
        self._probe = probe
        self.unseen = unseen_variation(probe, job.precision.device.type)
        self._order: BatchOrder = job.loader.order
        self._steps = job.steps
        self._warmup = warmup
        self._now = now
        self._seconds: list[float] = []
        self._samples: list[float] = []
        self._read = self._done = 0
        self._first: float | None = None
        self._start = self._end = 0.0
        self._from = 0
        self._next = CHECK_STEPS
        job.stop_at = last_probe_step(probe, self._order, job.steps, warmup)
        job.stop_when = self.add_window
        # A cost probe keeps no checkpoint: it is cheaper to repeat.
        job.checkpoint_every, job.checkpoint_seconds, job.checkpoint_root = 0, 0.0, None

    def add_window(self, window: messages.Step) -> bool:
        """Add a window; returns whether the interval is narrow enough (`max_uncertainty`)."""
        self._end = self._now()
        self._done = window.step
        self._read += window.samples
        if self._first is None:
            self._first = self._end
        if window.warmup or not self._start:
            self._start, self._from = self._end, window.step
        if window.warmup:
            return False
        # Time between the steps of a window (its synchronize) is spread over them.
        spread = window.seconds / (sum(window.step_seconds) or 1.0)
        self._seconds += [seconds * spread for seconds in window.step_seconds]
        self._samples += _sizes(self._order, window)
        return self._is_narrow_enough()

    def _is_narrow_enough(self) -> bool:
        limit, n = self._probe.max_uncertainty, len(self._seconds)
        if limit is None or n < self._next or sum(self._seconds) < CHECK_SECONDS:
            return False
        self._next = math.ceil(n * CHECK_GROWTH)
        forecast = self._forecast_epoch()
        if self.is_limit_unreachable and forecast.sampled is not None:
            return forecast.sampled <= limit * forecast.seconds
        return forecast.share <= limit

    @property
    def is_limit_unreachable(self) -> bool:
        """Whether the unseen variation alone exceeds `max_uncertainty`: no steps suffice.

        Then it applies to the sampled part of the interval, which steps make narrower.
        """
        limit = self._probe.max_uncertainty
        return limit is not None and self.unseen.share >= limit

    def _epoch_range(self) -> tuple[int, int]:
        """Steps before and in the last whole epoch of the run, less its timing warm-up."""
        per_epoch = self._order.steps_per_epoch
        end = max(1, self._steps // per_epoch) * per_epoch
        return max(end - per_epoch, min(self._warmup, end)), end

    def _forecast_epoch(self) -> StepsForecast:
        return self._forecast_steps(*self._epoch_range())

    def _forecast_steps(self, first: int, last: int) -> StepsForecast:
        samples = count_samples(self._order, last) - count_samples(self._order, first)
        return forecast_steps(self._seconds, self._samples, last - first, samples, self.unseen)

    def forecast(
        self, timing: messages.Timing, disk: dict[str, int], began: float = 0.0
    ) -> messages.Forecast:
        """Forecast of the whole run; `timing`: measured by the probe; `disk`: bytes by part.

        `began`: of a later stage, the seconds at its start, which are none of its own.
        """
        fields: dict[str, Any] = {
            "steps": len(self._seconds), "asked_steps": self._probe.steps,
            "max_uncertainty": self._probe.max_uncertainty, "samples": self._read,
            "run_steps": self._steps,
            "start_seconds": timing.time_to_first_step,
            "warmup_seconds": self._start - (self._first or 0.0), "disk": disk,
        }  # fmt: skip
        if not self._seconds:
            missing = f"no step after the {self._warmup} of the timing warm-up"
            return messages.Forecast(**fields, reasons={"epoch": missing, "run": missing})
        seconds = self._run_fields()
        for name in ("run_seconds", "run_low", "run_high"):
            if seconds.get(name) is not None:
                seconds[name] = max(0.0, seconds[name] - began)
        return messages.Forecast(**fields, **self._epoch_fields(timing), **seconds)

    def _epoch_fields(self, timing: messages.Timing) -> dict[str, Any]:
        first, last = self._epoch_range()
        enough = min(last - first, (self._order.steps_per_epoch + 1) // 2)
        if timing.epoch_wall_seconds is not None and timing.epoch_steps >= enough:
            return {
                "epoch_steps": timing.epoch_steps,
                "epoch_seconds": timing.epoch_wall_seconds,
                "epoch_measured": True,
            }
        if first == last:
            return {"reasons": {"epoch": f"all {last} steps of the epoch are timing warm-up"}}
        forecast = self._forecast_epoch()
        low, high = _bounds(forecast, forecast.seconds)
        return {
            "epoch_steps": last - first, "epoch_seconds": forecast.seconds,
            "epoch_low": low, "epoch_high": high, "method": forecast.method,
        }  # fmt: skip

    def _run_fields(self) -> dict[str, Any]:
        """Forecast of the whole run from the wall clock, time between windows included."""
        if self._done >= self._steps:
            return {"run_seconds": self._end, "run_measured": True}
        read = count_samples(self._order, self._done) - count_samples(self._order, self._from)
        rate = (self._end - self._start) / read if read else sum(self._seconds) / self._read
        samples = count_samples(self._order, self._steps) - count_samples(self._order, self._from)
        value = self._start + rate * samples
        low, high = _bounds(self._forecast_steps(self._from, self._steps), value)
        return {"run_seconds": value, "run_low": low, "run_high": high}


def join_forecasts(stages: Sequence[messages.Forecast]) -> messages.Forecast:
    """Forecast of a run from those of its stages: their sums; the epoch is the last stage's.

    Bounds are summed too: a machine that is slow in one stage is likely so in the others.
    """
    if len(stages) == 1:
        return stages[0]
    update: dict[str, Any] = {
        name: sum(getattr(stage, name) for stage in stages)
        for name in ("steps", "asked_steps", "samples", "run_steps", "warmup_seconds")
    }
    update["run_measured"] = all(stage.run_measured for stage in stages)
    for name in ("run_seconds", "run_low", "run_high"):
        values = [s.run_seconds if s.run_measured else getattr(s, name) for s in stages]
        update[name] = sum(values) if None not in values else None
    update["start_seconds"] = stages[0].start_seconds
    update["reasons"] = {name: text for stage in stages for name, text in stage.reasons.items()}
    return stages[-1].model_copy(update=update)


def _bounds(forecast: StepsForecast, value: float) -> tuple[float | None, float | None]:
    if forecast.half is None:
        return None, None
    return max(0.0, value - forecast.half), value + forecast.half


def _sizes(order: BatchOrder, window: messages.Step) -> Iterable[float]:
    """Samples of each step of a window; the only short step of an epoch is its last."""
    first = window.step - window.count
    ends = [count_samples(order, step) for step in range(first, window.step + 1)]
    return [float(b - a) for a, b in pairwise(ends)]


def create_cost_probe(
    spec: protocol.RunSpec, job: loop.TrainingJob[Any], warmup: int, emit: Emitter
) -> CostProbe | None:
    """The cost probe of a run with task `probe`, set up on its job; None for other tasks.

    A spec without `probe` settings gets the default ones.
    """
    if spec.task != "probe":
        return None
    probe = spec.probe or protocol.Probe()
    cost_probe = CostProbe(probe, job, warmup, emit.now)
    if cost_probe.is_limit_unreachable:
        requested, unseen = 100 * (probe.max_uncertainty or 0), cost_probe.unseen
        text = (
            f"± {requested:.2g} % cannot be reached: ± {100 * unseen.share:.2g} % alone is "
            f"{unseen.source}; "
            "max_uncertainty counts for the rest of the interval"
        )
        emit.notice("until-out-of-reach", text)
    return cost_probe


def unseen_variation(probe: protocol.Probe, device: str) -> UnseenVariation:
    """Unseen variation of the machine: from its history, else the default of the device."""
    if probe.unseen is None:
        return DEFAULT_UNSEEN.get(device, DEFAULT_UNSEEN["cuda"])
    return UnseenVariation(probe.unseen, probe.unseen_from)


def checkpoint_bytes(job: loop.TrainingJob[Any], *, kept: bool, on_the_way: bool) -> dict[str, int]:
    """Bytes of the final weights, and of the intermediate checkpoints (two at a time)."""
    weights = _bytes(trainable_tensors(job.model).values())
    averaged = sum(_bytes(average.tensors().values()) for average in job.averages.values())
    optimizer = _bytes(checkpoints.optimizer_tensors(job.optimizer).values())
    sizes = {"weights kept": weights + averaged} if kept else {}
    if on_the_way:
        sizes["checkpoints on the way"] = 2 * (weights + averaged + optimizer)
    return sizes


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
