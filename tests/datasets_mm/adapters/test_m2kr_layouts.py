"""Both layouts of M2KR from rows typed by hand after its documents: every row has its fate."""

from __future__ import annotations

import json
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets_mm.adapters import ADAPTER_MODULES
from datasets_mm.adapters.m2kr_tables import NOT_IN_POOL, OTHER_TEXT, SEVERAL_TEXTS
from datasets_mm.building.build import BuildError, Subset, build
from datasets_mm.media.image_cache import ImageCache

TYPED = Path(__file__).parents[2] / "fixtures" / "m2kr"


def huge_png(side: int) -> bytes:
    """A PNG whose header alone says that it is side x side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.fixture
def ret(tmp_path: Path) -> Path:
    """A data root in ReT-M2KR's layout."""
    root = tmp_path / "ret"
    folder, images = root / "jsonl" / "m2kr", root / "images"
    folder.mkdir(parents=True)
    (images / "val2014").mkdir(parents=True)
    (images / "wiki").mkdir()
    for number in (297147, 339761, 357586):
        name = f"val2014/COCO_val2014_{number:012}.jpg"
        Image.new("RGB", (8, 8), (number % 255, 0, 0)).save(images / name)
    for name in ("oven_04925601.jpg", "oven_04925602.jpg", "wiki/motocross.jpg"):
        Image.new("RGB", (8, 8), "green").save(images / name)
    Image.new("RGB", (8, 8)).save(tmp_path / "out.jpg")
    (images / "val2014" / "link_out.jpg").symlink_to(tmp_path / "out.jpg")
    (images / "val2014" / "huge.png").write_bytes(huge_png(30_000))
    for name in ("okvqa_test", "okvqa_passages_test"):
        shutil.copy(TYPED / f"ret_{name}.jsonl", folder / f"{name}.jsonl")
    return root


DATA = pa.schema(
    [
        ("pos_item_ids", pa.list_(pa.string())), ("pos_item_contents", pa.list_(pa.string())),
        ("img_id", pa.string()), ("img_path", pa.string()), ("image_id", pa.string()),
        ("question_id", pa.string()), ("question", pa.string()), ("answers", pa.list_(pa.string())),
        ("gold_answer", pa.string()), ("question_type", pa.string()), ("instruction", pa.string()),
    ]
)  # fmt: skip
PASSAGES = pa.schema([(n, pa.string()) for n in ("language", "passage_id", "passage_content")])


def typed_rows() -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = json.loads((TYPED / "parquet_rows.json").read_text())
    return rows


def write_parquet(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=3)


@pytest.fixture
def m2kr(tmp_path: Path) -> Path:
    """A data root in M2KR's own layout, the records in two shards."""
    root, rows = tmp_path / "m2kr", typed_rows()
    write_parquet(root / "Infoseek_data" / "test-00000-of-00002.parquet", rows["data"][:6], DATA)
    write_parquet(root / "Infoseek_data" / "test-00001-of-00002.parquet", rows["data"][6:], DATA)
    write_parquet(
        root / "Infoseek_passages" / "test_passages-00000-of-00001.parquet",
        rows["passages"], PASSAGES,
    )  # fmt: skip
    (root / "images").mkdir()
    for name in ("oven_04925601.jpg", "oven_04925602.jpg"):
        Image.new("RGB", (8, 8), "green").save(root / "images" / name)
    Image.new("RGB", (8, 8)).save(root / "out.jpg")
    return root


def by_id(subset: Subset) -> dict[str, dict[str, Any]]:
    return {row["data_id"]: row for row in subset.records.to_pylist()}


def test_ret_lines_mean_what_the_documents_say(ret: Path, tmp_path: Path) -> None:
    subset = build("okvqa_test", tmp_path / "cache", ret)
    rows = by_id(subset)
    assert rows.keys() == {
        "okvqa_1", "2971475", "okvqa_3", "okvqa_4", "infoseek_5", "infoseek_6", "okvqa_10",
    }  # fmt: skip
    assert rows["okvqa_1"]["passage_id"] == ["12", "7"]
    assert rows["okvqa_1"]["passage_image_path"] == ["wiki/motocross.jpg", ""]
    assert rows["okvqa_1"]["answer"] == ["race", "racing", "motocross"]
    assert rows["okvqa_1"]["instruction"].endswith("the subsequent question:")
    assert rows["2971475"]["passage_id"] == ["33"]  # scalars; an int beside the file's "33"
    assert rows["2971475"]["answer"] == ["vine"]
    assert rows["okvqa_3"]["question"] == ""
    assert rows["okvqa_3"]["passage_id"] == ["12", "33"]  # floats of a column with a NaN
    assert rows["okvqa_3"]["passage_text"][1] == "A vine is a plant with a trailing stem."
    assert rows["okvqa_4"]["image_path"] == ""
    assert rows["okvqa_4"]["passage_text"] == ["A race is a competition of speed."]
    assert rows["infoseek_5"]["answer"] == ["324.0"]  # str(answer["wikidata"]), as ReT compares
    assert rows["infoseek_6"]["answer"] == ["Q90", "Paris"]
    assert rows["infoseek_6"]["question"] == "이 건물은 어디에 있습니까?"
    assert rows["infoseek_6"]["passage_text"][0] == "A race is a contest."  # the record's own


