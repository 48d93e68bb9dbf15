"""VQA answers without a model: parser, calibration, votes, stacking, views."""

from __future__ import annotations

import numpy as np
import pytest

from engines.vqa.data import option_order, questions
from engines.vqa.ensemble import stacking
from engines.vqa.evaluation import answer_parser, calibration, tta, votes
from engines.vqa.evaluation.tta import View
from results.statistics import mcnemar

OPTIONS = ("two", "red", "a cat", "yes")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("a", "a"), (" B\n", "b"), ("(c)", "c"), ("[d].", "d"), ("b.", "b"), ("c)", "c"),
        ("The answer is d", "d"), ("Answer: a.", "a"), ("정답: b", "b"), ("정답은 c", "c"),
        ("b. red", "b"), ("B) Red.", "b"), ("(b) red", "b"), ("Ｃ", "c"), ("a: two", "a"),
        ("", None), ("e", None), ("a or b", None), ("apple", None), ("a cat", None),
        ("ab", None), ("b. two", None), ("a b", None), ("I think it is a", None),
        ("a\nb", None), ("(a", None), ("answer", None), ("b red", None), ("정답은", None),
    ],
)  # fmt: skip
def test_a_letter_or_nothing(text: str, letter: str | None) -> None:
    assert answer_parser.parse_letter(text, OPTIONS) == letter


def test_an_option_text_alone_is_no_letter() -> None:
    assert answer_parser.parse_letter("red", OPTIONS) is None
    assert answer_parser.parse_letter("b. red") is None  # without options nothing may follow


def test_the_calibration_error_by_hand() -> None:
    # Two bins of five: (0.4, 0.6] holds .5 .5 .6 with 1 right, (0.8, 1] holds .9 1.0 with 2.
    confidence = np.array([0.5, 0.5, 0.6, 0.9, 1.0])
    correct = np.array([1.0, 0, 0, 1, 1])
    by_hand = 3 / 5 * abs(1 / 3 - 1.6 / 3) + 2 / 5 * abs(1 - 0.95)
    assert calibration.expected_error(confidence, correct, 5) == pytest.approx(by_hand, abs=1e-12)
    table = calibration.reliability(confidence, correct, 5)
    assert [row.n for row in table] == [0, 0, 3, 0, 2]
    assert table[2].confidence == pytest.approx(1.6 / 3)
    assert np.isnan(table[0].accuracy)


def test_the_calibration_error_against_a_loop() -> None:
    random = np.random.default_rng(3)
    confidence = random.uniform(0.25, 1, 500)
    correct = (random.random(500) < confidence**2) * 1.0
    total = 0.0
    for place in range(15):
        low, high = place / 15, (place + 1) / 15
        inside = [(c, y) for c, y in zip(confidence, correct, strict=True) if low < c <= high]
        if inside:
            gap = sum(y for _, y in inside) / len(inside) - sum(c for c, _ in inside) / len(inside)
            total += len(inside) / 500 * abs(gap)
    assert calibration.expected_error(confidence, correct) == pytest.approx(total, abs=1e-12)
    ideal = calibration.expected_error_if_calibrated(confidence)
    assert 0 < ideal < total


def test_confusion_counts_pairs_and_leaves_unknown_out() -> None:
    found = calibration.confusion(np.array([0, 0, 1, -1, 3]), np.array([0, 2, 1, 1, 3]))
    assert found.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def three_voters() -> np.ndarray:
    return np.array(
        [
            [[0.6, 0.4, 0.0, 0.0], [0.4, 0.6, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]],
            [[0.3, 0.7, 0.0, 0.0], [0.0, 0.1, 0.9, 0.0], [0.5, 0.5, 0.0, 0.0]],
            [[0.6, 0.4, 0.0, 0.0], [0.0, 0.0, 0.4, 0.6], [0.5, 0.5, 0.0, 0.0]],
        ]
    )


def test_majority_and_its_ties() -> None:
    # First two of three; then three different letters, c has the highest mean; then letters alike.
    assert votes.majority_vote(three_voters()).tolist() == [0, 2, 0]
    assert votes.count_votes(np.array([[1, 2], [1, 0]])).tolist() == [[0, 2, 0, 0], [1, 0, 1, 0]]


def test_weighted_votes_by_hand() -> None:
    found = votes.weighted_mean(three_voters(), [2, 1, 1])
    assert found[0] == pytest.approx([0.525, 0.475, 0, 0])
    assert votes.weighted_mean(three_voters())[1] == pytest.approx([0.4 / 3, 0.7 / 3, 1.3 / 3, 0.2])
    assert votes.fold_weights([0.75, 0.5, 0.2]).tolist() == [0.5, 0.25, 0.0]
    assert votes.fold_weights([0.1, 0.2]).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="3 voters"):
        votes.weighted_mean(three_voters(), [0, 0, 0])


