"""Verdicts of a gate: what is worse, what is good enough, and what cannot be told."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from results.comparison import gate, gate_report
from results.comparison.gate import Verdict, check_sides
from results.comparison.groups import RunGroup
from results.records.schema import Environment, MetricRecord, Reading
from results.text.sanitize import dump_json
from tests.results.conftest import untimed
from tests.results.report.korean_sources import english

NOISE = np.array([0.0, 0.004, -0.003, 0.002, -0.004])


def timed(make, seconds, cpu="cpu a", **changes):
    return RunGroup("", tuple(
        make.record(f"{at:02d}", timing=untimed(step_median=Reading(value=float(value))),
                    environment=Environment(cpu=cpu), **changes)
        for at, value in enumerate(seconds)
    ))  # fmt: skip


def measured(make, *values, n=400, half=0.01, **more):
    metric = dict(name="recall@1", split="val", n=n, **more)
    return RunGroup("", tuple(
        make.record(f"{at:02d}", identity={"seed": at}, metrics=(
            MetricRecord(value=value, low=value - half, high=value + half, **metric),))
        for at, value in enumerate(values)
    ))  # fmt: skip


def check(a, b, *names, threshold=0.02, **options):
    (check,) = check_sides(a, b, names or ("step",), threshold, paired=True, **options)
    return check


@pytest.mark.parametrize(
    ("slower", "verdict"),
    [(1.05, "worse"), (1.0, "pass"), (0.9, "pass"), (1.02, "inconclusive")],
)
def test_a_step_is_worse_only_above_the_threshold_with_its_whole_interval(make, slower, verdict):
    a, b = timed(make, 0.1 * (1 + NOISE)), timed(make, 0.1 * slower * (1 + NOISE[::-1]))
    result = check(a, b)
    assert result.verdict == verdict
    assert result.harm.delta == pytest.approx(slower - 1, abs=1e-3)
    assert ("2.0% lies within" in result.reason) == (verdict == "inconclusive")


def test_four_processes_and_another_machine_tell_nothing(make):
    a, b = timed(make, [0.1] * 4), timed(make, [0.2] * 4)
    assert "5 processes a side are needed; there are 4 and 4" in check(a, b).reason
    a, b = timed(make, 0.1 + NOISE), timed(make, 0.2 + NOISE, cpu="cpu b")
    assert check(a, b).reason == "measured on machines with another CPU: cpu a, cpu b"
    assert check(a, b).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("values", "higher", "verdict"),
    [((0.8, 0.7), True, "worse"), ((0.8, 0.9), True, "pass"), ((0.8, 0.9), False, "worse"),
     ((0.8, 0.79), True, "inconclusive"), ((0.0, 0.5), True, "inconclusive")],
)  # fmt: skip
def test_a_metric_is_worse_in_its_own_direction(make, values, higher, verdict):
    a, b = (measured(make, value, higher_is_better=higher) for value in values)
    assert check(a, b, "recall@1@val").verdict == verdict
    assert check(a, b, "recall@1").verdict == verdict


def test_what_has_no_relative_change_shows_none(make):
    for value, reason in ((float("nan"), "a value is not finite"), (0.0, "the baseline is 0")):
        result = check(measured(make, value), measured(make, 0.8), "recall@1")
        assert (result.verdict, result.reason.partition(":")[0]) == (Verdict.INCONCLUSIVE, reason)
        shown = gate_report.render([result], 0.02, markdown=True)
        assert "%" not in shown.partition("| `recall@1@val` |")[2].splitlines()[0]
        assert json.loads(dump_json(gate_report.to_row(result)))["harm"] is None
        korean = gate_report.render([result], 0.02, "ko", markdown=True)
        assert korean.startswith("### Gate: 판정 불가 (허용 저하 2.0%)")
        assert not english(korean)
    equal = check(measured(make, 0.8), measured(make, 0.8), "recall@1")
    assert "+0.0% [" in gate_report.render([equal], 0.02, markdown=False)


def test_repeats_of_a_seed_are_no_seeds(make):
    """Equal seeds give equal values; counted as seeds they would claim certainty."""
    a = RunGroup("", measured(make, 0.8).records * 5)
    b = RunGroup("", measured(make, 0.79).records * 5)
    result = check(a, b, "recall@1")
    assert result.harm.method == "unpaired, from both intervals (MOVER)"
    assert result.verdict is Verdict.INCONCLUSIVE


def test_an_unknown_number_is_named(make):
    with pytest.raises(ValueError, match="rouge: no cost or metric"):
        check(measured(make, 0.8), measured(make, 0.8), "recall@1", "rouge")


def test_runs_without_a_cost_leave_with_their_pair(make):
    """Each side alone would shift: run 3 of one against run 4 of the other."""
    seconds = np.array([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4])
    a, b = timed(make, seconds).records, timed(make, seconds).records
    none = untimed(step_median=Reading(value=None, reason="no GPU"))
    first = RunGroup("", (a[0].model_copy(update={"timing": none}), *a[1:]))
    second = RunGroup("", (*b[:6], b[6].model_copy(update={"timing": none})))
    result = check(first, second)
    assert (result.n, result.harm.delta, result.verdict) == (5, pytest.approx(0), Verdict.PASS)
    with pytest.raises(ValueError, match="7 and 6 runs cannot be paired"):
        check(first, RunGroup("", second.records[:6]))


def test_one_run_on_another_machine_makes_costs_incomparable(make):
    a, b = timed(make, 0.1 + NOISE), timed(make, 0.1 + NOISE)
    moved = timed(make, [0.1], cpu="cpu b").records
    reason = "measured on machines with another CPU: cpu a, cpu b"
    assert check(a, RunGroup("", (*b.records[:4], *moved))).reason == reason
    assert check(RunGroup("", (*a.records[:4], *moved)), b).reason == reason


def test_many_checks_share_one_error_rate(make):
    """p of 0.02 is an alarm alone, and none among five checks."""
    generator = np.random.default_rng(0)
    a = 0.1 * np.exp(generator.normal(0, 0.01, 5))
    b = a * 1.05 * np.exp(np.linspace(-0.03, 0.03, 5))
    alone = check(timed(make, a), timed(make, b), threshold=0.0)
    assert (alone.verdict, 0.01 < alone.p < 0.05) == (Verdict.WORSE, True)
    others = tuple(MetricRecord(name=f"m{i}", split="val", n=9, value=1.0) for i in range(4))
    sides = [
        RunGroup(
            "", tuple(r.model_copy(update={"metrics": others}) for r in timed(make, v).records)
        )
        for v in (a, b)
    ]
    checks = check_sides(*sides, ("step", "m0", "m1", "m2", "m3"), 0.0, paired=True)
    assert checks[0].p == alone.p  # only checks with a p count
    assert gate.summarize(checks) is Verdict.WORSE
    assert gate.summarize(checks[1:]) is Verdict.INCONCLUSIVE
    assert gate.summarize([]) is Verdict.NOTHING_MEASURED


def test_an_alarm_lost_to_the_correction_says_so(make):
    generator = np.random.default_rng(0)
    a = 0.1 * np.exp(generator.normal(0, 0.01, 5))
    b = a * 1.05 * np.exp(np.linspace(-0.03, 0.03, 5))
    sides = [
        RunGroup("", tuple(
            r.model_copy(update={
                "identity": r.identity.model_copy(update={"seed": seed}),
                "metrics": tuple(
                    MetricRecord(name=name, split="val", n=9, value=generator.normal(0.5, 0.1))
                    for name in ("m0", "m1", "m2", "m3")
                ),
            })
            for seed, r in enumerate(timed(make, seconds).records)
        ))
        for seconds in (a, b)
    ]  # fmt: skip
    step, *_ = check_sides(*sides, ("step", "m0", "m1", "m2", "m3"), 0.0, paired=True)
    assert step.harm.low > 0
    assert (step.verdict, 0.05 < step.p < 0.25) == (Verdict.INCONCLUSIVE, True)
    assert step.reason == f"p = {step.p:.2g} after Holm's correction over all checks"


def test_an_alarm_needs_more_than_noise_and_a_second_measurement(make):
    alarm = check(timed(make, 0.1 * (1 + NOISE)), timed(make, 0.105 * (1 + NOISE[::-1])))
    assert alarm.verdict is Verdict.WORSE
    held = gate.apply_noise_floor(alarm, 0.06)
    assert (held.verdict, held.reason) == (
        Verdict.INCONCLUSIVE, "within the noise of this machine, ±6.0% between equal sides",
    )  # fmt: skip
    assert gate.apply_noise_floor(alarm, 0.03) is alarm
    assert gate.confirm([alarm], [alarm]) == [alarm]
    (denied,) = gate.confirm([alarm], [alarm._replace(verdict=Verdict.PASS)])
    assert (denied.verdict, denied.reason) == (Verdict.INCONCLUSIVE, gate.NOT_CONFIRMED)


def test_noise_holds_its_share_of_equal_sides():
    """The mean of 5 pairs stays below the noise of 20 others in 97.5 % of the cases."""
    generator = np.random.default_rng(1)
    below = [
        np.expm1(generator.normal(0, 0.02, 5).mean())
        <= gate.noise_bound(generator.normal(0, 0.02, 20).tolist(), 5)
        for _ in range(400)
    ]
    assert 0.955 <= np.mean(below) <= 0.995
    with pytest.raises(ValueError, match="one pair"):
        gate.noise_bound([0.1], 5)


def test_forms_of_the_checks(make):
    slow = check(timed(make, 0.1 * (1 + NOISE)), timed(make, 0.105 * (1 + NOISE[::-1])))
    unsure = check(measured(make, 0.8), measured(make, 0.79), "recall@1")
    checks = [slow, unsure]
    text = gate_report.render(checks, 0.02, markdown=True)
    assert text.startswith("### Gate: worse (accepted: 2.0% worse)\n")
    assert "**worse**" in text
    suite = ElementTree.fromstring(gate_report.render_junit(checks))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "1")
    assert suite.find("testcase/failure").get("message").startswith("100.0 ms → 105.0 ms, +5.0%")
    row = json.loads(json.dumps(gate_report.to_row(slow)))
    assert (row["check"], row["verdict"], row["n"]) == ("step", "worse", 5)
