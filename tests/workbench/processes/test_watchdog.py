"""Hangs by phase, and the limit of messages a second."""

from __future__ import annotations

import pytest

from engines.messages import Phase, PhaseName, Progress, Step
from workbench.processes.limits import Limits
from workbench.processes.watchdog import HangDetector, RateLimit


def test_silence_is_measured_by_progress_and_by_phase() -> None:
    silence = HangDetector(Limits(), 0.0)
    assert not silence.newly_stalled(599)
    silence.record_message(Phase(name="train"), 600)
    for number in range(1, 4):
        silence.record_message(
            Step(step=number, count=1, samples=1, seconds=9, step_seconds=(9.0,), loss=1, lr=1),
            600 + number,
        )
    assert silence.idle_seconds(603) == 0
    assert not silence.newly_stalled(603 + 179), "20 times 9 s"
    assert silence.newly_stalled(603 + 181)
    assert not silence.newly_stalled(603 + 182), "noted once"
    assert not silence.is_hung(603 + 3599)
    assert silence.is_hung(603 + 3600)
    silence.record_message(Progress(done=1, total=9), 5000)
    silence.record_message(Progress(done=1, total=9), 6000)
    assert silence.idle_seconds(6000) == 1000, "the same progress twice is none"


@pytest.mark.parametrize(("phase", "share"), [("import", 0.5), ("compile", 3), ("eval", 1)])
def test_every_phase_has_its_budget(phase: PhaseName, share: float) -> None:
    silence = HangDetector(Limits(), 0.0)
    silence.record_message(Phase(name=phase), 100)
    assert not silence.newly_stalled(100 + 600 * share - 1)
    assert silence.newly_stalled(100 + 600 * share)
    assert not silence.is_hung(100 + 3600 * share - 1)
    assert silence.is_hung(100 + 3600 * share)


def test_the_rate_limit_lets_a_burst_pass_and_then_its_rate() -> None:
    limit = RateLimit(10)
    assert sum(limit.allows(100.0) for _ in range(50)) == 10
    assert sum(limit.allows(100.5) for _ in range(50)) == 5
