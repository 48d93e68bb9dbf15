"""Captions from files: every layout means the same, and dirt is counted and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from datasets_mm.building.build import BuildError, build
from engines.captioning.data import captions
from engines.emitter import EngineError

WANTED = {"a.png": ["a cat", "one cat"], "b.png": ["a dog"]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with two pictures; recipes of the test's own."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "config" / "recipes").mkdir(parents=True)
    monkeypatch.setenv("WORKBENCH_CONFIG", str(tmp_path / "config"))
    for number, name in enumerate(WANTED):
        Image.new("RGB", (8, 8), (50 * number, 0, 0)).save(tmp_path / "data" / "images" / name)
    return tmp_path


def _build(place: Path, uri: str, language: str = "en", recipe: str = ""):
    (place / "config" / "recipes" / "own.toml").write_text(
        'schema = 1\nname = "own"\ntitle = "t"\n[source]\nadapter = "captions"\n'
        f'uri = ["{uri}"]\ndataset = "{language}"\n{recipe}'
    )
    return build("own", place / "cache", place / "data")


COCO = {
    "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "a cat"},
        {"id": 2, "image_id": 8, "caption": "a dog"},
        {"id": 3, "image_id": 7, "caption": "one cat"},
    ],
}
ROWS = "media,caption\na.png,a cat\nb.png,a dog\na.png,one cat\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.jsonl", '{"media": "a.png", "captions": ["a cat", "one cat"]}\n'
                    '{"media": "b.png", "caption": "a dog"}\n'),
        ("c.json", json.dumps([{"image": "a.png", "captions": ["a cat", "one  cat"]},
                               {"image": "b.png", "captions": "a dog"}])),
        ("c.json", json.dumps(WANTED)),
        ("c.json", json.dumps({"data": [{"file_name": m, "sentences": [{"raw": s} for s in c]}
                                        for m, c in WANTED.items()]})),
        ("c.json", json.dumps(COCO)),
        ("c.csv", ROWS),
        ("c.csv", "\ufeff" + ROWS.replace(",", ";").replace("\n", "\r\n")),
        ("c.tsv", "image\tcaption_1\tcaption_2\na.png\ta cat\tone cat\nb.png\ta dog\t\n"),
    ],
)  # fmt: skip
def test_every_layout_means_the_same(place: Path, name: str, content: str) -> None:
    (place / "data" / name).write_text(content, "utf-8", newline="")
    subset = _build(place, name)
    found = captions.read_captions(subset)
    assert dict(zip(found.paths, found.references, strict=True)) == WANTED
    assert (found.language, found.videos) == ("en", False)
    assert len(set(found.ids)) == len(found) == 2
    assert subset.manifest["corpus_rows"] == 0


def test_one_json_a_video_in_cp949_is_read_and_said(place: Path) -> None:
    """AI-Hub's way: a folder of labels, one file a video, what matters one level deeper."""
    (place / "data" / "labels" / "x").mkdir(parents=True)
    for name, said in (("a", "고양이가 앉아 있다"), ("b", "개가 달린다")):
        (place / "data" / "images" / f"{name}.mp4").write_bytes(b"video")
        text = json.dumps(
            {"video": {"file_name": f"{name}.mp4", "fps": 30}, "annotation": {"caption_ko": said}},
            ensure_ascii=False,
        )
        (place / "data" / "labels" / "x" / f"{name}.json").write_bytes(text.encode("cp949"))
    subset = _build(place, "labels/**/*.json", "ko")
    found = captions.read_captions(subset)
    assert found.videos
    assert found.language == "ko"
    assert found.references == [["고양이가 앉아 있다"], ["개가 달린다"]]
    assert any("CP949" in said for said in subset.manifest["notices"])


