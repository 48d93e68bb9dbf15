"""VQA answers without a model: parser, calibration, votes, stacking, views, files, submissions."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from engines.emitter import EngineError
from engines.vqa import (
    augment,
    calibration,
    evaluate,
    infer,
    parse,
    predictions,
    stacking,
    submission,
    votes,
)
from engines.vqa.augment import View
from engines.vqa.predictions import Answer
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
    assert parse.letter(text, OPTIONS) == letter


def test_an_option_text_alone_is_no_letter() -> None:
    assert parse.letter("red", OPTIONS) is None
    assert parse.letter("b. red") is None  # without options nothing may follow


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
    ideal = calibration.error_of_calibrated(confidence)
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
    assert votes.majority(three_voters()).tolist() == [0, 2, 0]
    assert votes.counts(np.array([[1, 2], [1, 0]])).tolist() == [[0, 2, 0, 0], [1, 0, 1, 0]]


def test_weighted_votes_by_hand() -> None:
    found = votes.weighted(three_voters(), [2, 1, 1])
    assert found[0] == pytest.approx([0.525, 0.475, 0, 0])
    assert votes.weighted(three_voters())[1] == pytest.approx([0.4 / 3, 0.7 / 3, 1.3 / 3, 0.2])
    assert votes.fold_weights([0.75, 0.5, 0.2]).tolist() == [0.5, 0.25, 0.0]
    assert votes.fold_weights([0.1, 0.2]).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="3 voters"):
        votes.weighted(three_voters(), [0, 0, 0])


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
    fitted = stacking.cross_fitted(shares, truth, fold)
    before = float((shares.argmax(1) == truth).mean())
    after = float((fitted.argmax(1) == truth).mean())
    assert after > before + 0.1
    assert fitted.sum(1) == pytest.approx(np.ones(600))


def test_stacking_never_sees_the_rows_it_is_judged_on() -> None:
    random = np.random.default_rng(1)
    noise = calibration.softmax(random.normal(size=(240, 4)))
    truth = random.integers(0, 4, 240)
    fold = np.arange(240) % 3
    fitted = stacking.cross_fitted(noise, truth, fold)
    other = truth.copy()
    other[fold == 0] = 3 - other[fold == 0]  # the truth of fold 0 changes nothing in fold 0
    again = stacking.cross_fitted(noise, other, fold)
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
    for view in augment.views((0.9, 1.0, 1.1), options=True):
        shown = worth[:, list(view.permutation)]  # letter i shows option permutation[i]
        assert np.array_equal(augment.unpermuted(shown, view.permutation), worth)
    assert augment.permuted(OPTIONS, (1, 2, 3, 0)) == ["red", "a cat", "yes", "two"]


def test_views_begin_plain_and_put_every_option_behind_every_letter() -> None:
    assert augment.views((), options=False) == [View()]
    found = augment.views((0.9, 1.0, 1.1), options=True)
    assert len(found) == 12
    assert found[0] == View()
    square = np.array([view.permutation for view in found if view.scale == 1.0])
    assert all(sorted(column) == [0, 1, 2, 3] for column in square.T)


def test_rotations_cancel_a_liking_for_a_letter() -> None:
    worth = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]], np.float32)
    liking = np.array([2.5, 0, 0, 0], np.float32)

    def scorer(view: View) -> np.ndarray:
        shown = worth[:, list(view.permutation)] + liking
        return augment.unpermuted(shown, view.permutation)

    plain = augment.look(scorer, [View()])
    whole = augment.look(scorer, augment.views((), options=True))
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
    rows = evaluate.stratified(answers, 100)
    assert np.bincount(answers[rows]).tolist() == [60, 20, 15, 5]
    assert len(set(rows.tolist())) == 100
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, evaluate.stratified(answers, 100))
    assert evaluate.stratified(answers, 0).tolist() == list(range(1000))


class Questions:
    """As engines.vqa.questions gives them."""

    def __init__(self, n: int, known: bool = True) -> None:
        self.ids = [f"q{row}" for row in range(n)]
        self.paths = [f"{row}.png" for row in range(n)]
        self.texts = ["What?"] * n
        self.options = [OPTIONS] * n
        self.answers = np.arange(n) % 4 if known else np.full(n, -1)
        self.kinds = ["counting" if row % 2 else "colour" for row in range(n)]

    def take(self, rows: np.ndarray) -> Questions:
        part = Questions(0)
        for name in ("ids", "paths", "texts", "options", "kinds"):
            setattr(part, name, [getattr(self, name)[row] for row in rows])
        part.answers = self.answers[rows]
        return part


class Fake:
    """Right three times of four with its picture; without it, it says a."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.calls = 0
        self.stop_after = stop_after

    def logits(self, questions: Questions, view: View, *, blank: bool = False) -> np.ndarray:
        self.calls += 1
        if self.calls > self.stop_after:
            raise KeyboardInterrupt
        found = np.zeros((len(questions.ids), 4), np.float32)
        for row, name in enumerate(questions.ids):
            number = int(name[1:])
            wrong = blank or number % 4 == 3
            found[row, 0 if wrong else questions.answers[row]] = 1 + number / 1000
        return found

    def written(self, questions: Questions) -> list[str]:
        return ["b" if name == "q1" else "well" for name in questions.ids]


