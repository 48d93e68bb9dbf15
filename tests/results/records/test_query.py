"""Choosing among records, and comparing two of them."""

import json
import math
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from results.records import query
from results.records.schema import MetricRecord
from results.tables import comparison
from results.tables.table import render_markdown


def _attempt(make, run_id, attempt, **more):
    return make.record(run_id, identity={"attempt": attempt}, **more)


def test_the_last_attempt_counts_whatever_the_order(make):
    first, second = _attempt(make, "01-run", 1), _attempt(make, "01-run", 2)
    other = _attempt(make, "02-run", 1)
    assert query.last_attempts([first, other, second]) == [second, other]
    assert query.last_attempts([second, other, first]) == [second, other]


def test_a_later_line_corrects_an_earlier_one(make):
    wrong, right = _attempt(make, "01-run", 1, steps=1), _attempt(make, "01-run", 1, steps=2)
    assert query.last_attempts([wrong, right]) == [right]


def test_equal_run_ids_of_two_suites_are_two_runs(make):
    here, there = make.record(), make.record(identity={"suite": "other"})
    assert query.last_attempts([here, there]) == [here, there]


def test_select_by_pattern(mixed):
    chosen = query.select_records(mixed.records, subset="emoji_*", model="clip-nano")
    assert [r.identity.run_id[:2] for r in chosen] == ["01", "03"]
    assert [r.exit.cause for r in query.select_records(mixed.records, cause="oom-*")] == [
        "oom-cuda"
    ]
    assert len(query.select_records(mixed.records, subset="", model="")) == 3
    with pytest.raises(KeyError):
        query.select_records(mixed.records, colour="blue")


@pytest.mark.parametrize("descending", [False, True])
def test_unknown_sorts_last_either_way(make, descending):
    losses = [2.0, math.nan, 0.5, None, 1.0]
    records = [
        make.record(f"0{i}-run", train={} if loss is None else {"loss": loss})
        for i, loss in enumerate(losses)
    ]
    random.Random(1).shuffle(records)
    found = query.sort_records(records, "loss", descending=descending)
    known = [r.train["loss"] for r in found[:3]]
    assert (
        known == sorted(known, reverse=descending) == ([2, 1, 0.5] if descending else [0.5, 1, 2])
    )


def test_order_by_metric_and_by_every_column(mixed):
    by_metric = query.sort_records(mixed.records, "recall@1[image only]@emoji_val", descending=True)
    assert [r.identity.run_id[:2] for r in by_metric] == ["02", "01", "03"]
    for column in query.sortable_columns():
        assert len(query.sort_records(mixed.records, column)) == 3


def test_ten_thousand_records_are_chosen_in_a_blink(make):
    base = make.record()
    records = [
        base.model_copy(
            update={"identity": base.identity.model_copy(update={"run_id": f"{i}-run"})}
        )
        for i in range(10_000)
    ]
    start = time.process_time()
    found = query.sort_records(
        query.select_records(query.last_attempts(records), subset="oven*"), "wall"
    )
    assert len(found) == 10_000
    assert time.process_time() - start < 1.0