def test_what_is_wrong_with_ret_lines_is_counted_by_reason(ret: Path, tmp_path: Path) -> None:
    manifest = build("okvqa_test", tmp_path / "cache", ret).manifest
    assert manifest["skipped"] == {"picture missing": 1, "picture outside the image root": 2}
    assert manifest["examples"]["picture outside the image root"] == [
        "../../etc/passwd", "val2014/link_out.jpg",
    ]  # fmt: skip
    assert manifest["source_skipped"] == {
        "line is not JSON": 1,
        "no positive passage": 1,
        "passage lists of unequal length": 1,
        "passage without id": 1,
    }
    assert manifest["source_examples"]["line is not JSON"] == [
        "jsonl/m2kr/okvqa_test.jsonl line 13"
    ]
    assert manifest["source_noted"] == {NOT_IN_POOL: 2, OTHER_TEXT: 1, SEVERAL_TEXTS: 1}
    lines = len((ret / "jsonl/m2kr/okvqa_test.jsonl").read_text().splitlines())
    records_skipped = sum(manifest["source_skipped"].values()) - 1  # one was a passage
    assert manifest["rows"] + records_skipped + sum(manifest["skipped"].values()) == lines
    assert manifest["notices"] == [
        "7 records; the recipe expects 5046",
        f"1 {SEVERAL_TEXTS} (first: 34)",
        f"2 {NOT_IN_POOL} (first: jsonl/m2kr/okvqa_test.jsonl line 5: 404)",
        f"1 {OTHER_TEXT} (first: jsonl/m2kr/okvqa_test.jsonl line 6: 7)",
    ]


def test_a_passage_file_is_the_corpus_as_it_stands(ret: Path, tmp_path: Path) -> None:
    """Positives that it lacks do not join it: that would make the search easier than M2KR's."""
    corpus = build("okvqa_test", tmp_path / "cache", ret).corpus
    assert corpus.ids == ["12", "33", "34", "7"]
    assert corpus.row("404") == -1
    assert corpus.image_paths == ["wiki/motocross.jpg", "", "", ""]


def test_a_bomb_of_a_picture_is_named_when_pictures_are_decoded(ret: Path, tmp_path: Path) -> None:
    subset = build("okvqa_test", tmp_path / "cache", ret)
    paths = [row["image_path"] for row in subset.records.to_pylist()]
    cache = ImageCache.open(paths, subset.image_root, 16, tmp_path / "cache")
    assert cache.skipped == {"val2014/huge.png": "more than 40 Mpx"}


def test_m2kr_rows_become_our_nine_fields(m2kr: Path, tmp_path: Path) -> None:
    subset = build("infoseek_test", tmp_path / "cache", m2kr)
    rows = by_id(subset)
    names = [f"infoseek_test_{number:08}" for number in range(6)]
    unnamed = next(name for name in rows if name.startswith("unnamed-"))
    assert rows.keys() == {*names, unnamed}
    assert rows[names[0]] == {
        "data_id": "infoseek_test_00000000", "dataset_id": "infoseek",
        "instruction": "Using the provided image, obtain documents that address the subsequent "
        "question:",
        "question": "How tall is this building?", "image_path": "oven_04925601.jpg",
        "passage_id": ["Infoseek_7"], "passage_image_path": [""],
        "passage_text": ["The Eiffel Tower is 324 metres tall."], "answer": ["324", "324 m"],
    }  # fmt: skip
    assert rows[names[1]]["passage_text"] == [
        "The Eiffel Tower is 324 metres tall.",
        "Gustave Eiffel's company designed it; French is spoken in Paris.",
    ]
    assert (rows[names[2]]["image_path"], rows[names[2]]["instruction"]) == ("", "")
    assert rows[names[3]]["question"] == ""
    assert rows[names[4]]["passage_text"] == ["A text that no passage file has."]
    assert rows[names[5]]["passage_text"] == [""]
    assert rows[names[5]]["answer"] == ["Eiffel Tower"]  # gold_answer, for answers = null
    assert rows[unnamed]["passage_id"] == ["Infoseek_7"]
    assert rows[unnamed]["answer"] == ["324미터"]
    assert rows[unnamed]["question"] == "몇 미터입니까?"


