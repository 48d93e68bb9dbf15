"""Steps: the same subset from any order, nested samples, groups that never straddle a split."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from datasets_mm.recipes import record_classes
from datasets_mm.recipes.recipe import (
    BalanceStep,
    DedupeStep,
    LimitStep,
    PresentStep,
    SampleStep,
    SplitStep,
    Step,
    WhereStep,
)
from datasets_mm.recipes.steps import RecordColumns, apply_steps, rank


@dataclass(frozen=True)
class Row:
    key: str
    image_path: str
    dataset_id: str
    passage_image_path: tuple[str, ...]


rows_strategy = st.lists(
    st.builds(
        Row,
        key=st.text("abcdef0123456789", min_size=1, max_size=6),
        image_path=st.sampled_from(["", "a.png", "b.png", "c.png", "d.png"]),
        dataset_id=st.sampled_from(["x", "y", "z"]),
        passage_image_path=st.sampled_from([(), ("",), ("p",), ("p", ""), ("p", "q")]),
    ),
    unique_by=lambda row: row.key,
    max_size=40,
)
steps_strategy = st.lists(
    st.one_of(
        st.builds(SampleStep, do=st.just("sample"), n=st.integers(0, 20), seed=st.integers(0, 3)),
        st.builds(
            SampleStep,
            do=st.just("sample"),
            n=st.none(),
            fraction=st.floats(0, 1),
            seed=st.integers(0, 3),
        ),
        st.just(PresentStep(do="present", fields=("image_path", "passage_image_path"))),
        st.just(WhereStep(do="where", field="dataset_id", one_of=("x", "y"))),
        st.builds(DedupeStep, do=st.just("dedupe"), by=st.just(("image", "dataset_id"))),
        st.builds(LimitStep, do=st.just("limit"), n=st.integers(1, 5), by=st.just(("dataset_id",))),
        st.builds(
            BalanceStep,
            do=st.just("balance"),
            by=st.sampled_from([("dataset_id",), ("image", "dataset_id")]),
            n=st.one_of(st.none(), st.integers(1, 20)),
            seed=st.integers(0, 3),
        ),
        st.builds(
            SplitStep,
            do=st.just("split"),
            parts=st.just({"a": 0.6, "b": 0.4}),
            keep=st.sampled_from([("a",), ("b",), ("a", "b")]),
            seed=st.integers(0, 3),
        ),
    ),
    max_size=4,
)


def run(steps: list[Step], rows: list[Row]) -> list[Row]:
    columns = {
        name: [getattr(row, name) for row in rows]
        for name in ("image_path", "dataset_id", "passage_image_path")
    }
    outcome = apply_steps(steps, RecordColumns([row.key for row in rows], columns.__getitem__))
    assert outcome.kept == sorted(set(outcome.kept))
    assert len(rows) - len(outcome.kept) == sum(outcome.dropped.values())
    return [rows[number] for number in outcome.kept]


@settings(max_examples=150, deadline=None)
@given(rows_strategy, steps_strategy, st.randoms(use_true_random=False))
def test_order_changes_nothing(rows: list[Row], steps: list[Step], chance: random.Random) -> None:
    shuffled = rows[:]
    chance.shuffle(shuffled)
    assert set(run(steps, rows)) == set(run(steps, shuffled))


@settings(max_examples=100, deadline=None)
@given(rows_strategy, st.integers(0, 30), st.integers(0, 30), st.integers(0, 9))
def test_a_smaller_sample_is_part_of_a_larger(
    rows: list[Row], one: int, two: int, seed: int
) -> None:
    few, many = sorted((one, two))
    small = run([SampleStep(do="sample", n=few, seed=seed)], rows)
    large = run([SampleStep(do="sample", n=many, seed=seed)], rows)
    assert set(small) <= set(large)
    assert len(small) == min(few, len(rows))


@settings(max_examples=100, deadline=None)
@given(rows_strategy, st.floats(0, 1), st.floats(0, 1))
def test_fractions_nest_too(rows: list[Row], one: float, two: float) -> None:
    few, many = sorted((one, two))
    small = run([SampleStep(do="sample", fraction=few)], rows)
    assert set(small) <= set(run([SampleStep(do="sample", fraction=many)], rows))


@settings(max_examples=100, deadline=None)
@given(rows_strategy, st.integers(0, 9))
def test_parts_of_a_split_are_disjoint_in_pictures_and_lose_nothing(
    rows: list[Row], seed: int
) -> None:
    parts = {"a": 0.5, "b": 0.3, "c": 0.2}
    kept = [
        run([SplitStep(do="split", parts=parts, keep=(name,), seed=seed)], rows) for name in parts
    ]
    assert Counter(row for part in kept for row in part) == Counter(rows)
    pictures = [{row.image_path for row in part} for part in kept]
    assert sum(map(len, pictures)) == len(set().union(*pictures))


@settings(max_examples=60, deadline=None)
@given(rows_strategy, st.integers(0, 9))
def test_other_groups_coming_or_going_move_nobody(rows: list[Row], seed: int) -> None:
    step = SplitStep(do="split", parts={"a": 0.5, "b": 0.5}, keep=("a",), seed=seed)
    some = [row for row in rows if row.image_path != "a.png"]
    assert set(run([step], some)) == {row for row in run([step], rows) if row in some}


def test_pictures_of_equal_content_stay_together() -> None:
    """Two paths with one content: the split follows the content."""
    count = 200
    paths = [f"{number}.png" for number in range(count)]
    content = {path: str(int(path.removesuffix(".png")) // 2) for path in paths}
    step = SplitStep(do="split", parts={"a": 0.5, "b": 0.5}, keep=("a",))
    outcome = apply_steps([step], RecordColumns(paths, lambda name: paths, content.__getitem__))
    kept = Counter(content[paths[row]] for row in outcome.kept)
    assert set(kept.values()) == {2}
    assert 60 <= len(outcome.kept) <= 140  # 100 expected, 5.7 standard deviations of 2-row groups


def test_shares_come_out_as_asked() -> None:
    keys = [str(number) for number in range(20_000)]
    step = SplitStep(do="split", parts={"a": 0.85, "b": 0.15}, keep=("b",), by=("data_id",))
    share = len(apply_steps([step], RecordColumns(keys, lambda name: keys)).kept) / len(keys)
    assert abs(share - 0.15) < 0.01  # 4 standard deviations of a binomial share


def test_another_seed_draws_others() -> None:
    keys = [str(number) for number in range(1000)]
    draws = [
        set(
            apply_steps(
                [SampleStep(do="sample", n=100, seed=seed)], RecordColumns(keys, lambda name: keys)
            ).kept
        )
        for seed in (1, 2)
    ]
    assert len(draws[0] & draws[1]) < 30  # 10 expected


def test_rank_never_changes() -> None:
    """Published numbers hang on it. The value is what `b2sum -l 64` prints for `7:abc`."""
    assert rank(7, "abc") == 0x83CD1B1A565D4C13


def test_present_needs_all_of_a_list_or_any() -> None:
    rows = [Row(str(n), "i", "x", shown) for n, shown in enumerate([(), ("",), ("p", ""), ("p",)])]
    both = PresentStep(do="present", fields=("passage_image_path",))
    assert [row.key for row in run([both], rows)] == ["3"]
    either = PresentStep(do="present", fields=("passage_image_path",), need="any")
    assert [row.key for row in run([either], rows)] == ["2", "3"]


def test_where_by_value_pattern_and_negation() -> None:
    rows = [Row("a.q1", "i", "x", ("p", "q")), Row("a.q2", "i", "y", ("r",))]
    step = WhereStep(do="where", field="dataset_id", one_of=("x",))
    assert [row.dataset_id for row in run([step], rows)] == ["x"]
    lists = WhereStep(do="where", field="passage_image_path", matches="^q$")
    assert [row.dataset_id for row in run([lists], rows)] == ["x"]
    against = lists.model_copy(update={"negate": True})
    assert [row.dataset_id for row in run([against], rows)] == ["y"]


def test_limit_caps_each_group() -> None:
    rows = [Row(str(n), "i", "xyz"[n % 3], ()) for n in range(30)]
    kept = run([LimitStep(do="limit", n=4, by=("dataset_id",))], rows)
    assert Counter(row.dataset_id for row in kept) == {"x": 4, "y": 4, "z": 4}
    assert len(run([LimitStep(do="limit", n=4)], rows)) == 4


def balance_rows(counts: dict[str, int]) -> RecordColumns:
    """Records of several kinds; a record's kind is its dataset_id."""
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    keys = [f"{kind}{number}" for number, kind in enumerate(kinds)]
    return RecordColumns(keys=keys, column=lambda name: kinds)