def test_what_is_missing_is_counted_and_named(place: Path) -> None:
    lines = [
        '{"media": "a.png", "caption": "a cat"}', '{"media": "b.png", "caption": " "}',
        '{"media": "b.png"}', '{"caption": "of nothing"}', "not JSON", "[1]",
        '{"media": "gone.png", "caption": "x"}', '{"media": "../../x.png", "caption": "x"}',
    ]  # fmt: skip
    (place / "data" / "c.jsonl").write_text("\n".join(lines))
    subset = _build(place, "c.jsonl")
    assert len(subset) == 1
    manifest = subset.manifest
    assert manifest["source_skipped"]["no caption"] == 2
    assert manifest["source_examples"]["no caption"] == ["c.jsonl line 2", "c.jsonl line 3"]
    assert manifest["source_skipped"]["line is not JSON"] == 1
    assert manifest["source_skipped"]["line is not an object"] == 1
    assert any(reason.startswith("no medium") for reason in manifest["source_skipped"])
    assert manifest["skipped"] == {"picture missing": 1, "picture outside the image root": 1}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.csv", b"x,y\n1,2\n", "no column of media or none of captions"),
        ("c.json", b"{", "c.json is not JSON"),
        ("c.json", b"\xff\xfe\xfd\x80", "utf-16|neither UTF-8 nor CP949|not JSON"),
        ("c.csv", b"media,caption\na.png,\x80\x81\xff\n", "neither UTF-8 nor CP949"),
    ],
)
def test_what_is_no_table_is_refused(place: Path, name: str, content: bytes, said: str) -> None:
    (place / "data" / name).write_bytes(content)
    with pytest.raises(BuildError, match=said):
        _build(place, name)


def test_pictures_and_videos_are_not_mixed(place: Path) -> None:
    (place / "data" / "images" / "v.mp4").write_bytes(b"video")
    (place / "data" / "c.json").write_text(json.dumps({"a.png": "a cat", "v.mp4": "a film"}))
    with pytest.raises(EngineError, match="mixes pictures and videos"):
        captions.read_captions(_build(place, "c.json"))


def test_openmoji_names_keep_their_pictures_apart(tmp_path: Path, monkeypatch) -> None:
    """The shipped splits, on every twentieth drawing: no picture in two of them, both languages."""
    from datasets_mm.demo import emoji_captions

    whole = emoji_captions._read_names
    monkeypatch.setattr(
        emoji_captions, "_read_names",
        lambda *a: dict(list(whole(*a).items())[::20]),
    )  # fmt: skip
    parts = {}
    for language in ("en", "ko"):
        for part in ("train", "val", "heldout"):
            found = captions.read_captions(build(f"emoji_captions_{language}_{part}", tmp_path))
            assert found.language == language
            parts[language, part] = set(found.paths)
    for language in ("en", "ko"):
        train, val, held = (parts[language, part] for part in ("train", "val", "heldout"))
        assert not train & val | train & held | val & held
        assert len(train) > 4 * len(held)
        assert parts["ko", "train"] == train


def test_flags_are_named_as_flags() -> None:
    pytest.importorskip("emoji")
    from datasets_mm.adapters import SourceReport
    from datasets_mm.demo.emoji_captions import _read_names
    from datasets_mm.demo.openmoji.emojis import require_package

    found = _read_names(
        require_package("emoji", "emoji") / "unicode_codes",
        frozenset({"1F1F0-1F1F7", "1F600", "1F6A9"}),
        SourceReport(),
    )
    assert found == {
        "1F1F0-1F1F7": {"en": "flag of South Korea", "ko": "대한민국 깃발"},
        "1F600": {"en": "grinning face", "ko": "활짝 웃는 얼굴"},
        "1F6A9": {"en": "triangular flag", "ko": "세모 깃발"},
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.jsonl", '{"media": "a.png"}\n{"media": "b.png", "caption": "a dog"}\n'),
        ("c.json", '["a.png", "b.png"]'),
        ("c.json", json.dumps({**COCO, "annotations": COCO["annotations"][1:2]})),
        ("c.csv", "media\na.png\nb.png\n"),
        ("c.csv", "media,caption\na.png,\nb.png,a dog\n"),
    ],
)
def test_media_without_captions_are_kept_where_captions_are_optional(
    place: Path, name: str, content: str
) -> None:
    (place / "data" / name).write_text(content)
    subset = _build(place, name, recipe="captions_optional = true\n")
    assert subset.manifest["source_skipped"] == {}
    found = captions.read_captions(subset, optional=True)
    assert found.paths == ["a.png", "b.png"]
    assert found.references in ([[], ["a dog"]], [[], []])
    assert found.language == "en"


def test_odd_values_are_no_media_without_captions(place: Path) -> None:
    lines = [{"media": "a.png", "caption": {"x": [1]}}, {"media": "b.png"}, {"caption": "a dog"}]
    (place / "data" / "c.json").write_text(json.dumps(lines))
    subset = _build(place, "c.json", recipe="captions_optional = true\n")
    assert captions.read_captions(subset, optional=True).paths[-1] == "b.png"
    assert any("no medium" in reason for reason in subset.manifest["source_skipped"])
    with pytest.raises(EngineError, match="caption this one by task infer"):
        captions.read_captions(subset)
