"""The costing run: trains a few steps of a run exactly as the run would, and forecasts the rest.

Apart from the loop, which only asks "is it enough?" at the end of a window, and apart from the
meter, because nothing here is measured: it reasons about windows that were. No engine's own: it
works for everything that trains with `torchkit.loop`.

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

What a probe of some seconds cannot see is added in quadrature: a machine that is fast now and slow
a minute later, in one and the same process. On a virtual machine with two cores, blocks of 400
steps of one process took 24 to 35 ms a step, for no reason that is visible from inside (no stolen
time). How much a machine wanders its earlier forecasts tell (`Probe.unseen`), else it is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from engines import protocol
from engines.emitter import Emitter
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.training import loop

Numbers = npt.NDArray[np.float64]

BLOCKS: Final = 10
"""Enough for a variance, few enough to be longer than what makes neighbouring steps alike."""

LEAST_STEPS: Final = 20
"""Fewer timed steps (four blocks of five) give a number without an interval."""


class Unseen(NamedTuple):
    """What a short probe cannot see of its machine: a half-width as a share of the forecast."""

    share: float
    why: str
    """Ends the interval's method: where the share comes from."""


USUAL: Final = {
    "cpu": Unseen(0.10, "assumed for a CPU, as long as fewer than 3 forecasts here were tested"),
    "cuda": Unseen(0.05, "assumed for a GPU, as long as fewer than 3 forecasts here were tested"),
}
"""By device type, for a machine without a history. A CPU is shared with others. A GPU lowers its
clocks by power limit and heat within minutes, after the probe has ended: a card with room to spare
by a few percent; a T4 at its 70 W or a 4090 at 80 °C by 10-30 %, which the run's notice `throttled`
then tells."""

UNTIL_STEPS: Final = 30
UNTIL_SECONDS: Final = 3.0
"""An interval is asked for its width after so many timed steps and seconds at the earliest."""

UNTIL_GROWTH: Final = 1.2
"""And again after a fifth more: asking all the time would stop at the luckiest moment."""

