"""The feature store: computed once, shared, and always the row that belongs to the key."""

import threading

import numpy as np
import pytest

from engines.torchkit.features import FeatureStore, key

WIDTH = 4


def feature(k: bytes) -> np.ndarray:
    return np.frombuffer(k[:WIDTH], np.uint8).astype(np.float32)


class Tower:
    """Counts what it is asked, and answers in odd order and pieces."""

    def __init__(self, keys):
        self.keys, self.computed = keys, []

    def __call__(self, positions):
        for start in range(0, len(positions), 3):
            piece = list(reversed(positions[start : start + 3]))
            self.computed += piece
            yield piece, np.stack([feature(self.keys[p]) for p in piece])


def keys(*numbers: int) -> list[bytes]:
    return [key(str(n).encode()) for n in numbers]


def expected(ks):
    return np.stack([feature(k) for k in ks]).astype(np.float16)


def test_each_distinct_item_is_computed_once(tmp_path):
    ks = keys(1, 2, 3, 2, 1, 4, 5, 6, 7)
    tower = Tower(ks)
    rows, computed = FeatureStore(tmp_path, "t", WIDTH).rows(ks, tower)
    assert np.array_equal(rows, expected(ks))
    assert len(tower.computed) == 7
    assert computed == 9, "positions that were not known"


def test_a_second_run_computes_only_what_is_new(tmp_path):
    ks = keys(1, 2, 3)
    FeatureStore(tmp_path, "t", WIDTH).rows(ks, Tower(ks))
    more = keys(9, 3, 8, 1)
    tower = Tower(more)
    rows, _ = FeatureStore(tmp_path, "t", WIDTH).rows(more, tower)
    assert np.array_equal(rows, expected(more))
    assert sorted(tower.computed) == [0, 2]


def test_another_tower_shares_nothing(tmp_path):
    ks = keys(1, 2)
    FeatureStore(tmp_path, "a", WIDTH).rows(ks, Tower(ks))
    tower = Tower(ks)
    FeatureStore(tmp_path, "b", WIDTH).rows(ks, tower)
    assert len(tower.computed) == 2


def test_a_tower_that_fails_leaves_nothing_half_done(tmp_path):
    ks = keys(1, 2, 3, 4, 5)

    def failing(positions):
        yield positions[:1], feature(ks[positions[0]])[None]
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        FeatureStore(tmp_path, "t", WIDTH).rows(ks, failing)
    rows, _ = FeatureStore(tmp_path, "t", WIDTH).rows(ks, Tower(ks))
    assert np.array_equal(rows, expected(ks))


def test_two_runs_at_once_compute_once(tmp_path):
    ks = keys(*range(50))
    towers = [Tower(ks), Tower(ks)]
    threads = [
        threading.Thread(target=FeatureStore(tmp_path, "t", WIDTH).rows, args=(ks, tower))
        for tower in towers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(len(t.computed) for t in towers) == [0, 50]


def test_keys_tell_parts_apart():
    assert key(b"ab", b"c") != key(b"a", b"bc")
