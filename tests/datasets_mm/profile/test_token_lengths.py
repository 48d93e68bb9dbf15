"""Lengths in tokens and the samples they come from, against open_clip, pandas and scipy."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from datasets_mm.profile import token_lengths
from datasets_mm.profile.describe import DescribeOptions, describe
from datasets_mm.profile.parallel_scan import ScanOptions, scan
from datasets_mm.profile.record_readers import JsonLinesReader

GOOD = {
    "answer": ["a"], "dataset_id": "OKVQA", "image_path": "train/one.jpg",
    "instruction": "Using the image, obtain documents:", "passage_id": ["WikiWeb_1"],
    "passage_image_path": ["wiki/one.jpg"], "question": "What is it?",
}  # fmt: skip


def many(tmp_path: Path, count: int) -> Path:
    rng = random.Random(5)
    made = [
        {**GOOD, "passage_text": ["word " * rng.choice([3, 40, 90, 200])], "data_id": str(n)}
        for n in range(count)
    ]
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in made))
    return path


def test_a_sample_follows_from_the_seed_alone(tmp_path: Path) -> None:
    path = many(tmp_path, 900)

    def drawn(seed: int, workers: int) -> Any:
        options = ScanOptions(sample=50, seed=seed)
        return scan(JsonLinesReader(path, 30_000), options, workers, lambda more: None).sample

    assert drawn(1, 1) == drawn(1, 2)
    assert len(drawn(1, 1)) == 50
    assert drawn(1, 1) != drawn(2, 1)


def test_the_interval_of_the_truncated_share_covers_the_truth(tmp_path: Path) -> None:
    path = many(tmp_path, 1_200)
    exact = describe(
        DescribeOptions(str(path), tmp_path / "cache", exact=True), lambda *said: None
    ).tokens
    assert exact is not None
    assert exact.passage is not None
    assert exact.seed is None
    measure = token_lengths.load_counter()
    covered = 0
    for seed in range(40):
        found = scan(
            JsonLinesReader(path), ScanOptions(sample=150, seed=seed), 1, lambda more: None
        )
        count = token_lengths.TokenCount()
        count.add(measure, [d.query for d in found.sample], [[d.passage] for d in found.sample])
        lengths = count.profile(measure, 77, seed).passage
        assert lengths is not None
        assert lengths.truncated_low is not None
        assert lengths.truncated_high is not None
        covered += lengths.truncated_low <= exact.passage.truncated <= lengths.truncated_high
    # Binomial(40, 0.95) is below 34 with a chance of 1.4 %; the seeds are fixed.
    assert covered >= 34


def test_lengths_against_pandas() -> None:
    rng = random.Random(3)
    lengths = [rng.randrange(2, 400) for _ in range(999)]
    count = token_lengths.LengthCount()
    for length in lengths:
        count.add(length)
    found = count.lengths(77, sampled=False)
    series = pd.Series(lengths)
    assert found is not None
    assert found.mean == pytest.approx(series.mean())
    assert found.median == series.quantile(0.5, interpolation="lower")
    assert found.p95 == series.sort_values().iloc[-(-95 * 999 // 100) - 1]
    assert found.truncated == pytest.approx((series > 77).mean())
    assert sum(found.histogram) == 999
    assert found.histogram[0] == (series <= 16).sum()
    assert found.histogram[-1] == (series > 256).sum()


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (713, 4_000)])
def test_wilson_against_scipy(hits: int, n: int) -> None:
    from scipy.stats import binomtest

    truth = binomtest(hits, n).proportion_ci(method="wilson")
    assert token_lengths.wilson_interval(hits / n, n) == pytest.approx(
        (truth.low, truth.high), abs=1e-9
    )


SPOKEN = {
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "Łódź 1914–1918's don't x_y  \n tab": [
        40419, 8891, 67, 129, 374, 272, 280, 272, 275, 1224, 272, 280, 272, 279, 568, 847, 713,
        343, 318, 344, 14724,
    ],
    "북극곰 🐻 it's 3.14%": [
        167, 114, 223, 42680, 117, 36216, 364, 25322, 585, 568, 274, 269, 272, 275, 260,
    ],
    "": [],
    "A" * 60: [23126] * 7 + [19336],
}  # fmt: skip
"""What `open_clip.tokenizer.SimpleTokenizer(clean="whitespace")` of open_clip_torch 3.3.0 gives."""


def test_clip_tokens_are_those_of_open_clip() -> None:
    package = token_lengths.package_folder("open_clip")
    if package is None:
        pytest.skip("open_clip_torch is not installed")
    ours = token_lengths.build_clip_tokenizer(package / token_lengths.VOCABULARY)
    for text, ids in SPOKEN.items():
        assert ours.encode(text).ids == [49406, *ids, 49407]
    assert token_lengths.load_counter().count(["a photo of a cat", "\ud800 torn"])[0] == 7


def test_without_a_vocabulary_the_stand_in_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_lengths, "package_folder", lambda name: None)
    measure = token_lengths.load_counter()
    assert measure.is_stand_in
    assert "lower bound" in measure.name
    assert measure.count(["don't stop at 3.14"]) == [2 + 8]
