"""The feature store: computed once, shared, and always the row that belongs to the key."""

import resource
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from engines.torchkit.modeling.feature_cache import FeatureStore, NoRoomError, content_key

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


def rows_of(stored):
    """What the places point at."""
    return np.stack([stored.arrays[array][row] for array, row in stored.positions])


def keys(*numbers: int) -> list[bytes]:
    return [content_key(str(n).encode()) for n in numbers]


def expected(ks):
    return np.stack([feature(k) for k in ks]).astype(np.float16)


def test_each_distinct_item_is_computed_once(tmp_path):
    ks = keys(1, 2, 3, 2, 1, 4, 5, 6, 7)
    tower = Tower(ks)
    stored = FeatureStore(tmp_path, "t", WIDTH).open(ks, tower)
    assert np.array_equal(rows_of(stored), expected(ks))
    assert len(tower.computed) == stored.computed == 7


def test_a_second_run_computes_only_what_is_new(tmp_path):
    ks = keys(1, 2, 3)
    FeatureStore(tmp_path, "t", WIDTH).open(ks, Tower(ks))
    more = keys(9, 3, 8, 1)
    tower = Tower(more)
    stored = FeatureStore(tmp_path, "t", WIDTH).open(more, tower)
    assert np.array_equal(rows_of(stored), expected(more))
    assert sorted(tower.computed) == [0, 2]


def test_another_tower_shares_nothing(tmp_path):
    ks = keys(1, 2)
    FeatureStore(tmp_path, "a", WIDTH).open(ks, Tower(ks))
    tower = Tower(ks)
    FeatureStore(tmp_path, "b", WIDTH).open(ks, tower)
    assert len(tower.computed) == 2


def test_a_tower_that_fails_leaves_nothing_half_done(tmp_path):
    ks = keys(1, 2, 3, 4, 5)

    def failing(positions):
        yield positions[:1], feature(ks[positions[0]])[None]
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        FeatureStore(tmp_path, "t", WIDTH).open(ks, failing)
    assert not list((tmp_path / "features" / "t").glob("*rows-*"))
    stored = FeatureStore(tmp_path, "t", WIDTH).open(ks, Tower(ks))
    assert np.array_equal(rows_of(stored), expected(ks))


def test_two_runs_at_once_compute_once(tmp_path):
    ks = keys(*range(50))
    towers = [Tower(ks), Tower(ks)]
    threads = [
        threading.Thread(target=FeatureStore(tmp_path, "t", WIDTH).open, args=(ks, tower))
        for tower in towers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(len(t.computed) for t in towers) == [0, 50]


def test_maps_of_rows_keep_their_shape_and_type(tmp_path):
    ks = keys(1, 2, 3)
    values = np.random.default_rng(0).standard_normal((3, 5, 7)).astype(np.float32)

    def tower(positions):
        yield positions, values[positions]

    store = FeatureStore(tmp_path, "t", (5, 7), "float32")
    assert store.count_missing(ks) == 3
    stored = store.open(ks, tower)
    assert np.array_equal(rows_of(stored), values)
    assert isinstance(stored.arrays[0], np.memmap)
    on_disk = sum(f.stat().st_size for f in store.folder.glob("rows-*/[rk]*s"))
    assert store.disk_bytes(3) == on_disk
    assert store.count_missing(ks) == 0


def test_too_full_a_disk_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    ks = keys(1, 2)
    usage = SimpleNamespace(total=1000, used=990, free=10)
    monkeypatch.setattr(
        "engines.torchkit.modeling.feature_cache.shutil.disk_usage", lambda _: usage
    )
    tower = Tower(ks)
    with pytest.raises(NoRoomError, match="feature_cache = false"):
        FeatureStore(tmp_path, "t", WIDTH).open(ks, tower)
    assert not tower.computed


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(tmp_path):
    """A real limit of the system: files may not grow beyond 1 KiB."""
    ks = keys(*range(100))

    def slow(positions):
        for position in positions:
            yield [position], np.zeros((1, 64), np.float32)

    store = FeatureStore(tmp_path, "t", 64, "float32")
    FeatureStore(tmp_path, "t", 64, "float32").open(keys(200), slow)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(NoRoomError, match=r"full after \d+ of 100 rows .*make room"):
            store.open(ks, slow)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(list(store.folder.glob("*rows-*"))) == 1, "what was whole before stays"
    assert store.count_missing(keys(200)) == 0
    assert store.open(ks, slow).computed == 100


def test_a_tower_that_leaves_rows_out_is_refused(tmp_path):
    ks = keys(1, 2, 3)

    def lazy(positions):
        yield positions[:2], np.zeros((2, WIDTH), np.float32)

    with pytest.raises(RuntimeError, match="2 of 3 rows came"):
        FeatureStore(tmp_path, "t", WIDTH).open(ks, lazy)


def test_keys_tell_parts_apart():
    assert content_key(b"ab", b"c") != content_key(b"a", b"bc")


class Growing(Tower):
    """Item p has p + 1 rows, all of them the item's."""

    def __call__(self, positions):
        for piece, rows in super().__call__(positions):
            yield piece, np.repeat(rows, [p + 1 for p in piece], axis=0)


def spans_of(stored):
    """What the places of items with sizes point at."""
    return [stored.arrays[array][first : first + n] for array, first, n in stored.positions]


def test_items_may_have_rows_of_their_own_number(tmp_path):
    ks = keys(1, 2, 3, 4, 5, 6, 7)
    sizes = [place + 1 for place in range(7)]
    stored = FeatureStore(tmp_path, "t", WIDTH).open(ks, Growing(ks), sizes)
    for place, rows in enumerate(spans_of(stored)):
        assert np.array_equal(rows, np.repeat(expected(ks[place : place + 1]), place + 1, axis=0))
    more = [*ks[2:5], *keys(9)]  # known ones beside a new one, in another shard
    again = FeatureStore(tmp_path, "t", WIDTH).open(more, Growing(more), [3, 4, 5, 4])
    assert again.computed == 1
    for place, rows in enumerate(spans_of(again)):
        assert np.array_equal(rows, np.repeat(expected(more[place : place + 1]), len(rows), axis=0))
    assert [len(rows) for rows in spans_of(again)] == [3, 4, 5, 4]


def test_an_item_with_another_number_of_rows_than_said_is_an_error(tmp_path):
    ks = keys(1, 2)
    with pytest.raises(RuntimeError, match=r"rows of \(3, 4\) came for 4 of \(4,\)"):
        FeatureStore(tmp_path, "t", WIDTH).open(ks, Growing(ks), [1, 3])
    assert not list((tmp_path / "features/t").glob("*rows*"))