def asked(**changes: object) -> infer.Asked:
    settings = {"views": augment.views((), options=True), "block": 4, "blank": True}
    return infer.Asked(**{**settings, "key": {"weights": "w1"}, **changes})


def answer_all(path: Path, model: Fake, n: int = 10, **changes: object) -> list[Answer]:
    return infer.answer_all(model, Questions(n), asked(**changes), path, lambda *_: None)


def test_every_question_has_one_answer_and_a_second_call_computes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "test.jsonl"
    model = Fake()
    found = answer_all(path, model, written=frozenset({"q1", "q2"}))
    assert [answer.id for answer in found] == Questions(10).ids
    assert model.calls == 3 * 5  # three blocks, four views and the blanked one
    assert [a.right for a in found[:4]] == [True, True, True, False]
    assert (found[1].parsed, found[2].parsed, found[3].generated) == ("b", "", None)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert lines[1]["accuracy"] == 1.0
    assert lines[1]["accuracy[blank image]"] == 0.0
    assert answer_all(path, again := Fake(), written=frozenset({"q1", "q2"})) == found
    assert again.calls == 0


def test_a_torn_line_and_an_interrupted_block_end_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole" / "a.jsonl", tmp_path / "torn" / "a.jsonl"
    answer_all(whole, Fake())
    with pytest.raises(KeyboardInterrupt):
        answer_all(torn, Fake(stop_after=7))
    data = whole.read_bytes()
    torn.write_bytes(data[: data.rfind(b"\n", 0, -1) - 30])  # eight lines and a piece
    assert len(predictions.read(torn)[0]) == 8
    answer_all(torn, Fake())
    assert torn.read_bytes() == data


def test_answers_of_other_weights_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "p" / "a.jsonl"
    answer_all(path, Fake())
    model = Fake()
    answer_all(path, model, key={"weights": "w2"})
    assert model.calls == 15
    answer_all(path, again := Fake(), key={"weights": "w2"}, views=augment.views((), options=False))
    assert again.calls == 3 * 2


def test_a_file_that_is_not_exactly_the_questions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p" / "a.jsonl"
    found = answer_all(path, Fake())
    predictions.append(path, [found[0].model_copy(update={"id": "stranger"})])
    with pytest.raises(EngineError, match="1 answers no question"):
        infer.proven(path, Questions(10).ids)
    with pytest.raises(EngineError, match="3 of 14 questions have no answer|4 of 14"):
        infer.proven(path, Questions(14).ids)


def test_broken_logits_and_double_ids_are_errors(tmp_path: Path) -> None:
    class Broken(Fake):
        def logits(self, questions: Questions, view: View, *, blank: bool = False) -> np.ndarray:
            return np.full((len(questions.ids), 4), np.nan, np.float32)

    with pytest.raises(EngineError, match="not finite on 4 of 4"):
        answer_all(tmp_path / "a.jsonl", Broken())
    double = Questions(3)
    double.ids[2] = "q0"
    with pytest.raises(EngineError, match="id 'q0' occurs more than once"):
        infer.answer_all(Fake(), double, asked(), tmp_path / "b.jsonl", lambda *_: None)


KILLED = """
import os, signal, sys
sys.path[:0] = [{root!r}, {here!r}]
import test_vqa_answers as t
from pathlib import Path
class Mortal(t.Fake):
    def logits(self, *a, **k):
        found = super().logits(*a, **k)
        if self.calls == {calls}:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
t.answer_all(Path(sys.argv[1]), Mortal(), n=50)
"""


@pytest.mark.parametrize("calls", [7, 38])
def test_a_kill_9_loses_nothing_but_a_block(tmp_path: Path, calls: int) -> None:
    whole, killed = tmp_path / "whole" / "a.jsonl", tmp_path / "killed" / "a.jsonl"
    answer_all(whole, Fake(), n=50)
    here = Path(__file__)
    program = KILLED.format(root=str(here.parents[2]), here=str(here.parent), calls=calls)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(killed)], check=False
    )
    assert done.returncode == -signal.SIGKILL
    before = len(predictions.read(killed)[0])
    assert before == (calls - 1) // 5 * 4
    model = Fake()
    answer_all(killed, model, n=50)
    assert killed.read_bytes() == whole.read_bytes()
    assert model.calls == 13 * 5 - (calls - 1) // 5 * 5


