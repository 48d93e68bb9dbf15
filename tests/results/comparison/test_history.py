"""Rankings, and runs beside earlier ones."""

from __future__ import annotations

import math

from results.comparison import history
from results.records.schema import Exit, MetricRecord, Reading


def scored(make, number, value, half=0.01, *, wall=100.0, cause="completed", **identity):
    metrics = [
        MetricRecord(name=name, value=value, split="emoji_val", n=400, low=value - half,
                     high=value + half)
        for name in ("recall@1", "recall@5")
    ]  # fmt: skip
    names = {"suite": "s", "label": f"L{number}", **identity}
    return make.record(
        f"{number:02d}-run", identity=names, metrics=tuple(metrics), exit=Exit(cause=cause),
        timing=make.untimed(end_to_end_seconds=make.reading(value=wall)), ended_wall=float(number),
    )  # fmt: skip


def test_a_ranking_says_what_can_be_told_apart(make) -> None:
    runs = [scored(make, 1, 0.50), scored(make, 2, 0.80), scored(make, 3, 0.795),
            scored(make, 4, 0.99, cause="failed"), scored(make, 5, math.nan)]  # fmt: skip
    (ranking,) = history.rank_runs(runs, {("s", "02-run"): "x/02-run"})
    assert (ranking.split, ranking.metric) == ("emoji_val", "recall@1")
    assert [p.runs[0] for p in ranking.places] == ["x/02-run", "03-run", "01-run"]
    assert [p.verdict for p in ranking.places] == ["best", "not distinguishable", "worse"]


def test_seeds_share_a_place_and_folds_have_none(make) -> None:
    seeds = [scored(make, n, v, label="A", seed=n) for n, v in ((1, 0.5), (2, 0.6))]
    other = scored(make, 3, 0.4)
    (ranking,) = history.rank_runs([*seeds, other], {})
    assert ranking.places[0].runs == ("01-run", "02-run")
    assert ranking.places[0].value == 0.55
    folds = [scored(make, n, 0.5, params={"folds": 3, "fold": n}) for n in (1, 2)]
    assert list(history.rank_runs(folds, {})) == []


def test_a_run_beside_its_earlier_one(make) -> None:
    before = scored(make, 1, 0.50, wall=200.0, suite="old", params={"lr": 1e-3})
    after = scored(make, 2, 0.60, wall=100.0, label="L1", params={"lr": 2e-3})
    (change,) = history.compare_with_period([after], [before], {}, None)
    assert (change.run, change.baseline, change.relation) == ("02-run", "old/01-run", "earlier")
    assert change.settings == (("lr", "0.001", "0.002"),)
    values = {value.name: value for value in change.values}
    assert values["recall@1"].verdict == "better"
    assert round(values["recall@1"].delta, 6) == 0.1
    assert (values["wall"].before, values["wall"].after) == (200.0, 100.0)
    failed = after.model_copy(update={"exit": Exit(cause="failed")})
    assert list(history.compare_with_period([failed], [before], {}, None)) == []


def test_criteria_are_judged_with_the_baseline(make) -> None:
    before, after = scored(make, 1, 0.50), scored(make, 2, 0.60)
    judged = history.judge_criteria(["recall@1 > previous", "ndcg > 0.1"], after, before)
    assert [(c.text, c.verdict) for c in judged] == [
        ("recall@1 > previous", "met"), ("ndcg > 0.1", "not measured"),
    ]  # fmt: skip
    assert Reading(value=judged[0].value).value == 0.60
