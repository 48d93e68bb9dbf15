"""Energy of a run's GPUs, from samples of a counter that never stops."""

from __future__ import annotations

import pytest

from engines.gpu_readings import Gpu
from engines.messages import Sample
from workbench.suites.energy import EnergyCounter, build_energy

WATTS = 250.0


def sample(t: float, *, cards: int = 1, watts: float = WATTS, start: float = 1e6) -> Sample:
    """Cards that take `watts` each, at `t` seconds."""
    gpus = (Gpu(index=i, power=watts, energy=start + WATTS * t) for i in range(cards))
    return Sample(t=t, gpus=tuple(gpus))


def count(seconds: int, *, timed: range, cards: int = 1, watts: float = WATTS) -> EnergyCounter:
    """Two samples a second; 64 training samples in each timed second."""
    counter = EnergyCounter()
    for half in range(2 * seconds + 1):
        t = half / 2
        done = 64 * max(0, min(int(t), timed.stop - 1) - timed.start)
        is_timed = timed.start <= t <= timed.stop - 1
        counter = counter.add(sample(t, cards=cards, watts=watts), done, is_timed=is_timed)
    return counter


@pytest.mark.parametrize("cards", [1, 2])
def test_energy_of_training_and_of_the_run(cards: int) -> None:
    energy = build_energy(count(60, timed=range(10, 51), cards=cards), {})
    assert energy.run.value == pytest.approx(60 * WATTS * cards)
    assert energy.power.value == pytest.approx(WATTS * cards)
    assert energy.per_sample.value == pytest.approx(WATTS * cards / 64, rel=0.01)
    assert energy.per_sample.method == "NVML's energy counter over 40 s of timed training"


def test_power_that_disagrees_is_named() -> None:
    energy = build_energy(count(60, timed=range(10, 51), watts=300.0), {})
    assert energy.power.value == pytest.approx(WATTS), "the counter counts"
    assert energy.power.method.endswith("; integrated power differs by +20%")


def test_a_short_training_has_no_figure_but_the_runs() -> None:
    energy = build_energy(count(20, timed=range(10, 16)), {})
    assert energy.run.value == pytest.approx(20 * WATTS)
    assert energy.power.reason == "5 s of timed training; 10 s are needed"


def test_evaluation_between_epochs_is_left_out() -> None:
    counter = EnergyCounter()
    for t in range(60):
        done = 64 * (min(t, 20) + max(0, t - 40))
        counter = counter.add(sample(t), done, is_timed=not 20 < t < 40)
    assert (counter.seconds, counter.samples) == (39.0, 39 * 64)


@pytest.mark.parametrize(
    ("samples", "notices", "reason"),
    [
        ([Sample(t=1.0, gpu_reason="no NVML library on this machine")], {}, "no NVML library"),
        ([Sample(t=1.0, gpus=(Gpu(index=0, reasons={"energy": "Not Supported"}),))], {},
         "Not Supported"),
        ([Sample(t=1.0, gpus=(Gpu(index=0, energy=5.0),
                              Gpu(index=1, reasons={"energy": "of a slice"})))], {}, "of a slice"),
        ([sample(0.0), sample(60.0)], {"other-tenant": 1}, "other processes computed"),
        ([], {}, "no GPU was sampled"),
    ],
)  # fmt: skip
def test_without_a_counter_of_ones_own_there_is_a_reason(samples, notices, reason) -> None:
    counter = EnergyCounter()
    for each in samples:
        counter = counter.add(each, 0, is_timed=True)
    energy = build_energy(counter, notices)
    assert reason in energy.run.reason
    assert (energy.run.value, energy.per_sample.value, energy.power.value) == (None, None, None)


def test_gaps_and_a_driver_loaded_anew_count_nothing() -> None:
    gap = Sample(t=30.0, gpu_reason="stale: NVML has not answered for 9 s")
    counter = EnergyCounter()
    for each in (sample(0.0), sample(10.0), gap, sample(50.0), sample(60.0),
                 sample(70.0, start=0.0), sample(80.0, start=0.0)):  # fmt: skip
        counter = counter.add(each, 0, is_timed=True)
    assert (counter.seconds, counter.total) == (30.0, 30 * WATTS)
