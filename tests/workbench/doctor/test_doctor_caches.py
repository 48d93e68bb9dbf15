"""The doctor on caches, down to a flipped byte."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_mm import cache_health
from datasets_mm.media.image_cache import ImageCache
from workbench.doctor import caches


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache root with 40 pictures of 16 px."""
    root = tmp_path / "pictures"
    root.mkdir()
    chance = np.random.default_rng(1)
    for number in range(40):
        Image.fromarray(chance.integers(0, 255, (20, 20, 3), np.uint8)).save(root / f"{number}.png")
    ImageCache.open([f"{n}.png" for n in range(40)], root, 16, tmp_path / "cache")
    return tmp_path / "cache"


def checked(cache: Path) -> dict:
    return cache_health.check_image_cache(next((cache / "images").glob("16-*")))


def test_a_whole_cache_is_whole(cache: Path) -> None:
    row = checked(cache)
    assert (row["rows"], row["checked"], row["bad"], row["torn_bytes"]) == (40, 24, [], 0)
    assert caches.image_cache_finding(row).standing == "ok"


def test_one_changed_byte_in_every_row_is_found(cache: Path) -> None:
    pixels = next((cache / "images").glob("16-*")) / "rows.u8"
    data = bytearray(pixels.read_bytes())
    for row in range(40):
        data[row * 16 * 16 * 3] ^= 255
    pixels.write_bytes(data)
    row = checked(cache)
    assert len(row["bad"]) == 24
    found = caches.image_cache_finding(row)
    assert found.standing == "problem"
    assert "delete" in found.remedy


def test_a_torn_end_and_lost_rows_are_notes(cache: Path) -> None:
    folder = next((cache / "images").glob("16-*"))
    with (folder / "rows.u8").open("ab") as file:
        file.write(b"x" * 100)
    assert caches.image_cache_finding(checked(cache)).standing == "note"
    os.truncate(folder / "hashes.bin", 10 * 32)
    row = checked(cache)
    assert (row["rows"], row["lost"]) == (10, 30)


def test_pictures_that_are_gone_are_no_fault_of_the_cache(cache: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "pictures").iterdir():
        path.unlink()
    row = checked(cache)
    assert (row["gone"], row["checked"], row["bad"]) == (24, 0, [])


def test_subsets_that_are_not_their_manifests(tmp_path: Path) -> None:
    (tmp_path / "subsets" / "none-1").mkdir(parents=True)
    broken = tmp_path / "subsets" / "broken-2"
    broken.mkdir()
    (broken / "manifest.json").write_text("[" * 100)
    rows = [cache_health.check_subset(folder) for folder in (tmp_path / "subsets").iterdir()]
    found = list(caches.subset_findings(rows))
    assert [f.standing for f in found] == ["problem", "problem", "ok"]


def test_a_cache_of_an_earlier_version_is_named_and_not_compared(cache: Path) -> None:
    folder = next((cache / "images").glob("16-*"))
    row = cache_health.check_image_cache(folder.rename(folder.with_name("16-bicubic-center-v1")))
    found = caches.image_cache_finding(row)
    assert (found.standing, row["rows"], row["checked"]) == ("note", 40, 0)
    assert "earlier version" in found.text
    assert "delete" in found.remedy