def test_what_is_wrong_with_m2kr_rows_is_counted_by_reason(m2kr: Path, tmp_path: Path) -> None:
    subset = build("infoseek_test", tmp_path / "cache", m2kr)
    manifest = subset.manifest
    assert manifest["source_skipped"] == {"no positive passage": 2, "passage without id": 1}
    assert manifest["source_examples"]["no positive passage"] == [
        "Infoseek_data/test-00001-of-00002.parquet row 1",
        "Infoseek_data/test-00001-of-00002.parquet row 2",
    ]
    assert manifest["skipped"] == {"picture missing": 1, "picture outside the image root": 1}
    assert manifest["source_noted"] == {NOT_IN_POOL: 2, OTHER_TEXT: 1}
    assert manifest["rows"] + 2 + 2 == len(typed_rows()["data"])
    assert subset.corpus.ids == ["Infoseek_10", "Infoseek_11", "Infoseek_7", "Infoseek_8",
                                 "Infoseek_9"]  # fmt: skip


def test_the_later_layout_with_folders_gives_the_same(m2kr: Path, tmp_path: Path) -> None:
    first = build("infoseek_test", tmp_path / "cache", m2kr)
    for kind, stem in (("data", "test"), ("passages", "test_passages")):
        folder = m2kr / f"Infoseek_{kind}" / stem
        folder.mkdir()
        for number, path in enumerate(sorted((m2kr / f"Infoseek_{kind}").glob("*.parquet"))):
            path.rename(folder / f"{number:04}.parquet")
    again = build("infoseek_test", tmp_path / "cache2", m2kr)
    assert again.fingerprint == first.fingerprint
    assert again.records.equals(first.records)


def test_memory_stays_bounded_by_batches(
    m2kr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets_mm.adapters import m2kr_parquet

    first = build("infoseek_test", tmp_path / "cache", m2kr)
    sizes: list[int] = []
    whole = pq.ParquetFile.iter_batches

    def watched(self: Any, size: int, **more: Any) -> Any:
        for batch in whole(self, size, **more):
            sizes.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(m2kr_parquet, "BATCH_ROWS", 2)
    monkeypatch.setattr(m2kr_parquet.pq.ParquetFile, "iter_batches", watched)
    again = build("infoseek_test", tmp_path / "cache2", m2kr)
    assert max(sizes) == 2
    assert again.records.equals(first.records)


Damage = Callable[[Path], object]
RET, PQ = "jsonl/m2kr/okvqa_test.jsonl", "Infoseek_data/test-00001-of-00002.parquet"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def overwrite_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8:400] = bytes(392)
    path.write_bytes(data)


