"""States of a run at earlier moments."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from engines import protocol
from engines.messages import Attempt, Phase, Step
from tests.workbench.tui import sample_suites
from workbench.suites import suite
from workbench.tui.view_models.live import history


def test_a_moment_has_the_state_of_then(log_root: Path) -> None:
    folder = sample_suites.make_suite(log_root, [("emoji_train", "clip-nano")])
    journal = sample_suites.begin(folder, 1)
    sample_suites.finish(journal, sample_suites.train(journal, 200, 200), "emoji_val")
    run, spec = suite.read_runs(folder)[0]
    whole = history.read_history(run, spec.run_id)
    assert whole.end == whole.states[-1].t
    early, late = whole.find_state(8.0), whole.find_state(1e9)
    assert early is not None
    assert late is not None
    assert early.t <= 8.0
    assert 0 < early.step < 200
    assert (early.phase, late.cause) == ("train", "completed")
    assert not early.metrics
    assert late.metrics
    assert whole.find_state(-1.0) is whole.states[0]
    assert history.RunHistory("r").find_state(1.0) is None


def test_a_long_run_keeps_a_bounded_number_of_moments_evenly() -> None:
    entries = [
        protocol.Entry(
            seq=n, wall=0.0, src="engine",
            msg=Step(
                t=float(n), step=n, count=1, samples=1, seconds=1.0, loss=1.0, lr=1.0
            ),
        )
        for n in range(1, 5_000)
    ]  # fmt: skip
    states = history.thin_states(entries)
    assert 250 <= len(states) <= history.MAX_MOMENTS + 1
    assert states[-1].step == 4_999
    gaps = [after.t - before.t for before, after in pairwise(states)]
    assert max(gaps) <= 2 * 5_000 / history.MAX_MOMENTS * 2
    assert all(not state.curves for state in states)


def test_only_the_last_attempt_is_kept() -> None:
    messages = [
        Attempt(number=1, pid=1), Phase(t=9.0, name="train"),
        Attempt(number=2, pid=2), Phase(t=1.0, name="load"),
    ]  # fmt: skip
    states = history.thin_states(
        protocol.Entry(seq=n, wall=0.0, src="engine", msg=m) for n, m in enumerate(messages)
    )
    assert [state.attempt for state in states] == [2, 2]
