"""What a report takes of a VQA run's files, and what it does not believe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engines.protocol import RunSpec
from results.records.schema import MetricRecord
from workbench.reporting import answer_examples, caption_examples
from workbench.suites import record
from workbench.suites.state import RunState

TABLES = {
    "confusion": [[1, 1, 0, 0]] + [[0] * 4] * 3,
    "reliability": [
        {"low": 0, "high": 1, "n": 2, "confidence": 0.6, "accuracy": 0.5},
        {"low": 1, "high": 2, "n": 0, "confidence": None, "accuracy": None},
    ],
    "kinds": {"colour": [2, 1]},
}


def line(name: str, letter: str, truth: str, sure: float, medium: str) -> str:
    return json.dumps(
        {
            "id": name, "letter": letter, "truth": truth, "medium": medium,
            "probabilities": [sure, (1 - sure) / 3, (1 - sure) / 3, (1 - sure) / 3],
            "question": "what?", "options": ["red", "green", "blue", "black"], "kind": "colour",
        }
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder whose pictures are under pictures/."""
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "one.png").write_bytes(b"png")
    (tmp_path / "secret.png").write_bytes(b"png")
    monkeypatch.setattr(answer_examples, "find_image_root", lambda *_: root.resolve())
    folder = tmp_path / "s" / "runs" / "01"
    (folder / "predictions").mkdir(parents=True)
    (folder / "predictions" / "quiz.tables.json").write_text(json.dumps(TABLES))
    lines = [
        line("right", "a", "a", 0.99, "one.png"),
        line("unsure", "a", "b", 0.4, "other.png"),
        line("sure", "a", "c", 0.9, "one.png"),
        line("again", "a", "c", 0.8, "one.png"),
        line("outside", "a", "d", 0.7, "../secret.png"),
        line("unknown", "a", "", 0.9, "three.png"),
        '{"torn',
    ]
    (folder / "predictions" / "quiz.jsonl").write_text("\n".join(lines))
    return folder


def taken(run: Path, split: str = "quiz"):
    metric = MetricRecord(name="accuracy", value=0.5, split=split, n=2)
    spec = RunSpec(suite="s", run_id="01", engine="vqa", subset="q", model="m", cache_root="c")
    made = record.build_record(spec, RunState(), "s/runs/01").model_copy(
        update={"metrics": (metric,)}
    )
    return answer_examples.collect_answer_examples(made, run.parents[2], run.parents[2] / "cache")


def test_the_surest_errors_come_first_each_of_another_picture(run: Path) -> None:
    (found,) = taken(run)
    assert [one.id for one in found.worst] == ["sure", "outside", "unsure"]
    assert found.worst[0].picture.endswith("one.png")
    assert found.worst[0].confidence == 0.9
    assert found.worst[1].picture == ""  # not inside the image root
    assert found.kinds == {"colour": (2, 1)}
    assert found.reliability[1] == (1, 2, 0, None, None)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"confusion": 3, "reliability": [], "kinds": {}}', '{"kinds": {}}']
)
def test_broken_tables_are_no_tables(run: Path, text: str) -> None:
    (run / "predictions" / "quiz.tables.json").write_text(text)
    assert taken(run) == ()


def test_a_split_cannot_name_a_file_elsewhere(run: Path) -> None:
    (run / "quiz.tables.json").write_text(json.dumps(TABLES))
    assert taken(run, "../quiz") == ()


def test_lines_without_what_is_needed_are_left_out(run: Path) -> None:
    file = run / "predictions" / "quiz.jsonl"
    file.write_text(
        '{"letter": "a", "truth": 3}\n{"letter": 5}\n[1]\n{"letter": "b", "truth": "a"}'
    )
    (found,) = taken(run)
    assert [(one.answer, one.confidence, one.options) for one in found.worst] == [("b", 0.0, ())]
    assert list(caption_examples.read_lines(run / "none.jsonl", "letter")) == []
