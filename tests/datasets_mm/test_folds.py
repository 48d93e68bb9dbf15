"""Folds: every row once, groups whole, answers balanced, and nothing depends on the order."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_mm import folds
from datasets_mm.folds import FoldError, Folds


def rows(count: int, groups: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Answers of unequal shares, groups of unequal sizes."""
    rng = random.Random(seed)
    answers = rng.choices([0, 1, 2, 3], [40, 30, 20, 10], k=count)
    return np.asarray(answers), [f"g{int(groups * rng.random() ** 1.5)}" for _ in range(count)]


def assert_whole(fold: np.ndarray, groups: list[str]) -> None:
    seen: dict[str, int] = {}
    assert all(seen.setdefault(name, int(at)) == at for name, at in zip(groups, fold, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 30)), min_size=40, max_size=200),
    st.integers(2, 5),
    st.integers(0, 5),
)
def test_groups_are_whole_and_the_order_is_no_matter(
    pairs: list[tuple[int, int]], k: int, seed: int
) -> None:
    groups = [f"g{group}" for _, group in pairs]
    answers = [answer for answer, _ in pairs]
    if len(set(groups)) < k:
        return
    fold = folds.assign(answers, groups, k, seed)
    assert_whole(fold, groups)
    order = list(range(len(pairs)))
    random.Random(seed).shuffle(order)
    again = folds.assign([answers[n] for n in order], [groups[n] for n in order], k, seed)
    assert again.tolist() == [fold[n] for n in order]


def test_a_sample_has_the_answers_shares_and_follows_from_ids_alone() -> None:
    answers, _ = rows(3_887, 1, seed=4)
    ids = [f"r{n}" for n in range(3_887)]
    chosen = folds.sample_stratified(answers, ids, 200, seed=42)
    assert len(set(chosen.tolist())) == 200
    assert chosen.tolist() == sorted(chosen.tolist())
    shares = np.bincount(answers[chosen], minlength=4) / 200
    assert np.abs(shares - np.bincount(answers, minlength=4) / 3_887).max() < 1 / 200
    order = np.random.default_rng(0).permutation(3_887)
    again = folds.sample_stratified(answers[order], [ids[n] for n in order], 200, seed=42)
    assert {ids[order[n]] for n in again} == {ids[n] for n in chosen}
    assert {*folds.sample_stratified(answers, ids, 200, seed=43)} != {*chosen}
    assert folds.sample_stratified(answers, ids, 5_000, seed=42).tolist() == list(range(3_887))


