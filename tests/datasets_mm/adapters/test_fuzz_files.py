"""Any file of JSON lines, Parquet, tables, captions or video: a record or a count for each line.

No traceback (only the errors that say a sentence), no loss without a count, no hang. Records are
written by the adapters themselves, without the rest of a build. `FUZZ_SECONDS=1800` tries longer.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datasets_mm.adapters import SourceReport, captions, m2kr_jsonl, m2kr_parquet, vqa_challenge
from datasets_mm.child_messages import ignore_progress
from datasets_mm.media_paths import clean_path
from datasets_mm.recipes.recipe import FIELDS, Source
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.sources.location import Location
from datasets_mm.storage.corpus import map_table
from tests.datasets_mm.fuzzing import fuzz

ADAPTERS: dict[str, Any] = {
    "jsonl": m2kr_jsonl, "m2kr_parquet": m2kr_parquet, "captions": captions,
    "challenge": vqa_challenge,
}  # fmt: skip


def _write(
    adapter: str, files: Mapping[str, bytes], **source: Any
) -> tuple[list[dict[str, Any]], SourceReport]:
    """(records, report) of what an adapter makes of files; SourceError where it refuses them."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for path, content in files.items():
            (root / path).write_bytes(content)
        first, *others = sorted(files)
        made = Source(adapter=adapter, uri=(first,), passages=tuple(others), **source)
        found = Location(made, root, (root / first,), tuple(root / path for path in others), root)
        (root / "out").mkdir()
        report = ADAPTERS[adapter].write(found, root / "out", ignore_progress)
        table = map_table(root / "out" / "records.arrow")
        return table.to_pylist(), report


def _is_sentence(error: SourceError) -> None:
    text = str(error)
    assert text
    assert "\n" not in text
    assert "Traceback" not in text


# -- JSON lines: every type in every field ------------------------------------------------------

WORDS = st.sampled_from(
    ["", " ", "a", "b.png", "NA", "none", "p1", "p2", "가", "x\\y.png", "\ud800", "0"]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1e300, math.nan, math.inf]),
    WORDS, st.just(10**30),
)  # fmt: skip
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["path", "bytes", "wikidata", "answer", "text", "id", "x"]),
            inner, max_size=2,
        ),
    ),
    max_leaves=6,
)  # fmt: skip
GOOD = {
    "answer": ["a"], "data_id": "1", "dataset_id": "d", "image_path": "a.png", "instruction": "i",
    "passage_id": ["p1"], "passage_text": ["t"], "passage_image_path": ["b.png"], "question": "q",
}  # fmt: skip


def _lines(*records: Any) -> bytes:
    return b"\n".join(json.dumps(record).encode() for record in records) + b"\n"


@fuzz
@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), NESTED, max_size=9), max_size=4))
def test_records_in_are_records_built_plus_records_counted(lines: list[dict[str, Any]]) -> None:
    records, report = _write("jsonl", {"r.jsonl": _lines(GOOD, *lines)})
    assert len(records) + sum(report.skipped.values()) == len(lines) + 1
    assert all(report.examples[reason] for reason in (*report.skipped, *report.noted))


LISTS = {"answer", "passage_id", "passage_text", "passage_image_path"}


