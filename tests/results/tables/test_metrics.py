"""Tables of metrics and ablations by input."""

import pytest

from results.records.schema import Exit, MetricRecord
from results.tables import metrics as tables_metrics
from results.text.table import (
    plain_text,
    render_markdown,
)


def _metric(name, value, low, high, **more):
    return MetricRecord(name=name, value=value, low=low, high=high, split="val", n=9, **more)


@pytest.mark.parametrize(
    ("full", "text_only", "higher", "verdict"),
    [
        ((0.5, 0.4, 0.6), (0.2, 0.1, 0.3), True, "disjoint"),
        ((0.5, 0.4, 0.6), (0.3, 0.2, 0.4), True, "overlap: text only"),
        ((0.2, 0.1, 0.3), (0.5, 0.4, 0.6), True, "full model worse: text only"),
        ((0.2, 0.1, 0.3), (0.5, 0.4, 0.6), False, "disjoint"),
        ((0.5, None, None), (0.2, 0.1, 0.3), True, "n/a (no interval)"),
    ],
)
def test_ablation_verdicts(make, full, text_only, higher, verdict):
    metrics = (
        _metric("r", *full, higher_is_better=higher),
        _metric("r[text only]", *text_only, higher_is_better=higher),
        _metric("r[chance]", 0.1, None, None),
    )
    table = tables_metrics.ablations([make.record(metrics=metrics)], "val")
    assert [c.title for c in table.columns] == [
        "subset", "metric", "full model", "text only", "intervals",
    ]  # fmt: skip
    assert plain_text(table.rows[0][-1]) == verdict


def test_no_ablation_no_table(make):
    record = make.record(
        metrics=(_metric("r", 0.5, 0.4, 0.6), _metric("r[chance]", 0.1, None, None))
    )
    assert tables_metrics.ablations([record], "val") is None
    assert (
        render_markdown(tables_metrics.metrics([record], "val")).splitlines()[-1]
        == "| chance |  | 0.1000 |"
    )


def test_a_run_that_failed_is_listed_only_where_it_was_to_be_evaluated(make):
    def run(name, cause, params, scores=()):
        return make.record(
            name, identity={"params": params}, metrics=scores, exit=Exit(cause=cause)
        )

    done = run("01-a", "completed", {"evaluate_on": ["val"]}, (_metric("recall@1", 0.5, 0.4, 0.6),))
    failed = run("02-a", "killed", {"evaluate_on": ["val"]})
    other = run("03-b", "killed", {"evaluate_on": ["b_val"]})
    assert len(tables_metrics.metrics([done, failed, other], "val").rows) == 2
    assert len(tables_metrics.metrics([done, run("04", "killed", {})], "val").rows) == 2
