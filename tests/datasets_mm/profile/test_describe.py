"""The numbers of `data describe` against hand counts, pandas, and the adapter's own judgement."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from datasets_mm.adapters import m2kr_jsonl
from datasets_mm.profile import describe as describe_module
from datasets_mm.profile import record_readers
from datasets_mm.profile.check import find_problems, missing_sentence
from datasets_mm.profile.describe import DescribeOptions, describe
from datasets_mm.profile.parallel_scan import ScanOptions, scan
from datasets_mm.profile.profile import Profile
from datasets_mm.profile.record_readers import JsonLinesReader
from datasets_mm.profile.target import TargetError
from datasets_mm.recipes.recipe import FIELDS, Source
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.sources.location import Location

GOOD = {
    "answer": ["a"], "data_id": "OKVQA_1", "dataset_id": "OKVQA", "image_path": "train/one.jpg",
    "instruction": "Using the image, obtain documents:", "passage_id": ["WikiWeb_1"],
    "passage_image_path": ["wiki/one.jpg"], "passage_text": ["The first passage."],
    "question": "What is it?",
}  # fmt: skip

TYPED = Path(__file__).parents[2] / "fixtures" / "profiles" / "typed.jsonl"
"""Nine lines and a blank one, typed by hand; every figure below was counted by hand."""


def wanted(path: Path, **more: Any) -> DescribeOptions:
    return DescribeOptions(str(path), path.parent / "cache", **more)


def silently(done: int, total: int, unit: str) -> None: ...


@pytest.fixture
def typed(tmp_path: Path) -> Path:
    path = tmp_path / "typed.jsonl"
    path.write_bytes(TYPED.read_bytes())
    return path


def test_hand_counted_lines(typed: Path) -> None:
    found = describe(wanted(typed), silently)
    assert (found.lines, found.records) == (9, 6)
    assert found.refused == {
        "line is not JSON": 1, "no positive passage": 1, "passage lists of unequal length": 1,
        "line is not UTF-8": 1, "line is not an object": 1,
    }  # fmt: skip
    # The blank third line has a number too: people count lines with an editor.
    assert found.examples["line is not JSON"] == ("line 5",)
    assert found.examples["line is not an object"] == ("line 10",)
    assert found.candidates == {0: 1, 1: 2, 2: 2, 3: 1}
    assert found.buckets() == {"0": 1, "1": 2, "2-3": 3, "4-10": 0, "11+": 0}
    assert found.questions == {"which": 1, "what": 1, "other": 1, "none": 1, "whose": 1, "who": 1}
    assert found.repeated_data_ids == 1
    assert found.other_fields == {"extra": 1}

    shown = found.field("passage_image_path")
    assert (shown.filled, shown.stated_na, shown.null, shown.empty) == (1, 3, 1, 1)
    assert (shown.elements, shown.elements_absent) == (7, 6)
    assert shown.types == {
        "list of text": 3,
        "null": 1,
        "list of null and text": 1,
        "empty list": 1,
    }
    assert found.field("passage_id").types == {"list of text": 4, "number": 1, "empty list": 1}
    assert (found.field("image_path").stated_na, found.field("image_path").empty) == (1, 1)
    assert found.field("dataset_id").no_key == 1
    assert (found.field("instruction").null, found.field("question").null) == (1, 1)
    # "none" is an answer; an empty list is not.
    assert (found.field("answer").filled, found.field("answer").empty) == (5, 1)

    # Of sound records: p1, p2, p1 | 12 | p2, p3 | p1 with another text.
    passages = found.passages
    assert passages.references == 3 + 1 + 2 + 0 + 1 + 2
    assert passages.distinct_ids == 4
    assert passages.distinct_texts == 4
    assert passages.texts_under_several_ids == 1  # "alpha alpha": p1 and 12
    assert passages.surplus_ids == 1
    assert passages.ids_with_several_texts == 1  # p1
    assert passages.records_with_repeats == 1

    said = missing_sentence(found)
    assert said.startswith("All 6 lines were checked for missing fields: 2 (")
    what = {problem.message: problem for problem in find_problems(found)}
    assert what["passage_image_path is missing"].positions == ("line 2",)
    assert what["question is missing"].positions == ("line 6",)
    assert "image_path is missing" not in what  # "NA" and "" say that there is none
    filled = {p.message: p for p in find_problems(found, ["image_path"])}
    assert filled["image_path is not filled"].positions == ("line 2", "line 4")


def records(count: int, seed: int) -> list[dict[str, Any]]:
    """Records with every kind of dirt that has a defined meaning."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        size = rng.choice([1, 1, 2, 3, 4, 9, 10, 11, 25])
        ids = [f"WikiWeb_{rng.randrange(60)}" for _ in range(size)]
        record: dict[str, Any] = {
            **GOOD,
            "data_id": rng.choice([f"q{number}", number, "q1"]),
            "question": rng.choice(
                [
                    "What is it?",
                    "which one",
                    "In what year",
                    "Name it",
                    "",
                    None,
                    "Whom?",
                    "How far",
                ]
            ),
            "image_path": rng.choice(["a/b.jpg", "NA", "", None, float("nan"), "c/d.jpg"]),
            "passage_id": ids,
            "passage_text": [f"text number {rng.randrange(80)} of it" for _ in ids],
            "passage_image_path": [rng.choice(["NA", "wiki/long name.jpg", None]) for _ in ids],
        }
        if rng.random() < 0.2:
            record["passage_image_path"] = ["NA"] * size
        if rng.random() < 0.1:
            del record["question"]
        if size == 1 and rng.random() < 0.5:
            record["passage_id"], record["passage_text"] = ids[0], record["passage_text"][0]
        made.append(record)
    return made