def _said(name: str, value: Any) -> str | None:
    """What a scalar of the usual types means, written anew; None: it is no usual value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if name == "answer" and isinstance(value, dict):
        said = value.get("wikidata")
        return str(said) if type(said) in {str, int, float} else None
    if "image" in name and isinstance(value, dict) and value and set(value) <= {"bytes", "path"}:
        return "" if value.get("bytes") is None and _said(name, value.get("path")) == "" else None
    if isinstance(value, str):
        said = value.encode("utf-8", "replace").decode().strip()
        if name == "answer":
            return said
        said = "" if said.lower() in {"", "na", "nan", "none", "null"} else said
        return clean_path(said) if "image" in name else said
    if name in {"data_id", "passage_id", "answer"} and not isinstance(value, bool | dict | list):
        whole = isinstance(value, float) and value.is_integer()
        return str(int(value) if whole else value)
    return None


@fuzz
@given(st.sampled_from(FIELDS), NESTED)
@example("image_path", ["a.png"])
@example("image_path", {"path": "a.png", "bytes": None})
@example("image_path", [{"path": None}])
@example("question", ["x", "y"])
@example("passage_text", [{"text": "t"}])
@example("answer", [["a", "b"]])
@example("instruction", True)
def test_an_odd_value_is_used_or_left_out_or_told(name: str, value: Any) -> None:
    """One field of a good record is anything: what is built is what was written, or is named."""
    records, report = _write("jsonl", {"r.jsonl": _lines({**GOOD, name: value})})
    assert len(records) + sum(report.skipped.values()) == 1
    parts = value if name in LISTS and isinstance(value, list) else [value]
    said = [_said(name, part) for part in parts]
    if isinstance(value, list) and all(_said(name, part) == "" for part in value):
        return  # a list of absent values is none at all
    if records and not report.noted:
        written = records[0][name]
        assert None not in said, f"{value!r} became {written!r} and nothing says so"
        got = written if isinstance(written, list) else [written]
        kept = said if name in LISTS - {"answer"} and any(said) else [one for one in said if one]
        if name == "data_id" and not any(said):
            assert got[0].startswith("unnamed-")
        elif name == "passage_id":
            assert got == [one for one in said if one]
        else:
            assert [one for one in got if one] == [one for one in kept if one]


@fuzz
@given(st.lists(st.one_of(st.binary(max_size=40), WORDS.map(lambda w: json.dumps(w).encode())),
                max_size=5))  # fmt: skip
def test_any_bytes_are_lines_or_counts(parts: list[bytes]) -> None:
    content = b"\n".join([_lines(GOOD).strip(), *parts])
    lines = [line for line in content.split(b"\n") if line.strip()]
    try:
        records, report = _write("jsonl", {"r.jsonl": content})
    except SourceError as error:
        _is_sentence(error)
        return
    assert len(records) + sum(report.skipped.values()) == len(lines)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("image_path", ["a.png", "b.png"], "image_path is a list of several values (one is read)"),
        ("question", ["who?", "what?"], "question is a list of several values (one is read)"),
        ("instruction", {"en": "find"}, "instruction is an object where text belongs"),
        ("image_path", {"bytes": "x", "path": None}, "image_path holds the picture itself"),
        ("passage_id", ["p1", {"id": "p2"}], "passage_id is an object where text belongs"),
        ("passage_text", [["t"]], "passage_text is a list where text belongs"),
        ("passage_image_path", [["b.png"]], "passage_image_path is a list where text belongs"),
    ],
)
def test_a_value_that_cannot_be_read_leaves_its_record_out(
    name: str, value: Any, reason: str
) -> None:
    records, report = _write("jsonl", {"r.jsonl": _lines(GOOD, {**GOOD, name: value})})
    assert len(records) == 1
    assert [said.startswith(reason) for said in report.skipped] == [True], report.skipped
    assert report.examples[next(iter(report.skipped))] == ["r.jsonl line 2"]


@pytest.mark.parametrize(
    ("name", "value", "got", "note"),
    [
        ("passage_id", "['p1', 'p2']", ["p1", "p2"], "lists written as text"),
        ("passage_id", '["p1", "p2"]', ["p1", "p2"], "lists written as text"),
        ("answer", "['it\\'s' 'one'\n 'two']", ["it's", "one", "two"], "lists written as text"),
        ("answer", [-math.inf], ["-inf"], "values of answer are number"),
        ("question", "\u200b", "", ""),
        ("question", "\ufeffwho?\u200b", "who?", ""),
    ],
)
def test_what_lists_and_signs_become(name: str, value: Any, got: Any, note: str) -> None:
    """As NumPy, pandas and text editors leave them; `ast` would join NumPy's texts to one."""
    line = {**GOOD, "passage_text": None, "passage_image_path": None, name: value}
    records, report = _write("jsonl", {"r.jsonl": _lines(line)})
    assert records[0][name] == got
    assert [note in said for said in report.noted] == [True] * bool(note)


