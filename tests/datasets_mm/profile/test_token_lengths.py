"""Lengths in tokens and the samples they come from, against open_clip, pandas and scipy."""

from __future__ import annotations

import random
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from datasets_mm.profile import token_lengths
from datasets_mm.profile.record_texts import RowSample
from datasets_mm.storage.arrow_store import RECORD_SCHEMA

GOOD = {
    "answer": ["a"], "dataset_id": "OKVQA", "image_path": "train/one.jpg",
    "instruction": "Using the image, obtain documents:", "passage_id": ["WikiWeb_1"],
    "passage_image_path": ["wiki/one.jpg"], "question": "What is it?",
}  # fmt: skip


def table(rows: int) -> pa.Table:
    rng = random.Random(5)
    records = [
        {**GOOD, "passage_text": ["word " * rng.choice([3, 40, 90, 200])], "data_id": str(row)}
        for row in range(rows)
    ]
    return pa.Table.from_pylist(records, RECORD_SCHEMA)


def draw(records: pa.Table, size: int, seed: int, batch_rows: int = 300) -> Any:
    """Queries and positives of the sample, over all batches."""
    sample, queries, passages, start = RowSample(len(records), size, seed), [], [], 0
    for batch in records.to_batches(max_chunksize=batch_rows):
        texts = sample.texts(batch, start, "passage_text")
        queries += texts[0]
        passages += texts[1]
        start += batch.num_rows
    return queries, passages


def test_a_sample_follows_from_the_seed_alone() -> None:
    records = table(900)
    records = records.set_column(4, "instruction", records["data_id"])
    assert draw(records, 50, 1) == draw(records, 50, 1, batch_rows=7)
    assert len({query.split()[0] for query in draw(records, 50, 1)[0]}) == 50
    assert draw(records, 50, 1) != draw(records, 50, 2)
    assert len(draw(records, 900, 1)[0]) == 900


def test_the_interval_of_the_truncated_share_covers_the_truth() -> None:
    records = table(1_200)
    counter = token_lengths.load_counter()

    def truncated(size: int, seed: int) -> Any:
        count = token_lengths.TokenCount()
        count.add(counter, *draw(records, size, seed))
        return count.profile(counter, 77, seed).passage

    exact = truncated(1_200, 0).truncated
    covered = 0
    for seed in range(40):
        lengths = truncated(150, seed)
        covered += lengths.truncated_low <= exact <= lengths.truncated_high
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
