"""A person's own dirty subset, by TOML alone, through the real command: shown, or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

RECIPE = """schema = 1
name = "mine"
title = "My records"
{policy}
[source]
adapter = "jsonl"
uri = "records.jsonl"
images = "images"
licences = ["mine"]
"""
SMALL = [
    "--set", "epochs=1", "--set", "batch=8", "--set", "threads=1", "--set", "image_size=32",
    "--set", "timing_warmup_steps=0", "--set", "evaluate_on=[]",
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Path:
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    rows = []
    for number in range(24):
        Image.new("RGB", (40, 40), (number * 10, 99, 0)).save(images / f"{number}.png")
        rows.append(record(number))
    whole = (images / "3.png").read_bytes()
    (images / "3.png").write_bytes(whole[: len(whole) // 2])  # truncated
    (images / "5.png").unlink()  # missing
    rows[7] |= {"passage_id": [], "passage_text": [], "passage_image_path": []}  # no positives
    rows[9] |= {"image_path": "../../secret.png"}  # escapes the image root
    lines = [json.dumps(row) for row in rows]
    lines.insert(11, lines[11][: len(lines[11]) // 2])  # torn
    (tmp_path / "data" / "records.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def record(number: int) -> dict[str, object]:
    return {
        "answer": [f"thing {number}"], "data_id": f"q{number}", "dataset_id": "mine",
        "image_path": f"{number}.png", "instruction": "Find it.", "question": "What is it?",
        "passage_id": [f"p{number}"], "passage_text": [f"passage about thing {number}"],
        "passage_image_path": [None],
    }  # fmt: skip


def write_recipe(here: Path, policy: str = "") -> None:
    folder = here / "config" / "recipes"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(RECIPE.format(policy=policy))


def run(here: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": str(here), "LANG": "C.UTF-8",
        "WORKBENCH_CACHE": str(here / "cache"), "WORKBENCH_CONFIG": str(here / "config"),
        "WORKBENCH_LOCKS": str(here / "runtime"),
    }  # fmt: skip
    words = ["run", "-d", "mine", "-m", "clip-nano", "--set", f"data_root={here / 'data'}", *SMALL]
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words, "--headless"], cwd=here, env=environment,
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip


def test_dirt_is_counted_and_shown_and_the_rest_is_trained_on(here: Path) -> None:
    write_recipe(here)
    done = run(here)
    assert done.returncode == 0, done.stderr
    made = json.loads((here / "bench_logs/results.jsonl").read_text())
    assert made["exit"]["cause"] == "completed"
    counters = made["counters"]
    assert counters["notice:source-skipped"] == 2  # the torn line; the record without positives
    assert counters["notice:images-skipped"] >= 1  # the truncated picture
    told = " ".join(made["notices"])
    for name in ("3.png", "not JSON", "no positive", "picture missing", "outside the image"):
        assert name in told, told
    assert made["samples"] == 23 - made["counters"].get("notice:records-skipped", 0)


def test_missing_pictures_are_refused_before_anything_starts_where_forbidden(
    here: Path,
) -> None:
    write_recipe(here, policy='[images]\nmissing = "error"')
    done = run(here)
    assert done.returncode == 2, done.stderr
    assert not (here / "bench_logs").exists()
    assert "first '../../secret.png' (picture outside the image root); add them" in done.stderr
    assert "Traceback" not in done.stderr