def write(path: Path, made: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in made), encoding="utf-8")
    return path


def oracle(made: list[dict[str, Any]]) -> dict[str, Any]:
    """The same figures by pandas, from the records themselves."""
    frame = pd.DataFrame(made).reindex(columns=list(FIELDS))
    listed = frame["passage_id"].map(lambda v: v if isinstance(v, list) else [v])
    texts = frame["passage_text"].map(lambda v: v if isinstance(v, list) else [v])
    pairs = pd.DataFrame({"id": listed.explode(), "text": texts.explode()}).drop_duplicates()
    absent = frame["image_path"].fillna("").isin(["", "NA"])
    shown = frame["passage_image_path"].explode()
    words = frame["question"].fillna("").str.lower().str.extract(r"\b(what|which|whom|how)\b")[0]
    count = listed.map(len)
    return {
        "buckets": [int(count.between(a, b).sum()) for a, b in ((1, 1), (2, 3), (4, 10), (11, 99))],
        "image_absent": int(absent.sum()),
        "image_na": int((frame["image_path"] == "NA").sum()),
        "question_missing": int(frame["question"].isna().sum()),
        "shown_all_na": int(
            frame["passage_image_path"].map(lambda v: all(x in ("NA", None) for x in v)).sum()
        ),
        "shown_elements_absent": int((shown.isna() | (shown == "NA")).sum()),
        "words": {k: int(v) for k, v in words.value_counts().items()},
        "distinct_ids": int(pairs["id"].nunique()),
        "distinct_texts": int(pairs["text"].nunique()),
        "shared_texts": int((pairs.groupby("text")["id"].nunique() > 1).sum()),
        "surplus": int((pairs.groupby("text")["id"].nunique() - 1).sum()),
        "conflicts": int((pairs.groupby("id")["text"].nunique() > 1).sum()),
        "repeats": int((listed.map(len) != listed.map(lambda v: len(set(v)))).sum()),
        "repeated_ids": int(len(frame) - frame["data_id"].astype(str).nunique()),
    }


def figures(found: Profile) -> dict[str, Any]:
    shown, image = found.field("passage_image_path"), found.field("image_path")
    return {
        "buckets": [found.buckets()[name] for name in ("1", "2-3", "4-10", "11+")],
        "image_absent": found.records - image.filled,
        "image_na": image.stated_na,
        "question_missing": found.field("question").missing,
        "shown_all_na": found.records - shown.filled,
        "shown_elements_absent": shown.elements_absent,
        "words": {k: n for k, n in found.questions.items() if k not in ("other", "none")},
        "distinct_ids": found.passages.distinct_ids,
        "distinct_texts": found.passages.distinct_texts,
        "shared_texts": found.passages.texts_under_several_ids,
        "surplus": found.passages.surplus_ids,
        "conflicts": found.passages.ids_with_several_texts,
        "repeats": found.passages.records_with_repeats,
        "repeated_ids": found.repeated_data_ids,
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_pandas_finds_the_same(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JsonLinesReader, "__init__", _small_parts(JsonLinesReader.__init__))
    made = records(1_500, seed=workers)
    found = describe(wanted(write(tmp_path / "a.jsonl", made), workers=workers), silently)
    assert found.records == 1_500
    assert figures(found) == oracle(made)


def _small_parts(init: Any) -> Any:
    def small(self: JsonLinesReader, path: Path) -> None:
        init(self, path, part_bytes=20_000)

    return small


def test_counts_do_not_depend_on_parts_or_processes(typed: Path) -> None:
    """Parts of one byte upwards: every line is read once, and numbered right."""
    whole = scan(JsonLinesReader(typed), ScanOptions(), 1, lambda more: None)
    for part_bytes in (1, 7, 64, 300, 10_000):
        for workers in (1, 2):
            ticks: list[int] = []
            found = scan(JsonLinesReader(typed, part_bytes), ScanOptions(), workers, ticks.append)
            assert found.refused == whole.refused
            assert found.counts.candidates == whole.counts.candidates
            assert sum(ticks) == typed.stat().st_size
            for reason in whole.positions:
                assert found.line_numbers(reason) == whole.line_numbers(reason)


def test_a_huge_line_is_counted_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_readers, "MAX_LINE_BYTES", 4_000)
    path = tmp_path / "a.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"\n".join([good, b"x" * 50_000, good, good]))
    for part_bytes in (3_000, 100_000):
        found = scan(JsonLinesReader(path, part_bytes), ScanOptions(), 1, lambda more: None)
        assert found.counts.records == 3
        assert dict(found.refused) == {"line longer than 0 MiB": 1}
        assert found.line_numbers("line longer than 0 MiB") == [2]


