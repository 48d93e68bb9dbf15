"""Pictures are looked up by the rule by which runs read them, and a sample is opened."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from datasets_mm.media.decode import UnusableError, read_inside
from datasets_mm.profile.describe import DescribeOptions, describe
from datasets_mm.profile.image_checks import PictureCount


def silently(done: int, total: int, unit: str) -> None: ...


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    (root / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    for name in ("a.png", "sub/b.png", "../secret/out.png"):
        Image.new("RGB", (9, 9), "red").save(root / name)
    (root / "sub" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 and nothing")
    (root / "link.png").symlink_to(root / "a.png")
    (root / "escape.png").symlink_to(tmp_path / "secret" / "out.png")
    (root / "away").symlink_to(tmp_path / "secret")
    os.mkfifo(root / "pipe.png")
    return root.resolve()


PATHS = {
    "a.png": "", "sub/b.png": "", "sub/../a.png": "", "link.png": "", "./a.png": "",
    "gone.png": "missing", "sub/gone/x.png": "missing", "sub": "not a regular file",
    "pipe.png": "not a regular file", "../secret/out.png": "outside the image root",
    "escape.png": "outside the image root", "away/out.png": "outside the image root",
    "/etc/passwd": "outside the image root", "a\0b": "outside the image root",
}  # fmt: skip


def test_a_look_gives_the_reason_that_reading_would(root: Path) -> None:
    count = PictureCount(root, seed=0)
    count.check_paths([*PATHS, *PATHS, ""])
    assert {path: count.lost.get(path, "") for path in PATHS} == PATHS
    for path, reason in PATHS.items():
        try:
            read_inside(root, path)
            said = ""
        except UnusableError as error:
            said = str(error)
        assert said == reason, path
    found = count.profile(silently)
    assert found.distinct == len(PATHS)
    assert found.lost == {"outside the image root": 5, "missing": 2, "not a regular file": 2}
    assert found.opened == 5
    assert found.opened_all


def test_opened_pictures_are_a_seeded_sample(root: Path) -> None:
    for number in range(40):
        Image.new("RGB", (4, 4)).save(root / f"{number}.png")
    names = [f"{number}.png" for number in range(40)]
    drawn = []
    for order in (names, names[::-1]):
        count = PictureCount(root, seed=7, limit=10)
        count.check_paths(order)
        assert count.profile(silently).opened == 10
        drawn.append(set(count.sample))
    assert drawn[0] == drawn[1]
    count = PictureCount(root, seed=7, limit=10)
    count.check_paths(names[:25])
    count.check_paths(names[15:])
    found = count.profile(silently)
    assert (found.distinct, found.opened, found.opened_all) == (40, 10, False)
    assert set(count.sample) == drawn[0]
    assert found.unusable_low == pytest.approx(0)
    assert found.unusable_high == pytest.approx(0.2775, abs=1e-3)  # Wilson, 0 of 10


def test_a_profile_names_bad_pictures(root: Path, tmp_path: Path) -> None:
    record = {"passage_id": ["p"], "passage_text": ["t"], "question": "q", "data_id": "d",
              "passage_image_path": ["sub/torn.jpg"]}  # fmt: skip
    lines = [{**record, "image_path": path} for path in ("a.png", "gone.png", "../secret/out.png")]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = DescribeOptions(str(path), tmp_path / "cache", image_root=str(root))
    found = describe(asked, silently).pictures
    assert found is not None
    assert found.lost == {"missing": 1, "outside the image root": 1}
    assert list(found.unusable.values()) == [1]
    assert found.examples["missing"] == ("gone.png",)
