"""Step times against clocks with known answers: no real time is measured here."""

import itertools
import math

import numpy as np
import pytest
import torch

from engines.torchkit.training.step_timing import HostStopwatch, StepTimer, TimingSummary, stopwatch

DATA, MOVE, FORWARD, BACKWARD, UPDATE = 0.010, 0.002, 0.030, 0.050, 0.008
STEP = DATA + MOVE + FORWARD + BACKWARD + UPDATE


class Clock:
    """A host clock that only moves when told."""

    def __init__(self) -> None:
        self.t = 1000.0

    def __call__(self) -> float:
        return self.t


class LateDevice:
    """A device that works behind the host's back: marks fall when its queue gets there."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.busy_until, self.synchronized = clock, clock.t, 0
        self.now = clock

    def work(self, seconds: float) -> None:
        self.busy_until = max(self.busy_until, self.clock.t) + seconds

    def mark(self) -> float:
        return max(self.busy_until, self.clock.t)

    def between(self, first: float, second: float) -> float:
        assert self.clock.t >= second, "read before the device was there"
        return second - first

    def synchronize(self) -> None:
        self.synchronized += 1
        self.clock.t = max(self.clock.t, self.busy_until)


def run(meter, ledger, spend, steps, *, samples=8, between=0.0, clock=None):
    """Drive a meter as the loop does; returns the windows."""
    windows = []
    zero = torch.zeros(())
    for step in range(1, steps + 1):
        if not meter.running:
            meter.open()
        for name, seconds in (
            ("data_wait", DATA), ("transfer", MOVE), ("forward", FORWARD),
            ("backward", BACKWARD), ("optimizer", UPDATE),
        ):  # fmt: skip
            spend(name, seconds)
            meter.end_part(name)
        meter.end_step(samples, torch.tensor(float(step)), {"r@1": zero + 0.25}, zero + 2)
        if meter.is_due(step, first=step == 1) or step == steps:
            windows.append(meter.close(step, 0.1))
            ledger.add(windows[-1])
            if clock:
                clock.t += between
    return windows


def on_host(steps, *, warmup=0, per_epoch=10, between=0.0, short_last=False):
    clock = Clock()
    meter = StepTimer(HostStopwatch(clock), warmup, per_epoch, short_last=short_last)
    ledger = TimingSummary(per_epoch, warmup)

    def spend(_name, seconds):
        clock.t += seconds

    return run(meter, ledger, spend, steps, between=between, clock=clock), ledger.timing()


def test_parts_and_steps_are_what_the_clock_says():
    windows, _ = on_host(20)
    for w in windows:
        assert w.seconds == pytest.approx(w.count * STEP)
        assert w.step_seconds == pytest.approx([STEP] * w.count)
        assert w.data_wait == pytest.approx(w.count * DATA)
        assert w.transfer == pytest.approx(w.count * MOVE)
        assert w.forward == pytest.approx(w.count * FORWARD)
        assert w.backward == pytest.approx(w.count * BACKWARD)
        assert w.optimizer == pytest.approx(w.count * UPDATE)
    assert sum(w.count for w in windows) == 20
    assert windows[0].count == 1, "the first step stands alone"
    losses = list(itertools.chain.from_iterable([w.loss * w.count] for w in windows))
    assert sum(losses) == pytest.approx(sum(range(1, 21)))
    assert windows[-1].epoch == pytest.approx(2.0)


def test_a_short_batch_is_a_window_of_its_own():
    """Else no window of an epoch shorter than half a second is of full batches alone."""
    windows, timing = on_host(12, per_epoch=4, short_last=True)
    assert [(w.step, w.count) for w in windows] == [
        (1, 1), (3, 2), (4, 1), (7, 3), (8, 1), (11, 3), (12, 1),
    ]  # fmt: skip
    assert timing.epoch_steps == 4
    assert timing.epoch_loss == pytest.approx((9 + 10 + 11 + 12) / 4)


def test_what_lies_between_windows_belongs_to_no_step():
    _, plain = on_host(20)
    windows, timing = on_host(20, between=5.0)
    assert sum(w.seconds for w in windows) == pytest.approx(20 * STEP)
    assert timing.step_p95 == pytest.approx(plain.step_p95)
    assert timing.samples_per_second == pytest.approx(8 / STEP)


def test_timing_leaves_the_warm_up_out():
    windows, timing = on_host(20, warmup=4)
    assert [w.warmup for w in windows] == sorted((w.warmup for w in windows), reverse=True)
    assert sum(w.count for w in windows if w.warmup) == 4
    assert timing.step_median == pytest.approx(STEP)
    assert timing.step_median_low == pytest.approx(STEP)
    assert timing.epoch_wall_seconds == pytest.approx(10 * STEP), "the last whole epoch"
    assert timing.epoch_steps == 10
    assert timing.data_wait_share == pytest.approx(DATA / STEP)
    assert timing.samples_per_second == pytest.approx(8 / STEP)
    assert timing.samples_per_second_median == pytest.approx(8 / STEP)
    assert not set(timing.reasons) - {"time_to_first_step"}


def test_one_epoch_counts_the_steps_after_the_warm_up():
    _, timing = on_host(10, warmup=4)
    assert timing.epoch_steps == 6
    assert timing.epoch_wall_seconds == pytest.approx(6 * STEP)
    assert timing.epoch_stall_seconds == pytest.approx(6 * DATA)


def test_the_epochs_loss_is_the_mean_of_its_steps_with_the_warm_up():
    _, timing = on_host(20, warmup=4)  # the loss of a step is its number
    assert (timing.epoch_loss, timing.epoch_loss_steps) == (pytest.approx(15.5), 10)
    _, cut = on_host(13)
    assert (cut.epoch_loss, cut.epoch_loss_steps) == (pytest.approx(12.0), 3)


def test_an_epoch_that_was_resumed_within_has_no_mean_loss():
    windows, _ = on_host(20)
    for first, reason in ((13, "resumed at step 12"), (11, None)):
        ledger = TimingSummary(10, 0)
        for window in windows:
            if window.step - window.count >= first - 1:
                ledger.add(window)
        timing = ledger.timing()
        start = windows[-1].step - timing.epoch_loss_steps
        assert (timing.epoch_loss is None) == (reason is not None)
        assert reason is None or "within the epoch" in timing.reasons["epoch_loss"]
        assert reason is not None or start == 10


def test_unmeasured_is_null_with_a_reason():
    _, part = on_host(7)
    assert part.epoch_wall_seconds is None
    assert part.reasons["epoch_wall_seconds"] == "no whole epoch was run: 7 of 10 steps"
    _, short = on_host(3, warmup=20)
    assert short.step_median is None
    assert "20 of the timing warm-up" in short.reasons["step_median"]
    assert short.reasons["optimizer_share"] == short.reasons["step_median"]
    _, all_warm = on_host(10, warmup=10)
    assert "all 10 steps" in all_warm.reasons["epoch_wall_seconds"]


def test_on_an_asynchronous_device_times_are_the_devices():
    """The host only launches (no time passes for it but the data wait); the device works."""
    clock = Clock()
    device = LateDevice(clock)
    meter, ledger = StepTimer(device, 0, 100), TimingSummary(100, 0)

    def spend(name, seconds):
        if name == "data_wait":
            clock.t += seconds
        else:
            device.work(seconds)

    windows = run(meter, ledger, spend, 40)
    busy = MOVE + FORWARD + BACKWARD + UPDATE
    whole = sum(w.seconds for w in windows)
    # The first window pays its data wait in full, later waits hide behind the device's work.
    assert whole == pytest.approx(40 * busy + len(windows) * DATA, rel=0.01)
    assert sum(w.forward for w in windows) == pytest.approx(40 * FORWARD, rel=0.01)
    assert sum(w.data_wait for w in windows) == pytest.approx(40 * DATA)
    assert sum(w.data_stall for w in windows) == pytest.approx(len(windows) * DATA)
    timing = ledger.timing()
    assert timing.data_stall_share == pytest.approx(len(windows) * DATA / whole)
    assert timing.data_wait_share == pytest.approx(40 * DATA / whole), "most of it was hidden"
    assert timing.optimizer_share == pytest.approx(40 * UPDATE / whole, rel=0.01)
    assert device.synchronized == 2 * len(windows), "one at each edge, none per step"


def test_the_ledger_keeps_two_rates_that_can_disagree():
    clock = Clock()
    meter, ledger = StepTimer(HostStopwatch(clock), 0, 100), TimingSummary(100, 0)
    slow = iter(range(10_000))

    def spend(name, seconds):
        clock.t += seconds
        if name == "optimizer" and next(slow) % 10 == 0:
            clock.t += 1.0

    run(meter, ledger, spend, 100)
    timing = ledger.timing()
    assert timing.samples_per_second_median == pytest.approx(8 / STEP)
    assert timing.samples_per_second == pytest.approx(8 / (STEP + 0.1))
    assert timing.step_p95 == pytest.approx(STEP + 1.0)
    assert timing.step_median_low <= timing.step_median <= timing.step_median_high


def test_a_tiny_last_batch_weighs_what_it_holds():
    meter = StepTimer(HostStopwatch(Clock()), 0, 10)
    meter.open()
    for samples, value in ((63, 0.5), (1, 1.0)):
        meter.end_part("optimizer")
        meter.end_step(samples, torch.tensor(value), {"r@1": torch.tensor(value)}, torch.ones(()))
    window = meter.close(2, 0.1)
    assert window.loss == window.metrics["r@1"] == pytest.approx((63 * 0.5 + 1) / 64)


def test_a_step_that_is_no_number_stays_one():
    clock = Clock()
    meter = StepTimer(HostStopwatch(clock), 0, 10)
    meter.open()
    meter.end_part("optimizer")
    meter.end_step(1, torch.tensor(math.nan), {}, torch.tensor(math.inf))
    window = meter.close(1, 0.1)
    assert math.isnan(window.loss)
    assert math.isinf(window.grad_norm)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_events_see_the_devices_time():
    device = torch.device("cuda")
    meter, ledger = StepTimer(stopwatch(device), 2, 1000), TimingSummary(1000, 2)
    x = torch.randn(4096, 4096, device=device)
    zero = torch.zeros((), device=device)
    for step in range(1, 31):
        if not meter.running:
            meter.open()
        meter.end_part("data_wait")
        for _ in range(4):
            x = torch.tanh(x @ x)
        meter.end_part("forward")
        meter.end_step(1, zero, {}, zero)
        if meter.is_due(step, first=step == 1) or step == 30:
            ledger.add(meter.close(step, 0.0))
    timing = ledger.timing()
    assert 0 <= timing.data_stall_share <= timing.data_wait_share + 0.05, "computing hides the rest"
    assert np.isfinite(timing.step_median)
    assert timing.step_median * 28 == pytest.approx(28 / timing.samples_per_second, rel=0.2)
