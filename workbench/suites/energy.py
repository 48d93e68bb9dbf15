"""Energy of a run's GPUs, from NVML's counter: over the timed training steps, and in all.

The counter is a card's: it holds what other processes of the card use, so that a shared card has no
figure, and a MIG slice has no counter. Pure functions of journal entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from engines import messages
from results.records.schema import EnergyUse, Reading

SHORTEST_SECONDS: Final = 10.0
"""A shorter window has no figure: both ends may be half a second off, 5 % of this."""
DISAGREEMENT: Final = 0.1
"""Relative deviation of the counter from integrated power that the method names."""
SHARED: Final = "other-tenant"
"""Notice of a run whose GPU others compute on."""


@dataclass(frozen=True, slots=True)
class EnergyCounter:
    """Sums over the intervals between two samples. Joules, seconds."""

    training: float = 0.0
    training_by_power: float = 0.0
    """The same by the trapezoidal rule over power readings."""
    seconds: float = 0.0
    samples: int = 0
    """Training samples in `seconds`."""
    total: float = 0.0
    last: messages.Sample | None = None
    """The last sample with a counter of every GPU."""
    last_samples: int = 0
    last_is_timed: bool = False
    reason: str = ""
    """Why the last sample without a counter had none."""

    def add(self, sample: messages.Sample, samples: int, *, is_timed: bool) -> EnergyCounter:
        """The counter after one more sample; `samples`: training samples so far."""
        gpus = sample.gpus
        if not gpus or any(gpu.energy is None for gpu in gpus):
            missing = (g.reasons.get("energy", "") for g in gpus if g.energy is None)
            reason = next(missing, sample.gpu_reason)
            return replace(self, last=None, reason=reason)
        here = replace(self, last=sample, last_samples=samples, last_is_timed=is_timed)
        if self.last is None or {g.index for g in gpus} != {g.index for g in self.last.gpus}:
            return here
        joules = _sum_energy(sample) - _sum_energy(self.last)
        if joules < 0:  # the driver was loaded anew
            return here
        here = replace(here, total=self.total + joules)
        if not (is_timed and self.last_is_timed):
            return here
        seconds = sample.t - self.last.t
        watts = (_sum_power(sample) + _sum_power(self.last)) / 2
        return replace(
            here,
            training=self.training + joules,
            training_by_power=self.training_by_power + watts * seconds,
            seconds=self.seconds + seconds,
            samples=self.samples + samples - self.last_samples,
        )


def build_energy(counter: EnergyCounter, notice_counts: Mapping[str, int]) -> EnergyUse:
    """The figures of a run, each with the reason where there is none."""
    reason = ""
    if notice_counts.get(SHARED):
        reason = "other processes computed on the GPU, and its counter is of all"
    elif not counter.total:
        reason = counter.reason or "no GPU was sampled"
    if reason:
        return EnergyUse(**dict.fromkeys(EnergyUse.model_fields, Reading(reason=reason)))
    total = Reading(value=counter.total, method="NVML's energy counter")
    if counter.seconds < SHORTEST_SECONDS:
        short = f"{counter.seconds:.0f} s of timed training; {SHORTEST_SECONDS:.0f} s are needed"
        return EnergyUse(run=total, per_sample=Reading(reason=short), power=Reading(reason=short))
    method = f"NVML's energy counter over {counter.seconds:.0f} s of timed training"
    deviation = counter.training_by_power / counter.training - 1 if counter.training else 0.0
    if abs(deviation) > DISAGREEMENT:
        method += f"; integrated power differs by {deviation:+.0%}"
    power = Reading(value=counter.training / counter.seconds, method=method)
    per_sample = Reading(reason="no training sample was counted")
    if counter.samples:
        per_sample = Reading(value=counter.training / counter.samples, method=method)
    return EnergyUse(run=total, per_sample=per_sample, power=power)


def _sum_energy(sample: messages.Sample) -> float:
    return sum(gpu.energy or 0.0 for gpu in sample.gpus)


def _sum_power(sample: messages.Sample) -> float:
    return sum(gpu.power or 0.0 for gpu in sample.gpus)
