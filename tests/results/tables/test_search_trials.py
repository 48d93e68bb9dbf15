"""The table of a search: every trial, the best marked, and what can be said of it."""

from __future__ import annotations

import pytest

from results import report
from results.records.schema import Exit, MetricRecord, RunRecord, TrialRecord
from results.records.suite_view import SearchView, SuiteView
from results.tables import search_trials
from results.text.table import render_markdown

SEARCH = SearchView(
    metric="recall@1", direction="maximize", trials=5, sampler="tpe", pruner="median", seed=7,
    ranges={"lr": "1e-05 … 0.01 (log)", "layers": "[3, 7], [5]"},
)  # fmt: skip
DETAIL = "pruned at 20 % of its training: loss 3.468, where half had done better"


def trial(make, number: int, value: float | None, half: float | None = 0.02, **more) -> RunRecord:
    settings = {"lr": 10.0**-number, "layers": [3, 7] if number % 2 else [5]}
    metrics = ()
    if value is not None:
        low, high = (None, None) if half is None else (value - half, value + half)
        metrics = (
            MetricRecord(name="recall@1", value=value, split="val", n=50, low=low, high=high),
        )
    record = make.record(f"t{number:04d}", metrics=metrics, steps=40, planned_steps=40, **more)
    identity = record.identity.model_copy(
        update={"trial": TrialRecord(number=number, settings=settings), "label": f"trial {number}"}
    )
    return record.model_copy(update={"identity": identity})


def pruned(make, number: int) -> RunRecord:
    record = trial(make, number, None, exit=Exit(cause="pruned", code=143, detail=DETAIL))
    return record.model_copy(update={"steps": 8})


def test_every_trial_is_a_row_and_the_best_is_marked(make):
    records = [trial(make, 1, 0.2), trial(make, 2, 0.5), pruned(make, 3), trial(make, 4, 0.49)]
    table = render_markdown(search_trials.table(records, SEARCH))
    assert "| trial | `lr` | `layers` | `recall@1` | steps | wall-clock | end |" in table
    assert "| 1 | 0.1 | \\[3, 7\\] | 0.200 [0.180, 0.220] | 40 |" in table
    assert "| 2 | 0.01 | \\[5\\] | 0.500 [0.480, 0.520] **[best]** | 40 |" in table
    assert "| 3 | 0.001 | \\[3, 7\\] | – | 8 of 40 |" in table
    assert DETAIL in table
    assert "4 of 5 trials, chosen by tpe (seed 7), pruner: median." in table
    assert "the intervals of 1 of the 2 other completed trials meet its own" in table
    assert "Searched: lr: 1e-05 … 0.01 (log); layers:" in table
    assert "PED-ANOVA" not in table


def test_lower_may_be_better(make):
    down = SEARCH.model_copy(update={"direction": "minimize"})
    records = [trial(make, 1, 0.5), trial(make, 2, 0.2), trial(make, 3, float("nan"))]
    assert search_trials.best_trial(records, down) is records[1]
    assert search_trials.best_trial(records, SEARCH) is records[0]
    assert search_trials.best_trial([records[2], pruned(make, 4)], SEARCH) is None


def test_a_split_is_asked_for_by_name(make):
    elsewhere = SEARCH.model_copy(update={"split": "other"})
    assert search_trials.best_trial([trial(make, 1, 0.5)], elsewhere) is None
    assert search_trials.best_trial(
        [trial(make, 1, 0.5)], SEARCH.model_copy(update={"split": "val"})
    )


def test_a_metric_without_interval_makes_no_claim_about_others(make):
    table = render_markdown(
        search_trials.table([trial(make, 1, 0.5, None), trial(make, 2, 0.4, None)], SEARCH)
    )
    assert (
        "Trial 1 is better than the 1 others, but the best of many trials is always partly chance"
        in table
    )
    assert "meet its own" not in table


def test_importances_and_trouble_are_said(make):
    more = {"importances": {"lr": 0.9, "layers": 0.1}, "trouble": "the last 3 trials failed: `x`"}
    table = render_markdown(
        search_trials.table([trial(make, 1, 0.5)], SEARCH.model_copy(update=more))
    )
    assert "lr 90.0 %, layers 10.0 %" in table
    assert "The search ended early: the last 3 trials failed: \\`x\\`" in table


@pytest.mark.parametrize(("lang", "heading"), [("en", "## Search"), ("ko", "## 탐색")])
def test_a_report_has_the_search(make, lang, heading):
    view = SuiteView(name="s", state="ended", records=(trial(make, 1, 0.5),), search=SEARCH)
    assert heading in report.render(view, lang)
    assert heading not in report.render(view.model_copy(update={"search": None}), lang)
