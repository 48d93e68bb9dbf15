"""Comparison of runs and of groups of seeds, from records and score files."""

import json
import math

import numpy as np
import pytest

from results.comparison.groups import RunGroup, compare_groups
from results.comparison.scores import read_scores
from results.records.schema import MetricRecord, Reading
from results.tables import comparison as tables
from results.text.table import render_markdown
from tests.results.conftest import untimed
from tests.results.report.korean_sources import english


def scored(make, log_root, run_id, values, name="recall@1", clusters=None, **more):
    """A record whose run left these scores, and its interval as an engine would give it."""
    run = log_root / "suite" / "runs" / run_id
    (run / "predictions").mkdir(parents=True)
    base = name.partition("[")[0]
    lines = [{"id": f"q{i}", base: v, "rank": None} for i, v in enumerate(values)]
    for line, cluster in zip(lines, clusters or [], strict=False):
        line["cluster"] = cluster
    (run / "predictions" / "val.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    mean, error = float(np.mean(values)), 1.96 * float(np.std(values)) / math.sqrt(len(values))
    metric = MetricRecord(
        name=name, value=mean, split="val", n=len(values), low=mean - error, high=mean + error,
        scores_file="predictions/val.jsonl", **more,
    )  # fmt: skip
    return make.record(run_id, metrics=(metric,), folder=f"suite/runs/{run_id}")


def compare(*sides, log_root=None, **options):
    a, b = (RunGroup("", side if isinstance(side, tuple) else (side,)) for side in sides)
    return compare_groups(a, b, log_root, **options)


@pytest.fixture
def pair(make, tmp_path):
    """b answers six more of 400 queries than a, and loses none."""
    a = [float(i < 200) for i in range(400)]
    b = [float(i < 206) for i in range(400)]
    return scored(make, tmp_path, "01-a", a), scored(make, tmp_path, "02-b", b)


def test_the_same_queries_are_paired(pair, tmp_path):
    (change,) = compare(*pair, log_root=tmp_path).metrics
    assert change.test.difference.delta == pytest.approx(6 / 400)
    assert change.test.difference.method == "paired bootstrap over 400 items, 1000, 95%"
    assert change.p == pytest.approx(2 / 2**6)
    assert change.verdict == "b better"
    (back,) = compare(*reversed(pair), log_root=tmp_path).metrics
    assert (back.test.difference.delta, back.verdict) == (-change.test.difference.delta, "a better")


def test_queries_of_one_passage_count_as_one(make, tmp_path):
    """All six that b wins belong to two passages: that may be chance."""
    clusters = [f"p{i // 3}" for i in range(400)]
    a = scored(make, tmp_path, "01-a", [float(i < 198) for i in range(400)], clusters=clusters)
    b = scored(make, tmp_path, "02-b", [float(i < 204) for i in range(400)], clusters=clusters)
    (change,) = compare(a, b, log_root=tmp_path).metrics
    assert (change.test.clusters, change.p) == (134, 0.5)
    assert "134 clusters of 400 items" in change.test.difference.method
    assert change.verdict == "not distinguishable"


def test_without_scores_the_two_are_not_distinguishable(pair):
    comparison = compare(*pair)
    (change,) = comparison.metrics
    assert change.test.difference.method == "unpaired, from both intervals (MOVER)"
    assert change.verdict == "not distinguishable"
    assert "+0.015 [-0.0" in render_markdown(tables.metrics_table(comparison))


def test_what_has_no_test_is_explained_too(make, pair):
    """Published runs have neither scores nor intervals, and their metrics are the news."""
    lines = tables.explain(compare(*pair), [])
    assert lines[1] == "recall@1 (val): +0.015 [-0.054, 0.084]: not distinguishable"
    published = [
        make.record(
            name, metrics=[MetricRecord(name="METEOR", value=v, split=split, n=97)
                           for split in ("train", "val")])
        for name, v in (("01", 0.066), ("02", math.nan))
    ]  # fmt: skip
    lines = tables.explain(compare(published[0], published[0]), [])
    assert [line.partition(":")[0] for line in lines[1:3]] == ["METEOR (val)", "METEOR (train)"]
    assert "METEOR (val): NaN: no interval" in tables.explain(compare(*published), [])


def test_other_queries_are_not_paired(make, tmp_path, pair):
    other = scored(make, tmp_path, "03-c", [1.0] * 100 + [0.0] * 200)
    (change,) = compare(pair[0], other, log_root=tmp_path).metrics
    assert change.test.difference.method.startswith("unpaired")


def test_lower_is_better(make, tmp_path):
    a = scored(make, tmp_path, "01-a", [1.0, 2.0] * 50, "loss", higher_is_better=False)
    b = scored(make, tmp_path, "02-b", [0.5, 1.5] * 50, "loss", higher_is_better=False)
    (change,) = compare(a, b, log_root=tmp_path).metrics
    assert change.verdict == "b better"


def seeded(record, seed):
    identity = record.identity.model_copy(update={"seed": seed})
    return record.model_copy(update={"identity": identity})


def test_seeds_on_both_sides_hold_the_noise_of_training(make, tmp_path):
    """The means differ as seeds of one side do; paired over queries it would be certain."""
    rates = {"a": (0.40, 0.50, 0.45), "b": (0.47, 0.42, 0.53)}
    sides = [
        tuple(
            seeded(
                scored(
                    make, tmp_path, f"{side}-{seed}", [float(i < 1000 * r) for i in range(1000)]
                ),
                seed,
            )
            for seed, r in enumerate(rates[side])
        )
        for side in rates
    ]
    seeds = compare(*sides, log_root=tmp_path)
    (change,) = seeds.metrics
    assert seeds.over_seeds
    assert "3 and 3 seeds" in change.test.difference.method
    assert change.verdict == "not distinguishable"
    (single,) = compare(sides[0][0], sides[1][0], log_root=tmp_path).metrics
    assert single.verdict == "b better"
    assert "nothing about the noise of training" in render_markdown(
        tables.metrics_table(compare(sides[0][0], sides[1][0], log_root=tmp_path))
    )


def test_repeats_of_a_seed_say_nothing_about_the_noise_of_training(make, tmp_path):
    """Two runs of a deterministic training are equal: Welch's t over them would be certain."""
    a = tuple(scored(make, tmp_path, f"a-{i}", [0.0, 1.0] * 50) for i in range(2))
    b = tuple(scored(make, tmp_path, f"b-{i}", [0.0, 1.0] * 49 + [1.0, 1.0]) for i in range(2))
    comparison = compare(a, b, log_root=tmp_path)
    (change,) = comparison.metrics
    assert (change.verdict, comparison.over_seeds) == ("not distinguishable", False)
    assert "seeds" not in change.test.difference.method


def test_one_run_beside_seeds_is_compared_with_their_mean(make, tmp_path):
    """The difference is that of the values shown: the mean of the seeds, not the first of them."""
    rates = (0.40, 0.50)
    seeds = tuple(
        seeded(scored(make, tmp_path, f"a-{n}", [float(i < 100 * r) for i in range(100)]), n)
        for n, r in enumerate(rates)
    )
    single = scored(make, tmp_path, "b-0", [float(i < 48) for i in range(100)])
    for log_root, interval in ((tmp_path, True), (None, False)):
        comparison = compare(seeds, single, log_root=log_root)
        (change,) = comparison.metrics
        assert change.a.value == pytest.approx(0.45)
        assert change.test.difference.delta == pytest.approx(0.03)
        assert (change.test.difference.low is not None) == interval
        assert not comparison.over_seeds
        (wall,) = [cost for cost in comparison.costs if cost.name == "wall"]
        assert (wall.difference.delta, wall.verdict) == (0, "no interval")


def test_the_methods_of_a_korean_table_are_korean(pair, make, tmp_path):
    seeds = tuple(seeded(pair[0], n) for n in range(2))
    for sides, root in ((pair, tmp_path), (pair, None), ((seeds, seeds), None)):
        table = tables.metrics_table(compare(*sides, log_root=root), "ko")
        assert not english(render_markdown(table))


def test_costs_with_intervals_have_a_verdict_and_single_readings_none(make):
    def run(run_id, step, low, high, wall):
        return make.record(run_id, timing=untimed(
            step_median=Reading(value=step, low=low, high=high),
            end_to_end_seconds=Reading(value=wall)))  # fmt: skip

    changes = compare(run("01", 0.2, 0.19, 0.21, 60.0), run("02", 0.1, 0.09, 0.11, 40.0)).costs
    verdicts = {change.name: change.verdict for change in changes}
    assert (verdicts["step"], verdicts["wall"]) == ("b less", "no interval")


def test_a_cost_that_was_not_measured_has_its_reason(make):
    short = Reading(reason="all 18 steps are warm-up")
    a, b = (make.record(name, timing=untimed(step_median=step)) for name, step in (
        ("01", Reading(value=0.2)), ("02", short)))  # fmt: skip
    comparison = compare(a, b)
    assert "step" not in {change.name for change in comparison.costs}
    remarks = [cell.text for cell in tables.costs_table(comparison, other="C").remarks]
    assert "step, median: C n/a (all 18 steps are warm-up)" in remarks
    both = [cell.text for cell in tables.costs_table(compare(b, b)).remarks]
    assert "step, median: n/a (all 18 steps are warm-up)" in both


def test_variants_and_cutoffs_cost_certainty_only_when_asked_for(make, tmp_path):
    runs = [make.record(name, metrics=tuple(
        MetricRecord(name=metric, value=0.5, split="val", n=9)
        for metric in ("recall@1", "recall@20", "recall@1[text only]", "recall@1[chance]")
    )) for name in ("01", "02")]  # fmt: skip
    assert [c.name for c in compare(*runs).metrics] == ["recall@1"]
    assert len(compare(*runs, every_metric=True).metrics) == 3


def test_a_variant_finds_its_scores_under_the_plain_name(make, tmp_path):
    run = scored(make, tmp_path, "01-a", [1.0, 0.0], "recall@1[text only]")
    assert read_scores(tmp_path, run, run.metrics[0]).values == {"q0": 1.0, "q1": 0.0}


def test_scores_are_those_of_the_file_as_it_is(make, tmp_path):
    run = scored(make, tmp_path, "01-a", [1.0, 0.0])
    assert read_scores(tmp_path, run, run.metrics[0]).values == {"q0": 1.0, "q1": 0.0}
    with (tmp_path / run.folder / "predictions" / "val.jsonl").open("a") as file:
        file.write('{"id": "q2", "recall@1": 1.0}\n')
    assert read_scores(tmp_path, run, run.metrics[0]).values["q2"] == 1.0


@pytest.mark.parametrize("file", ["../../../../secret.jsonl", "/etc/hostname", "predictions", "no"])
def test_scores_outside_of_the_log_root_are_not_read(make, tmp_path, file):
    (tmp_path / "secret.jsonl").write_text('{"id": "q", "recall@1": 1.0}\n')
    log_root = tmp_path / "bench_logs"
    run = scored(make, log_root, "01-a", [1.0, 0.0])
    metric = run.metrics[0].model_copy(update={"scores_file": file})
    assert read_scores(log_root, run, metric).values == {}


def test_a_torn_score_line_leaves_the_runs_unpaired(pair, tmp_path):
    path = tmp_path / pair[0].folder / "predictions" / "val.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    (change,) = compare(*pair, log_root=tmp_path).metrics
    assert change.test.difference.method.startswith("unpaired")


def test_what_only_one_has_is_listed(mixed):
    comparison = compare(mixed.records[0], mixed.records[2])
    assert comparison.metrics == ()
    assert "recall@1 (emoji_val)" in comparison.only_a
    assert "recall@1[chance] (emoji_val)" not in comparison.only_a
    assert "No metric that both have." in tables.explain(comparison, [])
    shown = render_markdown(tables.metrics_table(comparison))
    assert "No metric that both have." in shown
    assert "|" not in shown, "no table without a row"
