"""Choosing among records."""

import math
import random
import subprocess
import sys
import time

import pytest

from results.records import query


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
    found = query.sort_records(query.last_attempts(records), "wall")
    assert len(found) == 10_000
    assert time.process_time() - start < 1.0


def test_tables_and_records_load_nothing_heavy():
    """The workbench imports these itself; only statistics may bring numpy."""
    check = (
        "import sys; from results import report;"
        "from results.records import notes, query, store;"
        "from results.tables import metrics, run_cost, steps_and_memory;"
        "from results.text import table;"
        "print([m for m in ('numpy', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
