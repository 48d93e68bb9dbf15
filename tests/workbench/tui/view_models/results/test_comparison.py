"""Rows of the Compare screen from the command's JSON."""

from __future__ import annotations

import json
from typing import Any

from workbench.tui.view_models.cells import CellLike, GridCell
from workbench.tui.view_models.results import comparison

ROW: dict[str, Any] = {
    "metrics": [
        {"metric": "recall@1", "split": "val", "a": 0.1, "b": 0.5, "delta": 0.4, "low": 0.3,
         "high": 0.5, "verdict": "b better"},
        {"metric": "mrr@10", "split": "val", "a": 0.1, "b": 0.1, "delta": 0.0, "low": None,
         "high": None, "verdict": "no interval"},
    ],
    "costs": [
        {"name": "rss", "a": 2.0 * 2**30, "b": 1.0 * 2**30, "verdict": "not distinguishable"},
    ],
    "differences": [{"kind": "settings", "name": "lr", "a": [2.0, None], "b": [1e-3]}],
    "cases": {
        "metric": "recall@1", "split": "val", "subset": "val",
        "counts": {"b better": 1200, "a better": 1, "both 0": 0, "equal": 3},
        "cases": [
            {"kind": "b better", "id": "q1", "a": 0.0, "b": 1.0,
             "a_line": {"id": "q1", "rank": None, "top": ["wiki:x\x1b[2J", "y"]},
             "b_line": {"id": "q1", "rank": 1, "top": []}},
            {"kind": "a better", "id": "q2", "a": 0.7, "b": 0.2,
             "a_line": {"caption": "a dog", "references": ["a hound"]},
             "b_line": {"caption": "cat"}},
        ],
    },
}  # fmt: skip


def texts(row: tuple[CellLike, ...]) -> list[str]:
    return [cell.text if isinstance(cell, GridCell) else cell for cell in row]


def test_each_line_is_a_pair_with_its_letter() -> None:
    line = json.dumps({**ROW, "note": "a\u2028b"}, ensure_ascii=False)
    b, c = comparison.parse_comparisons(f"{line}\n{line}\n")
    assert (b.letter, c.letter) == ("B", "C")
    metric, equal, rss = map(texts, comparison.metric_rows(c))
    assert metric == [
        "recall@1",
        "val",
        "0.1000",
        "0.5000",
        "+0.4000",
        "[+0.300, +0.500]",
        "C better",
    ]
    assert equal[5:] == ["", "no interval"]
    assert rss == ["max RSS", "", "2.00 GiB", "1.00 GiB", "×0.50", "", "not distinct"]
    assert c.metric_keys == ["recall@1@val", "mrr@10@val"]
    assert [texts(row) for row in comparison.difference_rows(b)] == [["lr", "2, –", "0.001"]]


def test_cases_show_ranks_or_scores_and_what_was_answered() -> None:
    (pair,) = comparison.parse_comparisons(json.dumps(ROW))
    first, second = map(texts, comparison.case_rows(pair))
    assert first == ["B better", "q1", "–", "#1", "wiki:x\\x1b[2J", ""]
    assert second == ["A better", "q2", "0.7000", "0.2000", "a dog", "cat"]
    assert comparison.case_summary(pair) == (
        "recall@1 on val: B better 1,200, A better 1, both 0 0, equal 3"
    )
    a, b = comparison.case_sides(pair, 1)
    assert (a.letter, a.score, a.line["caption"]) == ("A", 0.7, "a dog")
    assert (b.letter, b.score, b.line["id"]) == ("B", 0.2, "q2")
    assert comparison.describe_kind(pair, 1) == "A better"


def test_without_score_files_there_are_no_cases() -> None:
    (pair,) = comparison.parse_comparisons(json.dumps({**ROW, "cases": None}))
    assert comparison.case_rows(pair) == []
    assert comparison.case_summary(pair) == "a run has no scores of single items"
