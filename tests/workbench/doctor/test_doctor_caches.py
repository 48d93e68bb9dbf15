"""The doctor on caches, down to a flipped byte, and on what the workbench itself costs."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_mm import cache_health
from datasets_mm.media.image_cache import ImageCache
from workbench.doctor import caches, overhead, overhead_statistics
from workbench.doctor.overhead_statistics import StepBlock


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


def blocks(median: float, count: int, chance: random.Random) -> list[StepBlock]:
    return [
        StepBlock(tuple(chance.gauss(median, 0.0005) for _ in range(100)), 0.004, 2.0)
        for _ in range(count)
    ]


def test_a_known_difference_lies_in_its_interval() -> None:
    chance = random.Random(7)
    found = overhead_statistics.compute_overhead(
        blocks(0.0202, 5, chance), blocks(0.0200, 5, chance)
    )
    assert found.low < 0.0002 < found.high
    assert found.low > 0, "a percent is seen with this noise"
    assert found.cpu_share == pytest.approx(0.002)
    assert found.steps_per_arm == 500
    none = overhead_statistics.compute_overhead(blocks(0.02, 5, chance), blocks(0.02, 5, chance))
    assert none.low < 0 < none.high


def test_the_interval_covers_what_it_should() -> None:
    """95 % of intervals hold the true difference; 40 draws, at least 33 (binomial, p < 0.01)."""
    held = 0
    for seed in range(40):
        chance = random.Random(seed)
        watched, alone = blocks(0.0201, 4, chance), blocks(0.02, 4, chance)
        found = overhead_statistics.compute_overhead(watched, alone, seed, resamples=200)
        held += found.low <= 0.0001 <= found.high
    assert held >= 33


def test_it_is_measured_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_LOCKS", str(tmp_path))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(overhead, "STEP_SECONDS", 0.004)
    found = overhead.measure_overhead(pairs=2, steps=60)
    assert found.steps_per_arm == 120
    assert 0 < found.step_seconds < 0.2
    path = overhead_statistics.write_result(found, tmp_path / "cache")
    assert path.stat().st_mode & 0o777 == 0o600
    assert overhead_statistics.read_result(tmp_path / "cache") == found
    path.write_text("{}")
    assert overhead_statistics.read_result(tmp_path / "cache") is None
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["overhead.json"]


def test_a_cache_of_an_earlier_version_is_named_and_not_compared(cache: Path) -> None:
    folder = next((cache / "images").glob("16-*"))
    row = cache_health.check_image_cache(folder.rename(folder.with_name("16-bicubic-center-v1")))
    found = caches.image_cache_finding(row)
    assert (found.standing, row["rows"], row["checked"]) == ("note", 40, 0)
    assert "earlier version" in found.text
    assert "delete" in found.remedy
