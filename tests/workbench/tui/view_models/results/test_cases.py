"""Rows, lines and pictures of single items of all engines."""

from __future__ import annotations

import json
from typing import Any

from workbench.tui.view_models.results import cases

RECORD: dict[str, Any] = {
    "id": "q1",
    "fields": {
        "question": "Name\x1b[2J this.", "instruction": "i:", "image_path": "a.png",
        "passage_id": ["p1", "p7"], "passage_text": ["An owl.", "A kite."], "answer": ["owl"],
        "passage_image_path": ["", "p.png"],
    },
    "pictures": {"a.png": {"file": "/cache/a.png"}, "p.png": {"reason": "gone"}},
}  # fmt: skip
PASSAGES = {"p9": {"id": "p9", "text": "A duck.  " * 200, "path": "d.png", "picture": {}}}
RETRIEVED = {"id": "q1", "cluster": "p1", "rank": 2, "top": ["p9", "p7", "p3", "p4"]}


def describe(sides: list[cases.CaseSide], source: cases.CaseSource) -> list[cases.CaseLine]:
    answers = [line for side in sides for line in cases.describe_side(side, source)]
    return cases.describe_item(sides[0], source) + answers


def text_of(lines: list[cases.CaseLine]) -> str:
    return "\n".join(f"{line.name} {line.text}" for line in lines)


def test_a_query_has_question_wanted_and_found_passages() -> None:
    a, b = cases.CaseSide("A", 0.0, RETRIEVED), cases.CaseSide("B", 1.0, {**RETRIEVED, "rank": 1})
    source = cases.CaseSource(RECORD, PASSAGES)
    lines = describe([a, b], source)
    text = text_of(lines)
    assert "question Name\\x1b[2J this." in text
    assert "wanted p1  An owl.\n p7  A kite." in text
    assert "A 0.0000 rank #2" in text
    assert "B 1.0000 rank #1" in text
    right = [line for line in lines if line.tone == "good"]
    assert [line.name for line in right] == ["✓  2", "✓  2"]
    duck = next(line.text for line in lines if line.text.startswith("p9"))
    assert len(duck) < cases.TEXT_CHARACTERS + 10
    assert cases.list_passages([a, b]) == ["p9", "p7", "p3"]
    pictures = cases.list_pictures([a, b], source)
    assert [(p.title, str(p.file), p.reason) for p in pictures] == [
        ("asked", "/cache/a.png", ""), ("wanted", "None", "gone"),
        ("A found", "None", "no picture"), ("B found", "None", "no picture"),
    ]  # fmt: skip


def test_without_the_record_the_positive_of_the_score_file_is_wanted() -> None:
    side = cases.CaseSide("", 0.0, {**RETRIEVED, "top": ["p1"], "rank": None})
    text = text_of(describe([side], cases.CaseSource()))
    assert "wanted p1" in text
    assert "rank –" in text
    assert "✓  1 p1" in text
    assert cases.list_pictures([side], cases.CaseSource()) == []


def test_a_question_has_its_options_with_probabilities() -> None:
    line = {
        "id": "v1", "question": "Which?", "options": ["x", "y", "z", "w"], "truth": "c",
        "letter": "a", "probabilities": ["0.75", 0.2, float("nan"), None], "kind": "what",
        "generated": "(a)", "medium": "m.jpg", "accuracy": 0.0,
    }  # fmt: skip
    lines = describe([cases.CaseSide("", 0.0, line)], cases.CaseSource())
    text = text_of(lines)
    assert "✗● a █████████░░░  75%  x" in text
    assert "✓  c ░░░░░░░░░░░░   0%  z" in text
    assert "right c  z" in text
    assert "written (a)" in text
    assert "kind what" in text
    assert [line.tone for line in lines if line.tone in ("good", "bad")] == ["bad", "good"]


def test_a_caption_stands_against_its_references_with_all_scores() -> None:
    line = {"id": "c1", "medium": "m.jpg", "caption": "a dog", "references": ["a hound", "dog"],
            "METEOR": 0.25}  # fmt: skip
    text = text_of(describe([cases.CaseSide("", 0.25, line)], cases.CaseSource()))
    assert "reference a hound\n dog" in text
    assert "answer a dog" in text
    assert "METEOR 0.2500" in text
    assert "picture m.jpg" in text


def test_the_commands_output_is_parsed() -> None:
    head = {"metric": "recall@1", "split": "val", "subset": "val", "total": 9, "matches": 1,
            "metrics": ["recall@1@val"]}  # fmt: skip
    item = {"id": "q1", "score": 0.0, "line": {**RETRIEVED, "note": "a\u2028b"}}
    lines = (json.dumps(line, ensure_ascii=False) for line in (head, item))
    listed = cases.parse_predictions("\n".join(lines) + "\n")
    assert listed is not None
    assert (listed.total, cases.item_id(listed.sides[0])) == (9, "q1")
    (row,) = cases.prediction_rows(listed.sides)
    assert row[1:3] == ("#2", "q1")
    assert cases.parse_predictions("") is None
