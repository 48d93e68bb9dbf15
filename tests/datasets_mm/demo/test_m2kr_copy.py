"""Copies of M2KR: true in form, read by the same recipes as the real data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from datasets_mm import catalog
from datasets_mm.building.build import Subset, build
from datasets_mm.child_messages import ignore_progress
from datasets_mm.demo import m2kr_copy
from datasets_mm.media.decode import decode, read_inside

Kb = Callable[[str], Subset]


@pytest.fixture(scope="module")
def made(kb: Kb, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for layout in m2kr_copy.LAYOUTS:
        found[layout] = tmp_path_factory.mktemp(layout)
        m2kr_copy.write_copy(layout, found[layout], 40, kb("emoji_kb"), ignore_progress)
    return found


M2KR = [n for n in catalog.names() if n.partition("_")[0] in {"oven", "infoseek", "evqa", "okvqa"}]
ONLY_RET = {"infoseek_bal76k_train", "okvqa_mm_train"}


@pytest.mark.parametrize("layout", m2kr_copy.LAYOUTS)
def test_every_subset_of_the_catalog_can_be_built(
    layout: str, made: dict[str, Path], tmp_path: Path
) -> None:
    assert len(M2KR) == 14
    for name in M2KR:
        if layout == "m2kr-parquet" and name in ONLY_RET:
            continue
        subset = build(name, tmp_path, made[layout])
        assert len(subset) > 3
        assert subset.manifest["source_noted"] == {}  # every positive is in its corpus
        assert set(subset.manifest["skipped"]) <= {"step 1: present"}
        assert all(
            subset.corpus.row(row[0]) >= 0 for row in subset.records["passage_id"].to_pylist()
        )
        first = subset.records["image_path"][0].as_py()
        assert decode(read_inside(subset.image_root, first), 32, "bicubic").shape == (32, 32, 3)


def test_json_lines_have_the_dirt_of_the_real_ones(made: dict[str, Path]) -> None:
    folder = made["ret-jsonl"] / "jsonl" / "m2kr"
    lines = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in folder.glob("*.jsonl")
    }
    okvqa = lines["okvqa_train"]
    assert {type(line["passage_id"]) for line in okvqa} == {int, list}
    assert all(isinstance(line["passage_id"], str) for line in lines["okvqa_passages_test"])
    every = [line for name, part in lines.items() if "passages" not in name for line in part]
    assert any(
        isinstance(line["question"], float) and math.isnan(line["question"]) for line in every
    )
    shown = [line["passage_image_path"] for line in every]
    flat = [one for item in shown for one in (item if isinstance(item, list) else [item])]
    assert {"NA", None} <= {one for one in flat if not isinstance(one, float)}
    assert any(isinstance(one, float) for one in flat)
    answers = [one for line in lines["infoseek_train"] for one in line["answer"]]
    assert any(isinstance(one, dict) and "wikidata" in one for one in answers)


def test_parquet_has_the_columns_of_the_real_one(made: dict[str, Path]) -> None:
    root = made["m2kr-parquet"]
    data = pq.read_schema(root / "OVEN_data" / "train-00001-of-00002.parquet")
    assert data.names == [
        "pos_item_ids", "pos_item_contents", "img_id", "img_path", "image_id", "question_id",
        "question", "answers", "gold_answer", "question_type", "instruction",
    ]  # fmt: skip
    passages = pq.read_schema(root / "OVEN_passages" / "train_passages-00000-of-00001.parquet")
    assert passages.names == ["language", "passage_id", "passage_content"]


def test_a_folder_with_something_in_it_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    place = ["--layout", "ret-jsonl", "--out", str(tmp_path), "--cache-root", str(tmp_path / "c")]
    assert m2kr_copy.main(place) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["error"] == f"{tmp_path} is not empty; name a new folder with --out"
