"""The fold: what a journal means. Expectations are counted by hand from the entries below."""

from __future__ import annotations

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from engines import messages as msg
from engines import protocol as p
from workbench.suites.curves import MAX_POINTS, Curve
from workbench.suites.state import RunState, advance, reduce_entries


def entries(*messages: msg.Message, start: int = 0) -> list[p.Entry]:
    return [
        p.Entry(seq=start + i, wall=1000.0 + i, src="engine", msg=m) for i, m in enumerate(messages)
    ]


def step(number: int, *, t: float, warmup: bool = False, loss: float = 1.0) -> msg.Step:
    return msg.Step(
        t=t, step=number, count=2, samples=8, seconds=0.5, loss=loss, lr=0.1, warmup=warmup,
        metrics={"r@1": 0.25},
    )  # fmt: skip


WHOLE = entries(
    msg.Attempt(t=0.0, number=1, pid=77),
    msg.Hello(t=0.5, engine="retrieval", pid=77),
    msg.Phase(t=1.0, name="build"),
    msg.Progress(t=1.5, done=5, total=10),
    msg.Phase(t=3.0, name="train"),
    msg.Plan(t=3.0, steps=6, samples=24, effective_batch=4, micro_batch=4),
    step(2, t=3.5, warmup=True),
    step(4, t=4.0, loss=0.5),
    msg.Sample(t=4.1, rss_tree=100, gpus=(msg.Gpu(index=0, used=7), msg.Gpu(index=1, used=9))),
    msg.Sample(t=4.6, rss_tree=80, gpus=(msg.Gpu(index=0, used=5), msg.Gpu(index=1, used=11))),
    step(6, t=5.0, loss=0.25),
    msg.Notice(t=5.0, code="skipped", text="one image", count=3),
    msg.Notice(t=5.0, code="skipped", text="another", count=1),
    msg.Phase(t=5.0, name="eval"),
    msg.Metric(t=6.0, name="recall@1", value=0.5, split="val", n=10),
    msg.Done(t=7.0),
    msg.End(t=7.5, cause="completed", exit_code=0),
)


def test_a_whole_run() -> None:
    run = reduce_entries(WHOLE)
    assert (run.status, run.cause, run.step) == ("ended", "completed", 6)
    assert run.samples == 24
    assert (run.timed_steps, run.timed_seconds, run.timed_samples) == (4, 1.0, 16)
    assert run.phase_seconds() == {"build": 2.0, "train": 2.0, "eval": 2.5}
    assert run.notice_counts == {"skipped": 4}
    assert run.peaks["rss_tree"] == 100
    assert (run.peaks["vram_device[0]"], run.peaks["vram_device[1]"]) == (7, 11)
    assert run.curves["loss"].points == ((2, 1.0), (4, 0.5), (6, 0.25))
    assert (run.message_count, run.gaps) == (len(WHOLE), 0)


def test_progress_and_eta_while_it_runs() -> None:
    run = reduce_entries(WHOLE[:4])
    assert (run.status, run.phase, run.fraction, run.eta_seconds) == ("running", "build", 0.5, None)
    run = reduce_entries(WHOLE[:8])
    assert run.fraction == 4 / 6
    assert run.eta_seconds == 2 * 0.25  # two steps left at 0.25 s a timed step


def test_the_eta_counts_what_an_engine_does_between_steps() -> None:
    slow = entries(msg.Plan(steps=6, samples=24, effective_batch=4, micro_batch=4), start=50)
    slow += entries(step(2, t=103.5), step(4, t=203.5), start=51)
    run = reduce_entries(slow, reduce_entries(WHOLE[:5]))
    # Four steps from 103.0 (0.5 s before the first window's end) to 203.5; two are left.
    assert run.eta_seconds == 2 * (203.5 - 103.0) / 4


def test_folding_in_pieces_is_folding_at_once() -> None:
    for cut in range(len(WHOLE) + 1):
        assert reduce_entries(WHOLE[cut:], reduce_entries(WHOLE[:cut])) == reduce_entries(WHOLE)


def test_many_steps_together_are_the_same_steps_one_by_one() -> None:
    rng = random.Random(4)
    steps = [
        step(number, t=number / 3, warmup=number < 5, loss=rng.random()).model_copy(
            update={
                "samples": rng.choice((1, 8)), "count": rng.randrange(3),
                "grad_norm": rng.choice((None, 2.5)), "forward": rng.choice((None, 0.1)),
                "skipped_steps": rng.randrange(2), "metrics": {rng.choice("ab"): 0.5},
            }
        )
        for number in range(2_100)
    ]  # fmt: skip
    journal = [*WHOLE[:6], *entries(*steps, start=8), *WHOLE[6:8]]
    one_by_one = RunState()
    for entry in journal:
        one_by_one = advance(one_by_one, entry)
    together = reduce_entries(journal)
    assert together == one_by_one
    assert (together.message_count, together.gaps) == (2_106, 2)
    assert together.samples == sum(s.samples for s in steps)
    assert together.timed_steps == sum(s.count for s in steps[5:])


def test_entries_seen_before_are_ignored_and_missing_ones_counted() -> None:
    run = reduce_entries(WHOLE)
    assert reduce_entries(WHOLE, run) == run
    assert reduce_entries([*WHOLE[:3], *WHOLE[5:]]).gaps == 2


def test_a_new_attempt_starts_afresh_but_keeps_the_place_in_the_journal() -> None:
    again = entries(msg.Attempt(number=2, pid=78), start=len(WHOLE))
    run = reduce_entries([*WHOLE, *again])
    assert (run.attempt, run.status, run.step, run.cause) == (2, "starting", 0, "")
    assert run.last_seq == len(WHOLE)
    assert run.curves == {}


def test_unknown_kinds_are_counted_not_refused() -> None:
    entry = p.decode_entry(b'{"seq":0,"wall":0,"src":"engine","msg":{"kind":"later","x":[1]}}')
    assert advance(RunState(), entry).unknown == 1


def test_nan_loss_stays_nan() -> None:
    run = reduce_entries(entries(step(1, t=0.0, loss=math.nan)))
    assert run.last is not None
    assert math.isnan(run.last.loss)
    assert math.isnan(run.curves["loss"].points[0][1])


@settings(deadline=None)
@given(st.lists(st.integers(min_value=1, max_value=1500), max_size=5))
def test_curves_stay_bounded_even_and_keep_the_newest(parts: list[int]) -> None:
    curve, count = Curve(), sum(parts)
    for part in parts:
        added = range(curve.offered, curve.offered + part)
        curve = curve.extend(added, added)
    xs = [x for x, _ in curve.points]
    assert len(xs) <= MAX_POINTS
    assert xs == list(range(0, count, curve.stride))[: len(xs)]
    if count:
        assert curve.values()[0] == 0
        assert curve.values()[-1] == count - 1
