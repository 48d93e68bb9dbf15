"""`workbench data describe`, `diff` and `check` as a person or a CI job calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RECORD = {
    "answer": ["a"], "data_id": "q", "dataset_id": "OKVQA", "image_path": "train/one.jpg",
    "instruction": "Using the image:", "passage_id": ["WikiWeb_1"],
    "passage_image_path": ["wiki/one.jpg"], "passage_text": ["The first passage."],
    "question": "What is it?",
}  # fmt: skip


def write(path: Path, count: int, **more: Any) -> str:
    lines = [json.dumps({**RECORD, "data_id": f"q{n}", **more}) for n in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def data(tmp_path: Path):
    environment = {**os.environ, "WORKBENCH_CACHE": str(tmp_path / "cache"),
                   "WORKBENCH_CONFIG": str(tmp_path / "config")}  # fmt: skip

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "workbench", "data", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    return run


def test_a_clean_file_passes_and_a_dirty_one_is_named(data, tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", 8)
    done = data("check", good)
    assert done.returncode == 0, done.stdout + done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith("All 8 lines were checked for missing fields: 0 (question, image_path")
    bad = tmp_path / "bad.jsonl"
    bad.write_text(Path(good).read_text() + '{"question": null}\n{"torn\n')
    done = data("check", str(bad))
    assert done.returncode == 1
    assert "problem: 1 × line is not JSON: line 10" in done.stdout
    assert "problem: 1 × no positive passage: line 9" in done.stdout
    assert "problem: 1 × question is missing: line 9" in done.stdout
    done = data("check", str(bad), "--json")
    found = {line["problem"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert found["line is not JSON"] == {
        "problem": "line is not JSON", "count": 1, "places": ["line 10"],
    }  # fmt: skip


def test_wrong_words_are_one_sentence_and_exit_code_2(data, tmp_path: Path) -> None:
    for arguments, sentence in (
        (["describe", str(tmp_path / "nothing.jsonl")], "is neither a file nor a subset"),
        (["describe", write(tmp_path / "a.jsonl", 1), "-m", "clip-nana"], "did you mean"),
        (["describe", write(tmp_path / "a.jsonl", 1), "-m", "clip-nano"], "no tokenizer"),
        (["check", write(tmp_path / "a.jsonl", 1), "--require", "questoin"], "'question'?"),
    ):
        done = data(*arguments)
        assert done.returncode == 2, done
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert sentence in done.stderr


def test_describe_and_diff_say_the_same_in_every_form(data, tmp_path: Path) -> None:
    first = write(tmp_path / "first.jsonl", 4, passage_image_path=["NA"])
    odd = {"question": "Which | one\x1b]0;x\x07?", "\x1b[2J": 1}
    second = write(tmp_path / "odd|name.jsonl", 3, **odd)
    found = json.loads(data("describe", first, "--json").stdout)
    assert found["records"] == 4
    assert found["candidates"] == {"1": 4}
    shown = data("describe", first)
    assert 'passage_image_path = "NA"' in shown.stdout
    assert "4 (100.00 %)" in shown.stdout
    assert "███" in shown.stdout
    assert shown.stderr == ""  # no bar where nobody looks
    marked = data("diff", first, second, "--markdown").stdout
    assert "\x1b" not in marked
    assert "| `first.jsonl` | `odd\\|name.jsonl` | difference |" in marked
    assert '| passage_image_path = "NA" | 4 (100.00 %) | 0 (0.00 %) | -100.00 |' in marked
    assert "| what | 4 (100.00 %) | 0 (0.00 %) | -100.00 |" in marked
    assert "| which | 0 (0.00 %) | 3 (100.00 %) | +100.00 |" in marked
    lines = [json.loads(line) for line in data("diff", first, second, "--json").stdout.splitlines()]
    rows = {line["label"]: line for line in lines}
    assert [f["value"] for f in rows["records"]["figures"]] == [4, 3]
    assert rows["what"]["difference"] == "-100.00"