def kept_kinds(counts: dict[str, int], **step: object) -> dict[str, int]:
    rows = balance_rows(counts)
    balance = BalanceStep(do="balance", by=("dataset_id",), **step)
    kinds = rows.column("dataset_id")
    return dict(Counter(str(kinds[row]) for row in apply_steps([balance], rows).kept))


def test_a_balance_equalizes_shares_as_far_as_there_are_records() -> None:
    counts = {"a": 100, "b": 40, "c": 5}
    assert kept_kinds(counts, n=15) == {"a": 5, "b": 5, "c": 5}
    assert kept_kinds(counts, n=45) == {"a": 20, "b": 20, "c": 5}
    assert kept_kinds(counts, n=105) == {"a": 60, "b": 40, "c": 5}
    assert kept_kinds(counts, n=1000) == counts
    assert kept_kinds(counts) == {"a": 5, "b": 5, "c": 5}
    assert sum(kept_kinds(counts, n=46).values()) == 46  # one group gives one more
    assert kept_kinds({}, n=3) == {}


def test_a_balance_keeps_as_many_as_the_shares_allow() -> None:
    counts = {"1": 400, "2-3": 300, "4-10": 100, "11+": 200}
    kept = kept_kinds(counts, shares={"2-3": 0.4, "11+": 0.1})
    assert kept == {"1": 300, "2-3": 300, "4-10": 75, "11+": 75}  # 750, bound by 2-3
    assert kept_kinds({"2-3": 10, "11+": 90}, shares={"2-3": 0.4, "11+": 0.4}) == {
        "2-3": 10, "11+": 10,
    }  # fmt: skip
    without = kept_kinds({"1": 60, "2-3": 40}, shares={"2-3": 0.4, "11+": 0.2})
    assert without == {"1": 40, "2-3": 40}, "the share of what is not there goes to all others"
    assert kept_kinds({}, shares={"2-3": 0.5}) == {}


