"""Stores of texts and images."""

import numpy as np

from engines.retrieval.data.items import ArrayItems, TokenItems, Vocabulary, batch_by_cost
from engines.retrieval.data.pairs import NONE


def test_tokens_are_padded_to_the_longest_of_the_batch():
    items = TokenItems(np.arange(9, dtype=np.int32), np.array([0, 2, 2, 9]), pad=77)
    assert items.gather(np.array([0, 1])).tolist() == [[0, 1], [77, 77]]
    assert items.gather(np.array([2, 0]))[1].tolist() == [0, 1, *[77] * 5]
    assert items.gather(np.array([], np.int64)).shape[0] == 0
    assert list(items.costs()) == [2, 0, 7]


def test_images_of_several_roots_and_unreadable_ones():
    first = np.full((2, 4, 4, 3), 1, np.uint8)
    second = np.full((1, 4, 4, 3), 2, np.uint8)
    items = ArrayItems([first, second], np.array([[0, 1], [1, 0], [0, -1]]))
    assert items.gather(np.array([1, 0, 2])).float().mean((1, 2, 3)).tolist() == [2, 1, 0]
    assert items.readable().tolist() == [True, True, False]


def test_equal_strings_are_one_row():
    words = Vocabulary()
    assert list(words.rows(["a", None, "b", "", "a"])) == [0, NONE, 1, NONE, 0]
    assert list(words.rows(["b", "c"])) == [1, 2]
    assert words.values() == ["a", "b", "c"]


def test_batches_of_like_cost_hold_everything_and_no_more_than_allowed():
    costs = np.random.default_rng(0).integers(1, 60, 500)
    parts = list(batch_by_cost(costs, 256))
    assert sorted(np.concatenate(parts)) == list(range(500))
    assert all(len(p) * costs[p].max() <= 256 for p in parts)