def biased(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a model that knows, and likes the letter a far too much."""
    truth = random.integers(0, 4, n)
    logits = random.normal(size=(n, 4))
    logits[np.arange(n), truth] += 2
    logits[:, 0] += 3
    return calibration.softmax(logits), truth


def test_stacking_mends_a_bias_on_rows_it_has_not_seen() -> None:
    random = np.random.default_rng(0)
    shares, truth = biased(600, random)
    fold = np.arange(600) % 3
    fitted = stacking.predict_cross_fitted(shares, truth, fold)
    before = float((shares.argmax(1) == truth).mean())
    after = float((fitted.argmax(1) == truth).mean())
    assert after > before + 0.1
    assert fitted.sum(1) == pytest.approx(np.ones(600))


def test_stacking_never_sees_the_rows_it_is_judged_on() -> None:
    random = np.random.default_rng(1)
    noise = calibration.softmax(random.normal(size=(240, 4)))
    truth = random.integers(0, 4, 240)
    fold = np.arange(240) % 3
    fitted = stacking.predict_cross_fitted(noise, truth, fold)
    other = truth.copy()
    other[fold == 0] = 3 - other[fold == 0]  # the truth of fold 0 changes nothing in fold 0
    again = stacking.predict_cross_fitted(noise, other, fold)
    assert np.array_equal(fitted[fold == 0], again[fold == 0])
    assert not np.array_equal(fitted[fold == 1], again[fold == 1])


def test_too_little_to_stack_is_said() -> None:
    with pytest.raises(ValueError, match="at least 20 held-out rows"):
        stacking.Stacker(np.full((5, 4), 0.25), np.arange(5) % 4)


def test_an_option_that_was_never_right_keeps_its_column() -> None:
    shares = calibration.softmax(np.random.default_rng(0).normal(size=(40, 4)))
    found = stacking.Stacker(shares, np.arange(40) % 2 + 1).predict(shares)
    assert found[:, [0, 3]].sum() == 0
    assert found.sum(1) == pytest.approx(np.ones(40))


def test_unpermuting_is_exact() -> None:
    worth = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)  # of each option
    for view in tta.views((0.9, 1.0, 1.1), options=True):
        shown = worth[:, list(view.permutation)]  # letter i shows option permutation[i]
        assert np.array_equal(tta.restore_order(shown, view.permutation), worth)
    assert option_order.permute_options(OPTIONS, (1, 2, 3, 0)) == ["red", "a cat", "yes", "two"]


def test_views_begin_plain_and_put_every_option_behind_every_letter() -> None:
    assert tta.views((), options=False) == [View()]
    found = tta.views((0.9, 1.0, 1.1), options=True)
    assert len(found) == 12
    assert found[0] == View()
    square = np.array([view.permutation for view in found if view.scale == 1.0])
    assert all(sorted(column) == [0, 1, 2, 3] for column in square.T)


def test_rotations_cancel_a_liking_for_a_letter() -> None:
    worth = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]], np.float32)
    liking = np.array([2.5, 0, 0, 0], np.float32)

    def scorer(view: View) -> np.ndarray:
        shown = worth[:, list(view.permutation)] + liking
        return tta.restore_order(shown, view.permutation)

    plain = tta.score_views(scorer, [View()])
    whole = tta.score_views(scorer, tta.views((), options=True))
    assert plain.mean.argmax(1).tolist() == [0, 0]
    assert whole.mean.argmax(1).tolist() == [1, 3]
    assert whole.votes.sum(1).tolist() == [4, 4]
    assert np.array_equal(whole.plain, plain.mean)


def test_mcnemar_against_the_binomial_by_hand() -> None:
    # 1 and 6 discordant pairs: 2 * (C(7,0) + C(7,1)) / 2^7.
    first = [1.0] + [0.0] * 6 + [1.0] * 5
    second = [0.0] + [1.0] * 6 + [1.0] * 5
    assert mcnemar(first, second) == pytest.approx(2 * 8 / 128)
    assert mcnemar([1.0, 0.0], [1.0, 0.0]) == 1.0
    assert mcnemar([1.0] * 2000 + [0.0] * 3000, [0.0] * 2000 + [1.0] * 3000) < 1e-40


def test_a_stratified_sample_keeps_the_shares() -> None:
    answers = np.array([0] * 600 + [1] * 200 + [2] * 150 + [3] * 50)
    rows = questions.select_stratified(answers, 100)
    assert np.bincount(answers[rows]).tolist() == [60, 20, 15, 5]
    assert len(set(rows.tolist())) == 100
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, questions.select_stratified(answers, 100))
    assert questions.select_stratified(answers, 0).tolist() == list(range(1000))
