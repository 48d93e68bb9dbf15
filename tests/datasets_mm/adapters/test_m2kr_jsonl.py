"""The JSONL adapter on dirt: every line has one defined fate, and the account adds up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from datasets_mm.adapters.m2kr_tables import SEVERAL_TEXTS
from datasets_mm.building.build import BuildError, Subset, build, main
from datasets_mm.storage import arrow_store

LINES = [
    # 1: as it should be, with three positives
    '{"data_id": "q1", "dataset_id": "okvqa", "instruction": "Find:", "question": "What?", '
    '"image_path": "a.png", "passage_id": ["p1", "p2", "p3"], "passage_text": ["one", "two", '
    '"three"], "passage_image_path": ["a.png", null, "NA"], "answer": ["cat", "dog"]}',
    # 2: scalars, numeric ids, NaN question, one answer
    '{"data_id": 7, "instruction": "Find:", "question": NaN, "image_path": "b.png", '
    '"passage_id": 12.0, "passage_text": "twelve", "passage_image_path": NaN, "answer": "x"}',
    # 3: no positive
    '{"data_id": "q3", "question": "?", "image_path": "a.png", "passage_id": [], "answer": []}',
    # 4: lists of unequal length
    '{"data_id": "q4", "image_path": "a.png", "passage_id": ["p1", "p2"], "passage_text": ["one"]}',
    # 5: torn
    '{"data_id": "q5", "question": "What is',
    # 6: InfoSeek's number as an object; no picture at all; a known passage under another text
    '{"data_id": "q6", "question": "How high?", "image_path": null, "passage_id": "p1", '
    '"passage_text": "uno", "answer": [{"wikidata": 3.5, "range": [3, 4]}, 12]}',
    # 7: not an object
    "[1, 2]",
    # 8: its picture is missing
    '{"data_id": "q8", "question": "?", "image_path": "gone.png", "passage_id": ["p1"], '
    '"passage_text": ["one"]}',
    # 9: its picture lies outside the root
    '{"data_id": "q9", "question": "?", "image_path": "../secret.png", "passage_id": ["p1"], '
    '"passage_text": ["one"]}',
    # 10: Korean, a lone surrogate and an id that q1 has too
    '{"data_id": "q1", "question": "무엇? \\ud800", "image_path": "b.png", "passage_id": ["p9"], '
    '"passage_text": ["구"]}',
    # 11: nested too deeply for any reader
    "[" * 100_000,
]

RECIPE = """
schema = 1
name = "{name}"
title = "dirty"
{more}
[source]
adapter = "ret_m2kr_jsonl"
uri = "dirty.jsonl"
{source}
"""


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8), "red" if name == "a.png" else "blue").save(root / "images" / name)
    Image.new("RGB", (8, 8)).save(root / "secret.png")
    (root / "dirty.jsonl").write_bytes("\n".join(LINES).encode() + b"\n\n\xff\xfe\n")
    return root


@pytest.fixture
def dirty(
    data_root: Path, tmp_path: Path, own_recipes: Callable[[str, str], Path]
) -> Callable[..., Subset]:
    def make(more: str = "", source: str = "", name: str = "dirty") -> Subset:
        own_recipes(name, RECIPE.format(name=name, more=more, source=source))
        return build(name, tmp_path / "cache", data_root)

    return make


def test_every_line_has_its_fate(dirty: Callable[..., Subset]) -> None:
    subset = dirty()
    rows = subset.records.to_pylist()
    assert [row["data_id"] for row in rows] == ["7", "q1", "q1", "q6"]
    order = ("What?", "", "How high?", "무엇? ?")
    rows.sort(key=lambda row: order.index(row["question"]))
    assert rows[0]["passage_image_path"] == ["a.png", "", ""]
    assert rows[0]["answer"] == ["cat", "dog"]
    assert rows[1]["passage_id"] == ["12"]
    assert rows[1]["passage_text"] == ["twelve"]
    assert rows[1]["passage_image_path"] == [""]
    assert rows[1]["question"] == ""
    assert rows[1]["answer"] == ["x"]
    assert rows[2]["image_path"] == ""
    assert rows[2]["answer"] == ["3.5", "12"]
    assert rows[3]["question"] == "무엇? ?"
    assert subset.manifest["source_skipped"] == {
        "no positive passage": 1,
        "passage lists of unequal length": 1,
        "line is not JSON": 2,
        "line is not an object": 1,
        "line is not UTF-8": 1,
    }
    assert subset.manifest["source_examples"]["line is not JSON"][0] == "dirty.jsonl line 5"
    assert subset.manifest["skipped"] == {
        "picture missing": 1,
        "picture outside the image root": 1,
    }
    assert subset.manifest["examples"] == {
        "picture missing": ["gone.png"],
        "picture outside the image root": ["../secret.png"],
    }
    used = subset.manifest["rows"] + sum(subset.manifest["source_skipped"].values()) + 2
    assert used == len(LINES) + 1


def test_corpus_holds_each_passage_once(dirty: Callable[..., Subset]) -> None:
    subset = dirty()
    assert subset.corpus.ids == ["12", "p1", "p2", "p3", "p9"]
    assert subset.corpus.texts[1] == "one"
    assert subset.corpus.row("p9") == 4
    assert subset.corpus.row("p0") == -1
    assert subset.corpus.rows(["p3", "nowhere", "p1"]) == [3, 1]
    assert subset.manifest["source_noted"] == {SEVERAL_TEXTS: 1}
    assert subset.manifest["source_examples"][SEVERAL_TEXTS] == ["p1"]


def test_positives_join_a_passage_file_and_can_be_the_corpus(
    dirty: Callable[..., Subset], data_root: Path
) -> None:
    (data_root / "pool.jsonl").write_text(
        '{"passage_id": 1, "passage_text": "one more"}\n{"passage_text": "no id"}\n'
        + json.dumps({"passage_id": "p2", "passage_text": "two", "passage_image_path": "b.png"})
    )
    subset = dirty(source='passages = "pool.jsonl"')
    assert subset.corpus.ids == ["1", "12", "p1", "p2", "p3", "p9"]
    assert subset.corpus.image_paths[3] == "b.png"
    assert subset.manifest["source_skipped"]["passage without id"] == 1
    small = dirty(name="small", more='corpus = "positives"', source='passages = "pool.jsonl"')
    assert sorted(small.corpus.ids) == ["12", "p1", "p2", "p3", "p9"]


@pytest.mark.parametrize("source", ['passages = "pool.jsonl"', ""])
def test_a_positive_without_a_text_has_that_of_the_corpus(
    dirty: Callable[..., Subset], data_root: Path, source: str
) -> None:
    """It would be trained on as an empty text; another record may be what has it."""
    (data_root / "pool.jsonl").write_text('{"passage_id": "p1", "passage_text": "one"}\n')
    lines = [
        {"data_id": "a", "passage_id": ["p1", "p2"], "passage_text": ["", "two"]},
        {"data_id": "b", "passage_id": "p1", "passage_text": "one"},
        {"data_id": "c", "passage_id": ["p2", "p3"]},
    ]
    (data_root / "dirty.jsonl").write_text("\n".join(map(json.dumps, lines)))
    subset = dirty(source=source)
    assert subset.records["passage_text"].to_pylist() == [["one", "two"], ["one"], ["two", ""]]
    assert subset.corpus.texts == ["one", "two", ""]


def test_the_recipe_may_refuse_missing_pictures(dirty: Callable[..., Subset]) -> None:
    with pytest.raises(BuildError, match=r"2 pictures are missing under .*missing = \"skip\""):
        dirty(source='[images]\nmissing = "error"')


def test_a_picture_that_arrives_later_is_seen(
    dirty: Callable[..., Subset], data_root: Path
) -> None:
    before = dirty()
    Image.new("RGB", (8, 8)).save(data_root / "images" / "gone.png")
    after = dirty()
    assert (before.manifest["rows"], after.manifest["rows"]) == (4, 5)
    assert before.fingerprint != after.fingerprint


def test_changed_data_is_built_again(dirty: Callable[..., Subset], data_root: Path) -> None:
    before = dirty()
    with (data_root / "dirty.jsonl").open("a") as file:
        file.write('{"data_id": "q12", "image_path": "a.png", "passage_id": "p1"}\n')
    after = dirty()
    assert after.manifest["rows"] == before.manifest["rows"] + 1
    assert before.records.num_rows == 4  # the open map still reads the old content


def test_nothing_left_is_an_error_with_an_account(
    dirty: Callable[..., Subset], tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=r"no record is left \(.*6 step 1: sample"):
        dirty(source='[[steps]]\ndo = "sample"\nn = 0', name="none")
    assert not list((tmp_path / "cache" / "subsets").glob("none-*"))


def test_another_count_than_expected_is_said(dirty: Callable[..., Subset]) -> None:
    subset = dirty(more="expected_rows = 9")
    assert subset.manifest["notices"][0] == "4 records; the recipe expects 9"


def test_an_endless_line_does_not_fill_the_memory(
    dirty: Callable[..., Subset], data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets_mm.adapters import m2kr_jsonl

    monkeypatch.setattr(m2kr_jsonl, "MAX_LINE_BYTES", 1000)
    text = (data_root / "dirty.jsonl").read_bytes()
    (data_root / "dirty.jsonl").write_bytes(b'{"x": "' + b"y" * 5000 + b'"}\n' + text)
    subset = dirty()
    assert subset.manifest["source_skipped"]["line longer than 16 MiB"] == 2
    assert subset.manifest["source_examples"]["line longer than 16 MiB"] == [
        "dirty.jsonl line 1",
        "dirty.jsonl line 12",
    ]
    assert subset.manifest["rows"] == 4


def test_okvqa_mm_is_okvqa_with_pictures_on_both_sides(data_root: Path, tmp_path: Path) -> None:
    folder = data_root / "jsonl" / "m2kr"
    folder.mkdir(parents=True)
    line = {"question": "?", "image_path": "a.png", "passage_id": ["p", "q"], "answer": ["x"]}
    shown = [["a.png", "b.png"], ["a.png", "NA"], [None, None], ["b.png", "b.png"]]
    with (folder / "okvqa_train.jsonl").open("w") as file:
        for number, pictures in enumerate(shown):
            row = line | {"data_id": f"q{number}", "passage_image_path": pictures}
            file.write(json.dumps(row | {"passage_text": ["t", "u"]}) + "\n")
    subset = build("okvqa_mm_train", tmp_path / "cache", data_root)
    assert subset.records["data_id"].to_pylist() == ["q0", "q3"]
    assert subset.manifest["skipped"] == {"step 1: present": 2}
    assert subset.manifest["notices"][:2] == [
        "2 records; the recipe expects 8253",
        "no passage file is there: the corpus is the positives of the records",
    ]


def test_the_module_speaks_json_lines(
    dirty: Callable[..., Subset],
    data_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dirty()
    place = ["--cache-root", str(tmp_path / "new"), "--data-root", str(data_root)]
    assert main(["dirty", *place]) == 0
    spoken = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["kind"] for line in spoken[:-1]} == {"progress"}
    assert spoken[-1]["kind"] == "done"
    assert spoken[-1]["manifest"]["rows"] == 4
    assert main(["dirtty", *place]) == 1
    spoken = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert spoken == [
        {"kind": "failed", "error": "subset 'dirtty' is unknown; did you mean 'dirty'?"}
    ]


def test_rows_that_are_all_kept_share_the_file_of_the_source(
    dirty: Callable[..., Subset], data_root: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(data_root / "images" / "gone.png")
    (data_root / "dirty.jsonl").write_text("\n".join([*LINES[:2], LINES[7]]))
    subset = dirty()
    source = tmp_path / "cache" / "sources" / subset.manifest["source"]
    assert (source / "records.arrow").samefile(subset.folder / "records.arrow")
    assert arrow_store.read_manifest(subset.folder)