def test_a_build_leaves_out_what_describe_says(typed: Path, tmp_path: Path) -> None:
    """The adapter and the scan judge every line alike, place by place."""
    source = Source(adapter="jsonl", uri=("typed.jsonl",))
    folder = tmp_path / "made"
    folder.mkdir()
    report = m2kr_jsonl.write(Location(source, tmp_path, (typed,)), folder, silently)
    found = describe(wanted(typed), silently)
    assert found.refused == report.skipped
    for reason, places in report.examples.items():
        if reason in report.skipped:
            assert [p.removeprefix("typed.jsonl ") for p in places] == list(found.examples[reason])


FIXTURES = Path(__file__).parents[2] / "fixtures" / "m2kr"


def test_the_typed_layout_is_judged_alike_too(tmp_path: Path) -> None:
    path = FIXTURES / "ret_okvqa_test.jsonl"
    source = Source(adapter="jsonl", uri=(path.name,))
    (tmp_path / "made").mkdir()
    report = m2kr_jsonl.write(Location(source, path.parent, (path,)), tmp_path / "made", silently)
    asked = DescribeOptions(str(path), tmp_path / "cache")
    assert describe(asked, silently).refused == report.skipped


# -- targets and the cache -------------------------------------------------------------------


def test_what_cannot_be_described_is_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(TargetError, match="is empty"):
        describe(wanted(empty), silently)
    with pytest.raises(TargetError, match="folder without Parquet"):
        describe(wanted(tmp_path), silently)
    with pytest.raises(TargetError, match="did you mean 'emoji_train'"):
        describe(DescribeOptions("emoji_trian", tmp_path), silently)
    torn = tmp_path / "train-00000-of-00001.parquet"
    torn.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(SourceError, match="no whole Parquet file"):
        describe(wanted(torn), silently)


def test_a_known_profile_is_not_scanned_again(typed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = describe(wanted(typed), silently)
    monkeypatch.setattr(describe_module, "scan", None)
    assert describe(wanted(typed), silently) == first
    typed.write_bytes(typed.read_bytes() + b"\n")
    with pytest.raises(TypeError):  # the file is another one now
        describe(wanted(typed), silently)


def test_parquet_is_read_under_our_names(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data, passages = tmp_path / "OKVQA_data", tmp_path / "OKVQA_passages"
    data.mkdir()
    passages.mkdir()
    rows_typed = [
        {"question_id": "q1", "question": "What is it?", "instruction": "i", "img_path": "a.jpg",
         "answers": ["x"], "pos_item_ids": ["p1", "p2"]},
        {"question_id": "q2", "question": None, "instruction": "i", "img_path": None,
         "answers": [], "pos_item_ids": ["p3"]},
    ]  # fmt: skip
    texts = [
        {"passage_id": f"p{n}", "passage_content": "same" if n < 3 else "other"} for n in (1, 2, 3)
    ]
    pq.write_table(pa.Table.from_pylist(rows_typed), data / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(texts), passages / "train_passages-00000-of-00001.parquet")
    found = describe(DescribeOptions(str(data), tmp_path / "cache"), silently)
    assert (found.kind, found.records, found.refused) == ("parquet", 2, {})
    assert found.candidates == {1: 1, 2: 1}
    assert found.passages.surplus_ids == 1
    assert (found.field("question").null, found.field("image_path").null) == (1, 1)