STUDENT: Final = {3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5 % points of Student's t by degrees of freedom."""


class Prediction(NamedTuple):
    """Seconds of steps that were not done; `half` is the half-width at 95 %, None without one."""

    seconds: float
    half: float | None
    method: str
    sampled: float | None = None
    """The part of `half` that more steps make narrower."""

    @property
    def share(self) -> float:
        """The half-width as a share of the forecast; infinite without one."""
        return math.inf if self.half is None or not self.seconds else self.half / self.seconds


class Rows(Protocol):
    """What a forecast has to know of the order of batches (`batches.Order` has it)."""

    rows: int
    per_step: int
    steps_per_epoch: int


def predict(
    seconds: Sequence[float] | Numbers,
    samples: Sequence[float] | Numbers,
    steps: int,
    wanted_samples: float,
    unseen: Unseen,
) -> Prediction:
    """Seconds of `steps` further steps with `wanted_samples` samples in all, from those seen.

    `seconds`, `samples`: one number a step that was timed, in order, at least one.
    """
    x, s = np.asarray(seconds, np.float64), np.asarray(samples, np.float64)
    n, rate = x.size, float(x.sum() / s.sum())
    value = rate * wanted_samples
    if n < LEAST_STEPS or not math.isfinite(rate):
        return Prediction(value, None, f"{n} timed steps: too few for an interval")
    blocks = min(BLOCKS, n // 5)
    parts = np.array_split(x - rate * s, blocks)
    means = np.array([part.mean() for part in parts])
    within = sum(float(((part - part.mean()) ** 2).sum()) for part in parts) / (n - blocks)
    between = float((means**2).sum() / (blocks - 1))
    slow = max(0.0, between - within * blocks / n)
    variance = max(between / blocks, within / n) + slow + within / max(1, steps)
    sampled = STUDENT[blocks - 1] * steps * math.sqrt(variance)
    method = f"{n} timed steps, {blocks} blocks, 95%, ± {100 * unseen.share:.2g} % {unseen.why}"
    return Prediction(value, math.hypot(sampled, unseen.share * value), method, sampled)


def samples_until(order: Rows, step: int) -> int:
    """Training samples in the first `step` steps, the short last batch of each epoch counted."""
    epochs, place = divmod(step, order.steps_per_epoch)
    return epochs * order.rows + min(order.rows, place * order.per_step)


def stop_step(probe: protocol.Probe, order: Rows, steps: int, warmup: int) -> int:
    """The step at which a costing run ends at the latest.

    After the steps asked for, or at the end of the first epoch most of which was timed: that is no
    longer a forecast but the epoch itself.
    """
    per_epoch = order.steps_per_epoch
    epochs = range(per_epoch, steps + 1, per_epoch)
    whole = next((end for end in epochs if min(per_epoch, end - warmup) * 2 >= per_epoch), steps)
    return min(warmup + probe.steps, whole, steps)


class Costing:
    """Collects the windows of a costing run, says when they are enough, and forecasts."""

    def __init__(
        self, probe: protocol.Probe, job: loop.Training[Any], warmup: int, now: Callable[[], float]
    ) -> None:
        """Makes `job` end early. `warmup`: timing warm-up steps; `now`: seconds since the start."""
        self._probe = probe
        self.unseen = known(probe, job.precision.device.type)
        self._order: Rows = job.loader.order
        self._steps = job.steps
        self._warmup = warmup
        self._now = now
        self._seconds: list[float] = []
        self._samples: list[float] = []
        self._read = self._done = 0
        self._first: float | None = None
        self._start = self._end = 0.0
        self._from = 0
        self._next = UNTIL_STEPS
        job.stop_at = stop_step(probe, self._order, job.steps, warmup)
        job.stop_when = self.enough
        # A costing run leaves nothing to resume from: it is cheaper to repeat.
        job.checkpoint_every, job.checkpoint_seconds, job.checkpoint_root = 0, 0.0, None

    def enough(self, window: protocol.Step) -> bool:
        """Take a window into account; whether the interval is as narrow as was asked."""
        self._end = self._now()
        self._done = window.step
        self._read += window.samples
        if self._first is None:
            self._first = self._end
        if window.warmup or not self._start:
            self._start, self._from = self._end, window.step
        if window.warmup:
            return False
        # What lies between the steps of a window (its synchronise) belongs to them in equal parts.
        spread = window.seconds / (sum(window.step_seconds) or 1.0)
        self._seconds += [seconds * spread for seconds in window.step_seconds]
        self._samples += _sizes(self._order, window)
        return self._narrow()

    def _narrow(self) -> bool:
        until, n = self._probe.until, len(self._seconds)
        if until is None or n < self._next or sum(self._seconds) < UNTIL_SECONDS:
            return False
        self._next = math.ceil(n * UNTIL_GROWTH)
        found = self._epoch()
        if self.out_of_reach and found.sampled is not None:
            return found.sampled <= until * found.seconds
        return found.share <= until

    @property
    def out_of_reach(self) -> bool:
        """The machine alone wanders more than `until` allows: no number of steps is enough.

        Then the run ends when the rest of the interval, which steps make narrower, is that narrow.
        """
        until = self._probe.until
        return until is not None and self.unseen.share >= until

    def _epoch_range(self) -> tuple[int, int]:
        """Steps before and in the last whole epoch of the run, less its timing warm-up."""
        per_epoch = self._order.steps_per_epoch
        end = max(1, self._steps // per_epoch) * per_epoch
        return max(end - per_epoch, min(self._warmup, end)), end

    def _epoch(self) -> Prediction:
        return self._predict(*self._epoch_range())

    def _predict(self, first: int, last: int) -> Prediction:
        wanted = samples_until(self._order, last) - samples_until(self._order, first)
        return predict(self._seconds, self._samples, last - first, wanted, self.unseen)

    def forecast(self, timing: protocol.Timing, disk: dict[str, int]) -> protocol.Forecast:
        """What the whole run will cost; `timing` is what this one has measured."""
        said: dict[str, Any] = {
            "steps": len(self._seconds), "asked_steps": self._probe.steps,
            "until": self._probe.until, "samples": self._read, "run_steps": self._steps,
            "start_seconds": timing.time_to_first_step,
            "warmup_seconds": self._start - (self._first or 0.0), "disk": disk,
        }  # fmt: skip
        if not self._seconds:
            missing = f"no step after the {self._warmup} of the timing warm-up"
            return protocol.Forecast(**said, reasons={"epoch": missing, "run": missing})
        return protocol.Forecast(**said, **self._of_epoch(timing), **self._of_run())

    def _of_epoch(self, timing: protocol.Timing) -> dict[str, Any]:
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
        found = self._epoch()
        low, high = _bounds(found, found.seconds)
        return {
            "epoch_steps": last - first, "epoch_seconds": found.seconds,
            "epoch_low": low, "epoch_high": high, "method": found.method,
        }  # fmt: skip

    def _of_run(self) -> dict[str, Any]:
        """From the wall clock, so that what lies between windows is in it."""
        if self._done >= self._steps:
            return {"run_seconds": self._end, "run_measured": True}
        read = samples_until(self._order, self._done) - samples_until(self._order, self._from)
        rate = (self._end - self._start) / read if read else sum(self._seconds) / self._read
        left = samples_until(self._order, self._steps) - samples_until(self._order, self._from)
        value = self._start + rate * left
        low, high = _bounds(self._predict(self._from, self._steps), value)
        return {"run_seconds": value, "run_low": low, "run_high": high}


def _bounds(found: Prediction, value: float) -> tuple[float | None, float | None]:
    if found.half is None:
        return None, None
    return max(0.0, value - found.half), value + found.half


def _sizes(order: Rows, window: protocol.Step) -> Iterable[float]:
    """Samples of each step of a window; the only short step of an epoch is its last."""
    first = window.step - window.count
    ends = [samples_until(order, step) for step in range(first, window.step + 1)]
    return [float(b - a) for a, b in pairwise(ends)]


def of(
    spec: protocol.RunSpec, job: loop.Training[Any], warmup: int, emit: Emitter
) -> Costing | None:
    """The costing run that a spec asks for, tied to its job; None for a run that trains to its end.

    Task `probe` without any number is a costing run of the usual length.
    """
    if spec.task != "probe":
        return None
    probe = spec.probe or protocol.Probe()
    costing = Costing(probe, job, warmup, emit.now)
    if costing.out_of_reach:
        asked, alone = 100 * (probe.until or 0), 100 * costing.unseen.share
        text = (
            f"± {asked:.2g} % cannot be reached: ± {alone:.2g} % alone is {costing.unseen.why}; "
            "until counts for the rest of the interval"
        )
        emit.notice("until-out-of-reach", text)
    return costing


def known(probe: protocol.Probe, device: str) -> Unseen:
    """How much the machine wanders: from its history, else the usual for the device."""
    if probe.unseen is None:
        return USUAL.get(device, USUAL["cuda"])
    return Unseen(probe.unseen, probe.unseen_from)


def checkpoint_bytes(job: loop.Training[Any], *, kept: bool, on_the_way: bool) -> dict[str, int]:
    """Bytes of the weights kept at the end, and of the checkpoints on the way (two at a time)."""
    weights = _bytes(loop.trainable_tensors(job.model).values())
    averaged = sum(_bytes(one.tensors().values()) for one in job.averages.values())
    optimizer = _bytes(checkpoints.optimizer_tensors(job.optimizer).values())
    sizes = {"weights kept": weights + averaged} if kept else {}
    if on_the_way:
        sizes["checkpoints on the way"] = 2 * (weights + averaged + optimizer)
    return sizes


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