def test_ids_that_lost_their_ends_and_keys_that_come_twice() -> None:
    rounded = _lines({**GOOD, "passage_id": [12345678901234567.0]}, {**GOOD, "data_id": 1e15})
    records, report = _write("jsonl", {"r.jsonl": rounded})
    assert [record["data_id"] for record in records] == ["1000000000000000"]
    assert [said.startswith("passage_id is a rounded number") for said in report.skipped] == [True]
    twice = _lines(GOOD).replace(b'"question": "q"', b'"question": "a", "question": "q"')
    absent = _lines({**GOOD, "data_id": "NA"})
    records, report = _write("jsonl", {"r.jsonl": twice + absent})
    assert len(records) == 2
    assert set(report.noted) == {
        "objects have a key twice, of which the last was read",
        "values of data_id say that there is none (NA, NaN): ids were made",
    }


def test_a_picture_under_another_key_is_told() -> None:
    line = {key: value for key, value in GOOD.items() if key != "image_path"}
    records, report = _write("jsonl", {"r.jsonl": _lines({**line, "images": ["a.png", "b.png"]})})
    assert records[0]["image_path"] == ""
    assert any("name no image_path but images" in note for note in report.noted)


# -- Parquet: every type of column --------------------------------------------------------------

COLUMNS = ["question_id", "question", "img_path", "instruction", "pos_item_ids", "answers",
           "gold_answer", "pos_item_contents"]  # fmt: skip
TYPES = [
    (pa.string(), ["a", None, "가"]), (pa.int64(), [1, None, 3]), (pa.bool_(), [True, None, False]),
    (pa.float64(), [1.0, None, math.nan]), (pa.binary(), [b"a", None, b"\xff"]),
    (pa.list_(pa.string()), [["p1"], None, ["a", None]]), (pa.list_(pa.int64()), [[1], None, []]),
    (pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
     [{"bytes": None, "path": "a.png"}, None, {"bytes": b"x", "path": None}]),
    (pa.list_(pa.struct([("id", pa.string())])), [[{"id": "p1"}], None, []]),
    (pa.timestamp("s"), [0, None, 2**40]), (pa.decimal128(5, 2), [None, None, None]),
    (pa.list_(pa.list_(pa.string())), [[["a"]], None, []]), (pa.null(), [None, None, None]),
]  # fmt: skip


@fuzz
@given(st.dictionaries(st.sampled_from(COLUMNS), st.integers(0, len(TYPES) - 1), max_size=8),
       st.binary(max_size=3))  # fmt: skip
@example({"pos_item_ids": 5, "question": 0}, b"\xff\xfe")
def test_any_type_of_column_is_read_or_counted(chosen: dict[str, int], broken: bytes) -> None:
    table = {name: pa.array(TYPES[n][1], TYPES[n][0]) for name, n in chosen.items()}
    table.setdefault("pos_item_ids", pa.array([["p1"], ["p1"], None]))
    if broken:  # text that is not UTF-8: Parquet files hold it, and nothing checks it
        raw = pa.array([b"ok", broken, b"ok"])
        table["question"] = pa.StringArray.from_buffers(3, *raw.buffers()[1:])
    files = {}
    for name, content in (("a.parquet", pa.table(table)), ("b.parquet", pa.table(
        {"passage_id": ["p1"], "passage_content": ["t"]}))):  # fmt: skip
        sink = pa.BufferOutputStream()
        pq.write_table(content, sink)
        files[name] = sink.getvalue().to_pybytes()
    try:
        records, report = _write("m2kr_parquet", files)
    except SourceError as error:
        _is_sentence(error)
        return
    assert len(records) + sum(report.skipped.values()) == 3


# -- tables and captions ------------------------------------------------------------------------

TEXT = st.text(st.sampled_from('ab1é가,;\t|" \r\n\0?’.png'), max_size=30)
ENCODINGS = st.sampled_from(["utf-8", "utf-16", "cp949", "cp1252", "cp932"])


