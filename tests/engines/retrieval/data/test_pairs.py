"""Training pairs: positives, their draw by epoch, modality dropout, inputs of a batch."""

import numpy as np
import pytest
import torch

from engines.retrieval.data.items import ArrayItems, TokenItems
from engines.retrieval.data.pairs import (
    NONE,
    ItemRows,
    TrainingPairs,
    drop_modality,
    gather_inputs,
    positive_matrix,
    sample_per_epoch,
)


def pool() -> TrainingPairs:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, 40)
    total = int(counts.sum())
    return TrainingPairs(
        ItemRows(np.arange(40), np.where(np.arange(40) % 3, np.arange(40), NONE)),
        ItemRows(np.arange(total), np.full(total, NONE)),
        rng.integers(0, 25, total),
        np.concatenate([[0], np.cumsum(counts)]),
    )


def test_positive_matrix_is_that_of_sets():
    records = pool()
    rows = np.array([5, 0, 17, 39, 5, 22])
    drawn = sample_per_epoch(records.offsets, rows, 1, 0)
    found = positive_matrix(records, rows, drawn)
    for i, row in enumerate(rows):
        mine = set(records.codes[records.offsets[row] : records.offsets[row + 1]])
        assert [bool(x) for x in found[i]] == [records.codes[d] in mine for d in drawn]
    assert found.diagonal().all()


def test_the_drawn_positive_depends_on_nothing_but_seed_epoch_and_record():
    offsets = pool().offsets
    rows = np.arange(40)
    drawn = sample_per_epoch(offsets, rows, 42, 3)
    shuffled = np.random.default_rng(5).permutation(40)
    assert np.array_equal(sample_per_epoch(offsets, shuffled, 42, 3), drawn[shuffled])
    assert np.array_equal(sample_per_epoch(offsets, rows[7:9], 42, 3), drawn[7:9])
    assert ((drawn >= offsets[:-1]) & (drawn < offsets[1:])).all()
    assert not np.array_equal(sample_per_epoch(offsets, rows, 42, 4), drawn)
    assert not np.array_equal(sample_per_epoch(offsets, rows, 43, 3), drawn)


def test_positives_are_drawn_evenly():
    offsets = np.array([0, 4])
    drawn = [sample_per_epoch(offsets, np.array([0]), 0, epoch)[0] for epoch in range(4000)]
    counts = np.bincount(drawn, minlength=4)
    assert counts.min() > 900, counts


def test_modality_dropout_takes_one_of_two_at_the_asked_rate():
    both = ItemRows(np.zeros(20_000, np.int64), np.zeros(20_000, np.int64))
    kept = drop_modality(both, np.arange(20_000), 0, 0, 0.3)
    no_text, no_image = (kept.texts == NONE), (kept.images == NONE)
    assert not (no_text & no_image).any()
    assert no_text.mean() == pytest.approx(0.15, abs=0.01)
    assert no_image.mean() == pytest.approx(0.15, abs=0.01)
    single = ItemRows(np.zeros(100, np.int64), np.full(100, NONE))
    assert (drop_modality(single, np.arange(100), 0, 0, 1.0).texts == 0).all()


def test_gather_says_which_rows_have_what():
    texts = TokenItems(np.arange(4, dtype=np.int32), np.array([0, 2, 4]), pad=0)
    images = ArrayItems([np.arange(3 * 48, dtype=np.uint8).reshape(3, 4, 4, 3)])
    inputs = gather_inputs(ItemRows(np.array([1, NONE, 0]), np.array([NONE, 2, 1])), texts, images)
    assert inputs.text_at.tolist() == [0, 2]
    assert inputs.image_at.tolist() == [1, 2]
    assert inputs.texts.tolist() == [[2, 3], [0, 1]]
    assert torch.equal(inputs.images[0], torch.from_numpy(images.arrays[0][2]))