def test_tables_and_records_load_nothing_heavy():
    """The workbench imports these itself; only statistics may bring numpy."""
    check = (
        "import sys; from results import report;"
        "from results.records import notes, query, store;"
        "from results.tables import metrics, table, run_cost, steps_and_memory;"
        "print([m for m in ('numpy', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def _scored(make, log_root, run_id, values, name="recall@1", **more):
    """A record whose run left these scores, and its interval as an engine would give it."""
    run = log_root / "suite" / "runs" / run_id
    (run / "predictions").mkdir(parents=True)
    base = name.partition("[")[0]
    lines = (json.dumps({"id": f"q{i}", base: v, "rank": None}) for i, v in enumerate(values))
    (run / "predictions" / "val.jsonl").write_text("\n".join(lines) + "\n")
    mean, error = float(np.mean(values)), 1.96 * float(np.std(values)) / math.sqrt(len(values))
    metric = MetricRecord(
        name=name, value=mean, split="val", n=len(values), low=mean - error, high=mean + error,
        scores_file="predictions/val.jsonl", **more,
    )  # fmt: skip
    return make.record(run_id, metrics=(metric,), folder=f"suite/runs/{run_id}")


@pytest.fixture
def pair(make, tmp_path):
    """b answers four more of 400 queries than a, and loses none."""
    a = [float(i < 200) for i in range(400)]
    b = [float(i < 206) for i in range(400)]
    return _scored(make, tmp_path, "01-a", a), _scored(make, tmp_path, "02-b", b)


def test_the_same_queries_are_paired(pair, tmp_path):
    (found,) = comparison.compare(*pair, tmp_path).deltas
    assert found.difference.delta == pytest.approx(6 / 400)
    assert found.difference.method == "paired bootstrap over 400 queries, 1000, 95%"
    assert found.verdict == "b better"
    (back,) = comparison.compare(*reversed(pair), tmp_path).deltas
    assert (back.difference.delta, back.verdict) == (-found.difference.delta, "a better")


def test_without_scores_the_two_are_not_distinguishable(pair):
    (found,) = comparison.compare(*pair).deltas
    assert found.difference.method == "unpaired, from both intervals (MOVER)"
    assert found.verdict == "not distinguishable"
    table = render_markdown(comparison.table(comparison.compare(*pair)))
    assert "**not distinguishable**" in table
    assert "+0.015 [-0.0" in table


def test_other_queries_are_not_paired(make, tmp_path, pair):
    other = _scored(make, tmp_path, "03-c", [1.0] * 100 + [0.0] * 200)
    (found,) = comparison.compare(pair[0], other, tmp_path).deltas
    assert found.difference.method.startswith("unpaired")


def test_lower_is_better(make, tmp_path):
    a = _scored(make, tmp_path, "01-a", [1.0, 2.0] * 50, "loss", higher_is_better=False)
    b = _scored(make, tmp_path, "02-b", [0.5, 1.5] * 50, "loss", higher_is_better=False)
    (found,) = comparison.compare(a, b, tmp_path).deltas
    assert found.verdict == "b better"


def test_a_variant_finds_its_scores_under_the_plain_name(make, tmp_path):
    run = _scored(make, tmp_path, "01-a", [1.0, 0.0], "recall@1[text only]")
    assert comparison.read_scores(tmp_path, run, run.metrics[0]) == {"q0": 1.0, "q1": 0.0}


@pytest.mark.parametrize("file", ["../../../../secret.jsonl", "/etc/hostname", "predictions", "no"])
def test_scores_outside_of_the_log_root_are_not_read(make, tmp_path, file):
    (tmp_path / "secret.jsonl").write_text('{"id": "q", "recall@1": 1.0}\n')
    log_root = tmp_path / "bench_logs"
    run = _scored(make, log_root, "01-a", [1.0, 0.0])
    metric = run.metrics[0].model_copy(update={"scores_file": file})
    assert comparison.read_scores(log_root, run, metric) == {}


def test_a_torn_score_line_leaves_the_runs_unpaired(pair, tmp_path):
    path = tmp_path / pair[0].folder / "predictions" / "val.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    (found,) = comparison.compare(*pair, tmp_path).deltas
    assert found.difference.method.startswith("unpaired")


def test_what_only_one_has_and_what_differs_is_listed(make, mixed):
    a, b = mixed.records[0], mixed.records[2]
    found = comparison.compare(a, b)
    assert found.deltas == ()
    assert "recall@1 on emoji_val" in found.only_a
    assert "recall@1[chance] on emoji_val" not in found.only_a
    assert {"epochs: 4 ≠ 1", "lr: 0.0005 ≠ 2e-05", "torch: 2.15.0 ≠ –"} <= set(found.unequal)
