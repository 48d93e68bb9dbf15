"""The numbers of `data describe` against hand counts and pandas."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from datasets_mm.profile import describe as describe_module
from datasets_mm.profile.check import find_problems, missing_sentence
from datasets_mm.profile.describe import DescribeOptions, describe
from datasets_mm.profile.profile import Profile
from datasets_mm.profile.table_counts import TableCounts
from datasets_mm.profile.target import TargetError
from datasets_mm.recipes.recipe import FIELDS
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.storage.arrow_store import CHOICE_RECORD_SCHEMA, RECORD_SCHEMA

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
    # Four are kept; all six are looked at for how their fields are written.
    assert found.kept == 4
    assert found.candidates == {1: 2, 2: 1, 3: 1}
    assert found.buckets() == {"1": 2, "2-3": 2, "4-10": 0, "11+": 0}
    assert found.questions == {"which": 1, "what": 1, "other": 1, "whose": 1}
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

    # Of kept records: p1, p2, p1 | 12 | p2, p3 | p1 with another text.
    passages = found.passages
    assert passages.references == 3 + 1 + 2 + 1
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


def test_pandas_finds_the_same(tmp_path: Path) -> None:
    built = records(1_500, seed=1)
    found = describe(wanted(write(tmp_path / "a.jsonl", built)), silently)
    assert (found.records, found.kept) == (1_500, 1_500)
    assert figures(found) == oracle(built)


BUILT = [
    {**GOOD, "passage_id": ["p1", "p2", "p1"], "passage_text": ["a", "b", "a"],
     "passage_image_path": ["", "", ""], "options": [" ", "NA"]},
    {**GOOD, "data_id": "q2", "question": "", "answer": ["NA", ""], "passage_text": ["b"],
     "image_path": " na", "options": []},
    {**GOOD, "answer": [], "options": [" ", ""]},
]  # fmt: skip


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_counts_of_a_table_do_not_depend_on_its_batches(rows: int) -> None:
    counts = TableCounts("passages")
    for batch in pa.Table.from_pylist(BUILT, RECORD_SCHEMA).to_batches(max_chunksize=rows):
        counts.add(batch)
    fields = {field.name: field for field in counts.field_profiles()}
    shown = fields["passage_image_path"]
    assert (shown.filled, shown.empty, shown.elements, shown.elements_absent) == (2, 1, 5, 3)
    answer = fields["answer"]
    assert (answer.filled, answer.empty, answer.elements_absent) == (2, 1, 1)
    assert answer.types == {"list of text": 2, "empty list": 1}
    assert (fields["image_path"].stated_na, fields["question"].empty) == (1, 1)
    assert counts.positions == {
        "passage_image_path not filled": [1], "image_path not filled": [2],
        "question not filled": [2], "answer not filled": [2, 3],
    }  # fmt: skip
    assert counts.candidates == {3: 1, 1: 2}
    assert counts.questions == {"what": 2, "none": 1}
    assert counts.repeated_data_ids() == 1
    passages = counts.passage_profile()
    assert (passages.references, passages.distinct_ids, passages.distinct_texts) == (5, 3, 3)
    assert (passages.surplus_ids, passages.records_with_repeats) == (1, 1)


def test_options_that_say_none_are_options() -> None:
    counts = TableCounts("choices")
    counts.add(pa.Table.from_pylist(BUILT, CHOICE_RECORD_SCHEMA).to_batches()[0])
    options = counts.field_profiles()[4]
    assert options.name == "options"
    assert (options.filled, options.empty, options.elements_absent) == (1, 2, 3)


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
    table = tmp_path / "train.csv"
    table.write_text("image,caption\na.png,a dog\n")
    with pytest.raises(TargetError, match=r"train.csv: none of its 2 lines is a record"):
        describe(wanted(table), silently)
    table.write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(SourceError, match="is an Excel workbook or a ZIP archive"):
        describe(wanted(table), silently)
    torn = tmp_path / "train-00000-of-00001.parquet"
    torn.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(SourceError, match="no whole Parquet file"):
        describe(wanted(torn), silently)


def test_a_known_profile_is_not_counted_again(typed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = describe(wanted(typed), silently)
    monkeypatch.setattr(describe_module, "TableCounts", None)
    assert describe(wanted(typed), silently) == first
    typed.write_bytes(typed.read_bytes() + b"\n")
    with pytest.raises(TypeError):  # the file is another one now
        describe(wanted(typed), silently)


def test_only_what_is_known_is_given_where_nothing_may_be_scanned(typed: Path) -> None:
    with pytest.raises(TargetError, match="was not described; `workbench data describe` does"):
        describe(wanted(typed, cached=True), silently)
    known = describe(wanted(typed), silently)
    assert describe(wanted(typed, cached=True), silently) == known


def test_parquet_is_read_under_our_names(tmp_path: Path) -> None:
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