DAMAGES: dict[str, tuple[str, str, Damage, str]] = {
    "half-downloaded parquet": (
        "infoseek_test", PQ, cut, rf"{PQ} is no whole Parquet file \(.* bytes, no end mark\): its "
        "download was cut short; download it again",
    ),
    "parquet damaged inside": (
        "infoseek_test", PQ, overwrite_middle, rf"{PQ} is damaged \(.*\); download it again",
    ),
    "a shard is missing": (
        "infoseek_test", PQ, Path.unlink,
        r"test-00001-of-00002.parquet is not in .* \(1 of 2 parts are missing\)",
    ),
    "a pointer of Git LFS": (
        "okvqa_test", RET, lambda path: path.write_bytes(POINTER), "is a Git LFS pointer",
    ),
    "a TAR archive": (
        "okvqa_test", RET, lambda path: path.write_bytes(b"\0" * 257 + b"ustar\x0000"),
        f"{RET} is a TAR archive, and text is wanted; unpack it",
    ),
    "an empty corpus": (
        "okvqa_test", "jsonl/m2kr/okvqa_passages_test.jsonl", lambda path: path.write_text("{}\n"),
        r"the corpus is empty: jsonl/m2kr/okvqa_passages_test.jsonl holds no usable passage "
        r"\(1 passage without id\)",
    ),
    "no passage file": (
        "okvqa_test", "jsonl/m2kr/okvqa_passages_test.jsonl", Path.unlink,
        "its passages are not: .*a corpus of positives alone would make every recall too high",
    ),
    "no records": (
        "okvqa_test", RET, lambda path: path.write_text(""), r"no record is left \(1 passage with",
    ),
    "a parquet file of something else": (
        "infoseek_test", PQ,
        lambda path: pq.write_table(pa.table({"text": ["x"]}), path),
        rf"{PQ} has no column pos_item_ids \(it has text\); is it a file of M2KR\?",
    ),
    "no pictures": (
        "okvqa_test", "images", shutil.rmtree,
        "the picture folder .*images is not there; .*--set image_root=/folder",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_refused_by_name(what: str, ret: Path, m2kr: Path, tmp_path: Path) -> None:
    name, path, damage, said = DAMAGES[what]
    root = ret if name == "okvqa_test" else m2kr
    damage(root / path)
    with pytest.raises(BuildError, match=said):
        build(name, tmp_path / "cache", root)
    assert not list((tmp_path / "cache").glob("subsets/*/manifest.json"))


def test_a_wrong_folder_is_told_what_it_holds_and_where_the_data_is(
    ret: Path, tmp_path: Path
) -> None:
    with pytest.raises(BuildError) as caught:
        build("okvqa_test", tmp_path / "cache", ret / "jsonl")
    said = str(caught.value)
    assert "jsonl/m2kr/okvqa_test.jsonl, okvqa_test.jsonl" in said
    assert "OKVQA_data/test-*.parquet or OKVQA_data/test/*.parquet is not in" in said
    assert f"{ret / 'jsonl'}, which holds m2kr/; did you mean --set data_root={ret}?" in said
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuildError, match="which holds nothing; give another"):
        build("okvqa_test", tmp_path / "cache", tmp_path / "empty")
    with pytest.raises(BuildError, match="the data folder .*nowhere is not there"):
        build("okvqa_test", tmp_path / "cache", tmp_path / "nowhere")


def test_pictures_of_each_data_set_have_their_own_root(
    ret: Path, m2kr: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "pictures"
    shutil.move(ret / "images", elsewhere)
    roots = f"okvqa={elsewhere}, infoseek={m2kr / 'images'}"
    assert len(build("okvqa_test", tmp_path / "cache", ret, None, roots)) == 7
    assert len(build("okvqa_test", tmp_path / "cache", ret, None, str(elsewhere))) == 7
    assert len(build("infoseek_test", tmp_path / "cache", m2kr, None, roots)) == 7
    with pytest.raises(BuildError, match="data set 'okvaq'; did you mean 'okvqa'"):
        build("okvqa_test", tmp_path / "cache", ret, None, f"okvaq={elsewhere}")
    with pytest.raises(BuildError, match=r"wrong at 'okvqa='; write /folder, or oven=/folder"):
        build("okvqa_test", tmp_path / "cache", ret, None, "okvqa=")


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_the_order_of_the_input_leaves_no_trace(
    seed: int, ret: Path, m2kr: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shuffle = random.Random(seed).shuffle
    cache = tmp_path_factory.mktemp("caches")
    for name, root in (("okvqa_test", ret), ("infoseek_test", m2kr)):
        first = build(name, cache / "a", root)
        for path in (root / "jsonl" / "m2kr").glob("*.jsonl"):
            lines = path.read_text().splitlines()
            shuffle(lines)
            path.write_text("\n".join(lines) + "\n")
        rows = typed_rows()
        shuffle(rows["data"])
        shuffle(rows["passages"])
        edge = seed % len(rows["data"])
        if name == "infoseek_test":
            for shard, part in enumerate((rows["data"][:edge], rows["data"][edge:])):
                target = root / f"Infoseek_data/test-0000{shard}-of-00002.parquet"
                write_parquet(target, part, DATA)
            target = root / "Infoseek_passages/test_passages-00000-of-00001.parquet"
            write_parquet(target, rows["passages"], PASSAGES)
        again = build(name, cache / "b", root)
        assert again.fingerprint == first.fingerprint
        for table in ("records.arrow", "corpus.arrow"):
            there, here = (folder / table for folder in (first.folder, again.folder))
            assert there.read_bytes() == here.read_bytes()


def test_a_count_that_differs_is_listed(ret: Path, tmp_path: Path) -> None:
    from datasets_mm import catalog

    build("okvqa_test", tmp_path / "cache", ret)
    said = catalog.summary("okvqa_test", tmp_path / "cache")
    assert (said.rows, said.expected_rows) == (7, 5046)
    assert ADAPTER_MODULES.keys() >= {"ret_m2kr_jsonl", "m2kr_parquet"}