@pytest.mark.parametrize(
    "wrong",
    [{"shares": {"a": 0.5}, "n": 3}, {"shares": {"a": 1.0}}, {"shares": {"a": 0.0}}],
)
def test_shares_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="shares:"):
        BalanceStep.model_validate({"do": "balance", "by": ["candidates"], **wrong})


@given(
    counts=st.dictionaries(st.sampled_from("abcde"), st.integers(1, 12)),
    n=st.integers(1, 50),
    seed=st.integers(0, 3),
)
def test_a_balance_is_exact_fair_and_nested(counts: dict[str, int], n: int, seed: int) -> None:
    rows = balance_rows(counts)

    def kept(size: int) -> set[int]:
        step = BalanceStep(do="balance", by=("dataset_id",), n=size, seed=seed)
        return set(apply_steps([step], rows).kept)

    found = kept_kinds(counts, n=n, seed=seed)
    assert sum(found.values()) == min(n, sum(counts.values()))
    largest = max(found.values(), default=0)
    for kind, count in found.items():
        assert count == counts[kind] or count >= largest - 1
    assert kept(n) <= kept(n + 1)


def test_a_balance_takes_the_classes_of_the_report() -> None:
    columns: dict[str, list[object]] = {
        "passage_id": [["p"], ["p", "q"], ["p"] * 4, ["p"] * 10, ["p"] * 11, ["p", "q", "r"]],
        "question": ["What?", "In what year?", "name it", "Who is HE?", "", "Somehow, which?"],
        "answer": [["Cat", "dog", "cat "], ["b", "a"], [], ["x"], ["x"], ["x"]],
    }
    rows = RecordColumns(keys=list("abcdef"), column=columns.__getitem__)  # type: ignore[arg-type]
    sizes = {
        by: len(apply_steps([BalanceStep(do="balance", by=(by,), n=100)], rows).kept)  # type: ignore[arg-type]
        for by in ("candidates", "wh_word", "main_answer")
    }
    assert set(sizes.values()) == {6}
    assert [record_classes.candidates_bucket(n) for n in (0, 1, 2, 3, 4, 10, 11, 99)] == [
        "0", "1", "2-3", "2-3", "4-10", "4-10", "11+", "11+",
    ]  # fmt: skip
    asked = [record_classes.wh_word(str(text)) for text in columns["question"]]
    assert asked == ["what", "what", "other", "who", "none", "which"]
    assert record_classes.main_answer(["Cat", "dog", "cat "]) == "cat"
    assert record_classes.main_answer(["b", "a"]) == "a"
    smallest = apply_steps([BalanceStep(do="balance", by=("candidates",))], rows).kept
    assert len(smallest) == 4  # one of each bucket