@fuzz
@given(st.lists(TEXT, max_size=6), ENCODINGS, st.sampled_from(["train", "test"]),
       st.sampled_from([",", ";", "\t"]))  # fmt: skip
def test_any_table_of_questions_is_read_or_counted_or_refused(
    rows: list[str], encoding: str, part: str, sign: str
) -> None:
    head = sign.join(["id", "image", "question", "a", "b", "c", "d", "answer"])
    good = sign.join(["1", "a.png", "which?", "w", "x", "y", "z", "a"])
    content = "\n".join([head, good, *rows]).encode(encoding, "replace")
    try:
        records, report = _write("challenge", {"t.csv": content}, dataset=part)
    except SourceError as error:
        _is_sentence(error)
        return
    assert records or report.skipped
    assert all(record["answer"] in (["a"], []) or record["answer"] for record in records)


KEYS = st.sampled_from(["image", "media", "caption", "captions", "sentences", "description", "raw",
                        "split", "language", "info", "images", "annotations", "image_id", "id",
                        "train", "x", "a.png", "ko", "en"])  # fmt: skip
DOCUMENT = st.recursive(
    st.one_of(SCALARS, st.sampled_from(["a.png", "b.mp4", "train", "val", "ko", "['a', 'b']"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip


@fuzz
@given(st.one_of(DOCUMENT.map(lambda d: json.dumps(d).encode()), TEXT.map(str.encode),
                 st.binary(max_size=60)),
       st.sampled_from(["c.json", "c.jsonl", "c.csv", "c.txt"]))  # fmt: skip
def test_any_file_of_captions_is_read_or_counted_or_refused(content: bytes, name: str) -> None:
    try:
        records, report = _write("captions", {name: content}, dataset="ko")
    except SourceError as error:
        _is_sentence(error)
        return
    for record in records:
        assert record["answer"]
        assert record["image_path"]
    assert all(report.examples[reason] for reason in (*report.skipped, *report.noted))


@fuzz
@given(NESTED, st.lists(NESTED, max_size=4))
@example(True, [True, {"x": "y"}, [["a"]], 5])
def test_labels_in_are_labels_built_plus_labels_counted(image: Any, said: list[Any]) -> None:
    """Each label names a medium of its own, but for the last, which may name anything."""
    whole = [{"image": f"{number}.png", "caption": one} for number, one in enumerate(said)]
    labels = [{"image": "good.png", "caption": "c"}, *whole, {"image": image, "caption": "d"}]
    try:
        records, report = _write("captions", {"c.json": json.dumps(labels).encode()})
    except SourceError as error:
        _is_sentence(error)
        return
    assert len(records) + sum(report.skipped.values()) == len(labels)


# -- videos -------------------------------------------------------------------------------------


@cache
def _videos() -> dict[str, bytes]:
    from tests.fixtures.videos import write_video

    with tempfile.TemporaryDirectory() as name:
        made = {}
        for file, codec in (("a.mp4", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4"),
                            ("a.flv", "flv1"), ("a.mkv", "mpeg4")):  # fmt: skip
            made[file] = write_video(Path(name) / file, 12, codec).read_bytes()
        return made


@fuzz
@given(st.sampled_from(["a.mp4", "a.ts", "a.avi", "a.flv", "a.mkv"]), st.floats(0, 1),
       st.binary(max_size=40), st.booleans())  # fmt: skip
def test_any_damage_to_a_video_gives_frames_or_a_reason(
    name: str, place: float, damage: bytes, cut: bool
) -> None:
    pytest.importorskip("av", reason="PyAV (extra `captioning`) is not installed")
    from datasets_mm.media import video_frames
    from datasets_mm.media.decode import UnusableError

    content = bytearray(_videos()[name])
    at = int(place * len(content))
    content[at : at + len(damage)] = damage
    try:
        clip = video_frames.read_clip(
            io.BytesIO(content[:at] if cut else content), 4, 8, "bilinear"
        )
    except UnusableError:
        return
    assert clip.pixels.shape == (4, 8, 8, 3)