def test_metrics_of_a_split_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "p" / "test.jsonl"
    answers = answer_all(path, Fake(), n=100, written=frozenset(f"q{i}" for i in range(10)))
    found = {m.name: m for m in evaluate.metrics(answers, "test", "predictions/test.jsonl")}
    assert found["accuracy"].value == 0.75
    assert found["accuracy"].scores_file == "predictions/test.jsonl"
    assert found["accuracy[blank image]"].value == 0.25
    assert found["picture gain"].value == pytest.approx(0.5)
    assert found["picture gain"].low > 0.35
    assert "McNemar exact p = " in found["picture gain"].method
    assert found["TTA gain"].value == 0.0
    assert found["accuracy[written]"].value == 0.1
    assert found["unparsable"].value == 0.9
    assert not found["unparsable"].higher_is_better
    assert found["coverage"].n == 100
    tables = evaluate.tables(answers)
    assert tables is not None
    assert tables.kinds == {"colour": (50, 50), "counting": (50, 25)}
    assert np.diag(tables.confusion).sum() == 75
    assert tables.confusion[3].tolist() == [25, 0, 0, 0]


def test_without_truth_there_is_coverage_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "p" / "test.jsonl"
    answers = [a.model_copy(update={"truth": ""}) for a in answer_all(path, Fake())]
    assert [m.name for m in evaluate.metrics(answers, "test", "f")] == ["coverage"]
    assert evaluate.tables(answers) is None


def sample_file(folder: Path, text: str = "id,answer\nt1,a\nt2,a\nt3,a\n") -> Path:
    path = folder / "sample_submission.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_submission_follows_its_sample(tmp_path: Path) -> None:
    sample = submission.read_sample(sample_file(tmp_path))
    out = tmp_path / "submission.csv"
    data = submission.write(out, {"t3": "c", "t1": "a", "t2": "b"}, sample)
    assert out.read_bytes() == data == b"id,answer\nt1,a\nt2,b\nt3,c\n"
    assert submission.check(out, sample) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sample_submission.csv", "submission.csv"]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"t1": "a", "t2": "b"}, "1 id of the sample without an answer: t3"),
        ({"t1": "a", "t2": "b", "t3": "c", "t9": "d"}, "1 answer to no id of the sample: t9"),
        (
            {"t1": "a", "t2": "e", "t3": ""},
            "2 answers other than the letters a to d: t2='e', t3=''",
        ),
        ({"t1": "A", "t2": "b", "t3": "ab"}, "2 answers other than the letters"),
    ],
)
def test_a_wrong_submission_is_not_written(
    answers: dict[str, str], said: str, tmp_path: Path
) -> None:
    out = tmp_path / "submission.csv"
    with pytest.raises(submission.SubmissionError, match=said):
        submission.write(out, answers, submission.read_sample(sample_file(tmp_path)))
    assert [p.name for p in tmp_path.iterdir()] == ["sample_submission.csv"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,letter\nt1,a\nt2,a\nt3,a\n", "its columns are 'id,letter'"),
        ("id,answer\nt2,a\nt1,a\nt3,a\n", "line 2 has id t2 where"),
        ("id,answer\nt1,a\nt1,a\nt3,a\n", "1 id more than once: t1"),
        ("id,answer\nt1,a\nt2\nt3,a\n", "line 3 has not two columns"),
        ("", "its columns are ''"),
    ],
)
def test_defects_of_a_file_are_named(text: str, said: str, tmp_path: Path) -> None:
    sample = submission.read_sample(sample_file(tmp_path))
    out = tmp_path / "out.csv"
    out.write_text(text)
    assert any(said in problem for problem in submission.check(out, sample))


def test_samples_from_excel_and_broken_ones(tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    path.write_bytes("\ufeffid,answer\r\nx,a\r\n".encode())
    assert submission.read_sample(path).columns == ("id", "answer")
    path.write_bytes("번호,정답\n가,a\n".encode("cp949"))
    assert submission.read_sample(path).ids == ("가",)
    path.write_text("id\nx\n")
    with pytest.raises(submission.SubmissionError, match="has 1 columns"):
        submission.read_sample(path)
    path.write_text("id,answer\nx,a\nx,a\n")
    with pytest.raises(submission.SubmissionError, match="1 id more than once: x"):
        submission.read_sample(path)
    with pytest.raises(submission.SubmissionError, match="cannot be read"):
        submission.read_sample(tmp_path / "none.csv")


def test_an_announced_file_has_its_own_hash(tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "a.jsonl"
    answer_all(path, Fake())
    found = predictions.artifact(path, tmp_path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.path == "predictions/a.jsonl"
    assert found.size == path.stat().st_size
