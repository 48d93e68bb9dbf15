"""Records by their ids of a score file, and passages of the corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from datasets_mm.building.build import build
from datasets_mm.child_messages import ignore_progress
from datasets_mm.profile import find_records
from datasets_mm.profile.target import Target, TargetError, resolve_target

RECIPE = """
schema = 1
name = "pairs"
title = "Made for a test"
[source]
adapter = "jsonl"
uri = "pairs.jsonl"
images = "."
"""


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """Four records, two of one id, with pictures of their passages."""
    monkeypatch.setenv("WORKBENCH_CONFIG", str(tmp_path / "config"))
    (tmp_path / "config" / "recipes").mkdir(parents=True)
    (tmp_path / "config" / "recipes" / "pairs.toml").write_text(RECIPE)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    lines = [
        {"data_id": name, "dataset_id": "T", "question": f"{name} {n}?", "instruction": "i:",
         "image_path": "red.png", "passage_id": [f"p{n}"], "answer": ["a"],
         "passage_text": [f"Words {n}."], "passage_image_path": ["red.png"]}
        for n, name in enumerate(("one", "two", "two", "two#3"))
    ]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build("pairs", tmp_path / "cache", tmp_path)
    return resolve_target("pairs", tmp_path / "cache", tmp_path, "", ignore_progress)


@pytest.mark.parametrize(
    ("name", "row"),
    [("one", 1), ("two", 2), ("two#2", 3), ("two#3", 4), ("two#4", None), ("x", None)],
)
def test_repeated_ids_are_counted_as_score_files_do(
    target: Target, tmp_path: Path, name: str, row: int | None
) -> None:
    found = list(find_records.find_records(target, [name], tmp_path / "cache"))
    assert [(record["id"], record["row"]) for record in found] == ([(name, row)] if row else [])
    for record in found:
        assert Path(record["pictures"]["red.png"]["file"]).is_file()


def test_passages_come_with_text_and_picture_and_unknown_ones_are_left_out(
    target: Target, tmp_path: Path
) -> None:
    found = list(find_records.find_passages(target, ["p3", "gone", "p0"], tmp_path / "cache"))
    assert [(passage["id"], passage["text"]) for passage in found] == [
        ("p3", "Words 3."), ("p0", "Words 0."),
    ]  # fmt: skip
    assert Path(found[0]["picture"]["file"]).is_file()
    assert list(find_records.find_passages(target, [], tmp_path / "cache")) == []


def test_only_subsets_have_records(target: Target, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(TargetError, match="is no subset"):
        list(find_records.find_records(replace(target, kind="jsonl"), ["one"], tmp_path))


def test_the_command_prints_messages_or_a_sentence(
    target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ["--cache-root", str(tmp_path / "cache")]
    assert find_records.main([*cache, "--id=one", "--passage=p1", "--", "pairs"]) == 0
    kinds = [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["record", "passage", "done"]
    assert find_records.main([*cache, "--id=one", "--", "no_such_subset"]) == 1
    assert "neither a file nor a subset" in capsys.readouterr().out
