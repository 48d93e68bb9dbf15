"""Greedy decoding: what it writes, and when rows leave the batch."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from engines.captioning.models.generation import decode_greedily

END, WORDS = 0, 60


def decode(lengths: list[int], longest: int) -> tuple[list[list[int]], list[int]]:
    """Captions of a scripted model and the rows of each of its passes.

    Row r (from 1) writes r * 10 + 1, r * 10 + 2, ..., of which it has as many as `lengths` says.
    """
    embeddings = nn.Embedding.from_pretrained(torch.arange(WORDS).float()[:, None])
    known, passes = torch.tensor([0, *lengths]), []

    def next_logits(inputs, cache):
        before = inputs[:, -1, 0].long()
        row, step = before // 10, before % 10
        keys, _ = cache.update(inputs[:, None], inputs[:, None], 0)
        assert (keys[:, 0, :, 0] // 10 == row[:, None]).all(), "its own keys, step by step"
        assert keys.shape[2] == len(passes) + 1
        passes.append(len(inputs))
        token = torch.where(step < known[row], before + 1, END)
        return functional.one_hot(token, WORDS).float()

    prompt = 10.0 * torch.arange(1, len(lengths) + 1)[:, None, None]
    return decode_greedily(prompt, next_logits, embeddings, END, longest), passes


def test_rows_leave_the_batch_when_their_captions_end():
    captions, passes = decode([1, 4, 2, 9], longest=6)
    assert captions == [
        [11], [21, 22, 23, 24], [31, 32], [41, 42, 43, 44, 45, 46],
    ]  # fmt: skip
    assert passes == [4, 4, 3, 2, 2, 1]


@pytest.mark.parametrize(("lengths", "passes"), [([0, 0], [2]), ([1] * 3, [3, 3]), ([9], [1] * 5)])
def test_decoding_ends_with_the_last_row(lengths, passes):
    captions, seen = decode(lengths, longest=5)
    assert [len(ids) for ids in captions] == [min(length, 5) for length in lengths]
    assert seen == passes
