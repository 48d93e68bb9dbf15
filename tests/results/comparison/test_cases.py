"""Single items of two runs: kinds, counts, order, what is kept of their lines."""

from __future__ import annotations

import json

import pytest

from results.comparison.cases import compare_cases
from results.records.schema import MetricRecord
from results.tables.comparison import cases_table
from results.text.table import render_terminal


def run(make, log_root, name, scores, metric="recall@1", **line):
    folder = log_root / "s" / "runs" / name / "predictions"
    folder.mkdir(parents=True)
    lines = [{"id": f"q{i}", metric: s, "rank": i + 1, **line} for i, s in enumerate(scores)]
    (folder / "val.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    record = MetricRecord(name=metric, value=0.5, split="val", n=len(scores),
                          scores_file="predictions/val.jsonl")  # fmt: skip
    return make.record(name, metrics=(record,), folder=f"s/runs/{name}")


def test_items_are_counted_by_kind_and_the_largest_differences_come_first(make, tmp_path):
    a = run(make, tmp_path, "a", [0, 0, 1, 1, 0.5, 0], caption="x" * 999, top=list(range(99)))
    b = run(make, tmp_path, "b", [1, 0, 0.2, 1, 1, 0.1, 1])
    compared = compare_cases(a, b, tmp_path, 2)
    assert compared is not None
    assert compared.counts == {"b better": 3, "a better": 1, "both 0": 1, "equal": 1}
    assert [(c.kind, c.id) for c in compared.cases] == [
        ("b better", "q0"), ("b better", "q4"), ("a better", "q2"), ("both 0", "q1"),
    ]  # fmt: skip
    first = compared.cases[0]
    assert (len(first.a_line["caption"]), len(first.a_line["top"])) == (300, 10)
    assert first.a_line["rank"] == 1
    assert "recall@1" not in first.a_line
    assert json.loads(json.dumps(compared.as_row()))["cases"][0]["id"] == "q0"
    shown = render_terminal(cases_table(compared, "ko", "C"))
    assert "C가 더 좋음: 3" in shown
    assert "B가" not in shown
    assert shown.splitlines()[0].split()[-4:] == ["A", "순위", "C", "순위"]


def test_less_is_better_for_a_loss(make, tmp_path):
    """0 is no failure then; with NaN nothing can be compared."""
    nan = float("nan")
    a = run(make, tmp_path, "a", [2.0, 1.0, 0.0, nan], "loss")
    b = run(make, tmp_path, "b", [1.0, 2.0, 0.0, 1.0], "loss")
    a = a.model_copy(
        update={"metrics": (a.metrics[0].model_copy(update={"higher_is_better": False}),)}
    )
    compared = compare_cases(a, b, tmp_path, 2)
    assert compared is not None
    assert compared.counts == {"b better": 1, "a better": 1, "both 0": 0, "equal": 2}
    assert [(c.kind, c.id) for c in compared.cases] == [("b better", "q0"), ("a better", "q1")]


@pytest.mark.parametrize("metric", ["mrr@10", "recall@1@test"])
def test_a_missing_metric_or_file_gives_none(make, tmp_path, metric):
    a, b = (run(make, tmp_path, name, [1.0, 0.0]) for name in "ab")
    assert compare_cases(a, b, tmp_path, 5, metric) is None
    (tmp_path / "s" / "runs" / "b" / "predictions" / "val.jsonl").unlink()
    assert compare_cases(a, b, tmp_path, 5) is None
    assert "No cases" in render_terminal(cases_table(None))
