"""Single items of a run: order, search, whose records they are, what was answered and wanted."""

from __future__ import annotations

import json

import pytest

from results.comparison import predictions
from results.records.schema import MetricRecord
from results.tables.predictions import predictions_table
from results.text.table import render_terminal


def write_run(make, log_root, lines, *, split="val", names=("recall@1",), higher=True):
    folder = log_root / "s" / "runs" / "a" / "predictions"
    folder.mkdir(parents=True)
    (folder / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = tuple(
        MetricRecord(name=name, value=0.5, split=split, n=len(lines), higher_is_better=higher,
                     scores_file="predictions/x.jsonl")
        for name in names
    )  # fmt: skip
    return make.record("a", metrics=metrics, folder="s/runs/a")


def test_the_worst_come_first_and_of_equal_ones_the_farthest_from_right(make, tmp_path):
    lines = [
        {"id": "b", "recall@1": 0.0, "rank": 3, "top": ["p2"], "cluster": "p1"},
        {"id": "a", "recall@1": 1.0, "rank": 1, "top": ["p1"], "cluster": "p1"},
        {"id": "none", "recall@1": 0.0, "rank": None, "top": ["p3"], "cluster": "p1"},
        {"id": "far", "recall@1": 0.0, "rank": 90, "top": ["p4"], "cluster": "p1"},
    ]
    run = write_run(make, tmp_path, lines, names=("mrr@10", "recall@1"))
    listed = predictions.list_predictions(run, tmp_path)
    assert listed is not None
    assert [p.id for p in listed.predictions] == ["none", "far", "b", "a"]
    assert (listed.total, listed.matches, listed.metric) == (4, 4, "recall@1")
    assert listed.metrics == ("mrr@10@val", "recall@1@val")
    found = predictions.list_predictions(run, tmp_path, "recall@1@val", "P4", 1)
    assert found is not None
    assert [p.id for p in found.predictions] == ["far"]
    assert (found.total, found.matches) == (4, 1)
    shown = render_terminal(predictions_table(found, "en"))
    assert "p4" in shown
    assert "the worst 1 of 1 items that fit, 4 in all" in shown
    assert "1개, 전체 4개" in render_terminal(predictions_table(found, "ko"))


def test_a_loss_is_worst_where_it_is_high_and_wrong_answers_where_they_are_sure(make, tmp_path):
    lines = [
        {"id": "sure", "loss": 2.0, "probabilities": [0.9, 0.1, 0, 0], "letter": "a"},
        {"id": "unsure", "loss": 2.0, "probabilities": [0.4, 0.3, None, "x"], "letter": "a"},
        {"id": "low", "loss": 0.1},
    ]
    run = write_run(make, tmp_path, lines, names=("loss",), higher=False)
    listed = predictions.list_predictions(run, tmp_path, "loss")
    assert listed is not None
    assert [p.id for p in listed.predictions] == ["sure", "unsure", "low"]


@pytest.mark.parametrize(
    ("line", "answer", "wanted"),
    [
        ({"caption": "a dog", "references": ["a hound", "x"]}, "a dog", "a hound"),
        ({"letter": "b", "truth": "c", "options": ["x", "y", "z", "w"]}, "b  y", "c  z"),
        ({"letter": "b", "truth": "", "options": "xyz"}, "b", ""),
        ({"top": ["p1", "p2"], "cluster": "p2", "rank": 2}, "p1", "p2"),
        ({"top": [], "cluster": "p2"}, "", "p2"),
        ({}, "", ""),
    ],
)
def test_answers_of_all_engines_have_words(line, answer, wanted):
    assert predictions.answer_text(line) == answer
    assert predictions.reference_text(line) == wanted


def test_items_of_own_splits_are_records_of_the_runs_subset(make, tmp_path):
    run = write_run(make, tmp_path, [{"id": "a", "recall@1": 1.0}], split="validation")
    listed = predictions.list_predictions(run, tmp_path)
    assert listed is not None
    assert listed.subset == run.identity.subset
    assert predictions.find_subset(run, "okvqa_test") == "okvqa_test"


@pytest.mark.parametrize("metric", ["mrr@10", "recall@1@test"])
def test_without_a_file_or_the_metric_there_is_none(make, tmp_path, metric):
    run = write_run(make, tmp_path, [{"id": "a", "recall@1": 1.0}])
    assert predictions.list_predictions(run, tmp_path, metric) is None
    (tmp_path / run.folder / "predictions" / "x.jsonl").unlink()
    assert predictions.list_predictions(run, tmp_path) is None
    assert "No metric of this run" in render_terminal(predictions_table(None))


def test_scores_that_are_no_numbers_come_first_and_disturb_no_order(make, tmp_path):
    scores = [0.3, float("nan"), 0.1, 0.2, float("nan"), 0.0]
    lines = [{"id": str(at), "recall@1": score} for at, score in enumerate(scores)]
    listed = predictions.list_predictions(write_run(make, tmp_path, lines), tmp_path)
    assert listed is not None
    assert [p.id for p in listed.predictions] == ["1", "4", "5", "2", "3", "0"]