@pytest.mark.parametrize("k", [3, 5])
def test_single_rows_are_spread_to_within_one(k: int) -> None:
    answers, _ = rows(3_887, 1, seed=k)
    fold = folds.assign(answers, [f"r{n}" for n in range(3_887)], k, seed=42)
    table = np.array([np.bincount(answers[fold == at], minlength=4) for at in range(k)])
    assert (table.max(axis=0) - table.min(axis=0) <= 1).all()
    assert np.ptp(table.sum(axis=1)) <= 1


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_balanced_as_well_as_scikit_learn_does(seed: int) -> None:
    """Independent oracle: the largest deviation of an answer's share in any fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    answers, groups = rows(2_000, 400, seed)
    theirs = np.zeros(len(answers), int)
    split = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    for at, (_, held) in enumerate(split.split(np.zeros(len(answers)), answers, groups)):
        theirs[held] = at
    ours = folds.assign(answers, groups, 5, seed)
    assert_whole(ours, groups)
    assert uneven(ours, answers) <= max(uneven(theirs, answers), 0.01)
    assert np.ptp(np.bincount(ours)) <= max(np.ptp(np.bincount(theirs)), 4)


def uneven(fold: np.ndarray, answers: np.ndarray) -> float:
    whole = np.bincount(answers, minlength=4) / len(answers)
    parts = [np.bincount(answers[fold == at], minlength=4) for at in range(fold.max() + 1)]
    return max(float(np.abs(part / part.sum() - whole).max()) for part in parts)


def test_hold_out_is_the_audits_split() -> None:
    """3,887 rows, a tenth held out: 3,498 to train on, as train_test_split gives."""
    answers, _ = rows(3_887, 1, seed=1)
    fold = folds.hold_out(answers, [f"r{n}" for n in range(3_887)], 0.1, seed=42)
    assert np.bincount(fold).tolist() == [389, 3_498]
    held = np.bincount(answers[fold == 0], minlength=4)
    assert np.abs(held - 0.1 * np.bincount(answers)).max() < 1


def test_hold_out_keeps_groups_whole() -> None:
    answers, groups = rows(1_000, 300, seed=3)
    fold = folds.hold_out(answers, groups, 0.2, seed=0)
    assert_whole(fold, groups)
    assert abs(int((fold == 0).sum()) - 200) <= 3
    assert uneven(fold, answers) < 0.02
    assert (fold != folds.hold_out(answers, groups, 0.2, seed=1)).any()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: folds.assign([0, 1], ["a", "b"], 1, 0), "ask for 2 or more"),
        (lambda: folds.assign([0, 1], ["a", "a"], 2, 0), "1 groups cannot fill 2 folds"),
        (lambda: folds.hold_out([0, 1], ["a", "b"], 1.0, 0), "give one between 0 and 1"),
        (lambda: folds.hold_out([0, 1], ["a", "a"], 0.5, 0), "two pictures at least"),
        (lambda: folds.hold_out([0, 1], ["a", "b"], 0.9, 0), "no row to train on"),
    ],
)
def test_what_cannot_be_dealt_is_said(call, said: str) -> None:
    with pytest.raises(FoldError, match=said):
        call()


def dealt() -> Folds:
    ids = tuple(f"q{n}" for n in range(10))
    fold = folds.assign([n % 4 for n in range(10)], list(ids), 3, seed=7)
    return Folds(ids, fold, 3, 7, subset_fingerprint="abc")


def test_a_fold_file_comes_back_as_it_was(tmp_path: Path) -> None:
    made = dealt()
    path = tmp_path / "deep" / "folds.json"
    folds.save(made, path)
    found = folds.load(path)
    assert found.fingerprint == made.fingerprint
    assert (found.k, found.seed, found.subset_fingerprint) == (3, 7, "abc")
    asked = ["q9", "q0"]
    assert found.lookup(asked).tolist() == [made.fold[9], made.fold[0]]
    assert [p.name for p in path.parent.iterdir()] == ["folds.json"]
    with pytest.raises(FoldError, match=r"1 of 2 records are in no fold \(first: q77\)"):
        found.lookup(["q1", "q77"])


def test_the_fingerprint_knows_content_not_order() -> None:
    made = dealt()
    turned = Folds(made.ids[::-1], made.fold[::-1], 3, 7, subset_fingerprint="abc")
    assert turned.fingerprint == made.fingerprint
    assert (
        Folds(made.ids, made.fold, 3, 8, subset_fingerprint="abc").fingerprint != made.fingerprint
    )


@pytest.mark.parametrize("change", ["swap", "cut", "later", "list", "gone"])
def test_a_fold_file_that_is_not_what_it_was_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "folds.json"
    folds.save(dealt(), path)
    said = json.loads(path.read_text())
    match change:
        case "swap":
            said["folds"]["q3"] = (said["folds"]["q3"] + 1) % 3
            path.write_text(json.dumps(said))
        case "cut":
            path.write_text(path.read_text()[:60])
        case "later":
            path.write_text(json.dumps({**said, "schema": 9}))
        case "list":
            path.write_text("[1, 2]")
        case "gone":
            path.unlink()
    expected = {
        "swap": "was changed after it was written", "cut": "no fold file, or damaged",
        "later": "schema 9 is not known", "list": "no fold file, or damaged",
        "gone": "cannot be read",
    }  # fmt: skip
    with pytest.raises(FoldError, match=expected[change]):
        folds.load(path)


def test_no_fold_is_left_empty_by_large_groups() -> None:
    """Ten rows a picture: a held-out twentieth of them would be half of one."""
    answers, groups = ["a"] * 100, [f"g{row // 10}" for row in range(100)]
    assert np.bincount(folds.hold_out(answers, groups, 0.04, 0)).tolist() == [10, 90]
    sizes = (1, 2, 1, 10, 7)
    labels = [int(sign) for sign in "010230331310230301303"]
    names = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    assert len(set(folds.assign(labels, names, 5, 0).tolist())) == 5
