"""Answers of a whole split without a model: their file, a kill, metrics, submissions."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from engines.emitter import EngineError, describe_artifact
from engines.vqa.evaluation import infer, metrics, predictions, submission, tta
from engines.vqa.evaluation.predictions import Answer
from engines.vqa.evaluation.tta import View

OPTIONS = ("two", "red", "a cat", "yes")


class Questions:
    """As engines.vqa.data.questions gives them."""

    def __init__(self, n: int, known: bool = True) -> None:
        self.ids = [f"q{row}" for row in range(n)]
        self.paths = [f"{row}.png" for row in range(n)]
        self.texts = ["What?"] * n
        self.options = [OPTIONS] * n
        self.answers = np.arange(n) % 4 if known else np.full(n, -1)
        self.kinds = ["counting" if row % 2 else "colour" for row in range(n)]

    def with_media(self, paths: list[str]) -> Questions:
        other = self.select(np.arange(len(self.ids)))
        other.paths = paths
        return other

    def select(self, rows: np.ndarray) -> Questions:
        part = Questions(0)
        for name in ("ids", "paths", "texts", "options", "kinds"):
            setattr(part, name, [getattr(self, name)[row] for row in rows])
        part.answers = self.answers[rows]
        return part


class Fake:
    """Right three times of four with its own picture; without it, it says a."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.calls = 0
        self.stop_after = stop_after

    def letter_logits(self, questions: Questions, view: View, *, blank: bool = False) -> np.ndarray:
        self.calls += 1
        if self.calls > self.stop_after:
            raise KeyboardInterrupt
        found = np.zeros((len(questions.ids), 4), np.float32)
        for row, name in enumerate(questions.ids):
            number = int(name[1:])
            wrong = blank or number % 4 == 3 or questions.paths[row] != f"{number}.png"
            found[row, 0 if wrong else questions.answers[row]] = 1 + number / 1000
        return found

    def generate_answers(self, questions: Questions) -> list[str]:
        return ["b" if name == "q1" else "well" for name in questions.ids]


def asked(**changes: object) -> infer.InferenceOptions:
    settings = {"views": tta.views((), options=True), "block": 4, "blank": True}
    return infer.InferenceOptions(**{**settings, "key": {"weights": "w1"}, **changes})


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
    assert len(predictions.read_answers(torn)[0]) == 8
    answer_all(torn, Fake())
    assert torn.read_bytes() == data


def test_an_append_of_which_a_part_was_written_goes_on(tmp_path: Path, monkeypatch) -> None:
    """A disk that is nearly full takes a part, and says so only when asked for the rest."""
    whole, parts = tmp_path / "a" / "p.jsonl", tmp_path / "b" / "p.jsonl"
    answer_all(whole, Fake())
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:1000]))
    answer_all(parts, Fake())
    assert parts.read_bytes() == whole.read_bytes()


def test_two_ranks_answer_in_turn_what_one_process_answers(tmp_path: Path) -> None:
    """Rank 1 to its end, then rank 0; a second start computes nothing anew."""
    (tmp_path / "one").mkdir()
    alone = answer_all(tmp_path / "one" / "p.jsonl", Fake(), n=11, block=3)
    path = tmp_path / "two" / "p.jsonl"
    for _ in range(2):
        second, first = Fake(), Fake()
        assert answer_all(path, second, n=11, block=3, rank_and_size=(1, 2)) == []
        found = answer_all(path, first, n=11, block=3, rank_and_size=(0, 2))
        assert found == alone
    assert not first.calls
    assert not second.calls
    assert (infer.rank_path(path, 1)).is_file()
    assert len(predictions.read_answers(infer.rank_path(path, 1))[0]) == 5


def test_answers_of_other_weights_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "p" / "a.jsonl"
    answer_all(path, Fake())
    model = Fake()
    answer_all(path, model, key={"weights": "w2"})
    assert model.calls == 15
    answer_all(path, again := Fake(), key={"weights": "w2"}, views=tta.views((), options=False))
    assert again.calls == 3 * 2


def test_a_file_that_is_not_exactly_the_questions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p" / "a.jsonl"
    found = answer_all(path, Fake())
    predictions.append_answers(path, [found[0].model_copy(update={"id": "stranger"})])
    with pytest.raises(EngineError, match="1 answers no question"):
        infer.read_complete(path, Questions(10).ids)
    with pytest.raises(EngineError, match="3 of 14 questions have no answer|4 of 14"):
        infer.read_complete(path, Questions(14).ids)


def test_broken_logits_and_double_ids_are_errors(tmp_path: Path) -> None:
    class Broken(Fake):
        def letter_logits(
            self, questions: Questions, view: View, *, blank: bool = False
        ) -> np.ndarray:
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
import test_predictions as t
from pathlib import Path
class Mortal(t.Fake):
    def letter_logits(self, *a, **k):
        found = super().letter_logits(*a, **k)
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
    program = KILLED.format(root=str(here.parents[4]), here=str(here.parent), calls=calls)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(killed)], check=False
    )
    assert done.returncode == -signal.SIGKILL
    before = len(predictions.read_answers(killed)[0])
    assert before == (calls - 1) // 5 * 4
    model = Fake()
    answer_all(killed, model, n=50)
    assert killed.read_bytes() == whole.read_bytes()
    assert model.calls == 13 * 5 - (calls - 1) // 5 * 5


def test_metrics_of_a_split_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "p" / "test.jsonl"
    answers = answer_all(path, Fake(), n=100, written=frozenset(f"q{i}" for i in range(10)))
    found = {m.name: m for m in metrics.compute_metrics(answers, "test", "predictions/test.jsonl")}
    assert found["accuracy"].value == 0.75
    assert found["accuracy"].scores_file == "predictions/test.jsonl"
    assert found["accuracy[blank image]"].value == 0.25
    assert found["picture gain"].value == pytest.approx(0.5)
    assert found["picture gain"].low > 0.35
    assert "McNemar exact p = " in found["picture gain"].method
    assert found["TTA gain"].value == 0.0
    assert "own picture gain" not in found
    assert found["accuracy[written]"].value == 0.1
    assert found["unparsable"].value == 0.9
    assert not found["unparsable"].higher_is_better
    assert found["coverage"].n == 100
    tables = metrics.tables(answers)
    assert tables is not None
    assert tables.kinds == {"colour": (50, 50), "counting": (50, 25)}
    assert np.diag(tables.confusion).sum() == 75
    assert tables.confusion[3].tolist() == [25, 0, 0, 0]


def test_reliability_is_of_the_letters_that_were_given() -> None:
    """A majority's letter need not be the one with the highest mean probability."""
    shares = (0.45, 0.42, 0.07, 0.06)
    answers = [Answer(id=str(n), letter="b", probabilities=shares, truth="b") for n in range(4)]
    tables = metrics.tables(answers)
    assert tables is not None
    (row,) = [row for row in tables.reliability if row.n]
    assert (row.n, row.confidence, row.accuracy) == (4, pytest.approx(0.42), 1.0)


def test_pictures_of_other_questions_are_asked_about_once_more(tmp_path: Path) -> None:
    path, others = tmp_path / "p" / "test.jsonl", infer.pair_media(Questions(100))
    assert sorted(others.values()) == sorted(Questions(100).paths)
    assert all(other != f"{name[1:]}.png" for name, other in others.items())
    answers = answer_all(path, Fake(), n=100, other_media=others)
    found = {m.name: m for m in metrics.compute_metrics(answers, "test", "predictions/test.jsonl")}
    assert found["accuracy[shuffled images]"].value == 0.25
    assert found["own picture gain"].value == pytest.approx(0.5)
    plain = asked()
    assert plain.whole_key != asked(other_media=others).whole_key


def test_without_truth_there_is_coverage_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "p" / "test.jsonl"
    answers = [a.model_copy(update={"truth": ""}) for a in answer_all(path, Fake())]
    assert [m.name for m in metrics.compute_metrics(answers, "test", "f")] == ["coverage"]
    assert metrics.tables(answers) is None


def sample_file(folder: Path, text: str = "id,answer\nt1,a\nt2,a\nt3,a\n") -> Path:
    path = folder / "sample_submission.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_submission_follows_its_sample(tmp_path: Path) -> None:
    sample = submission.read_sample(sample_file(tmp_path))
    out = tmp_path / "submission.csv"
    data = submission.write_csv(out, {"t3": "c", "t1": "a", "t2": "b"}, sample)
    assert out.read_bytes() == data == b"id,answer\nt1,a\nt2,b\nt3,c\n"
    assert submission.check_file(out, sample) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sample_submission.csv", "submission.csv"]


def test_a_submission_has_the_case_of_its_sample(tmp_path: Path) -> None:
    sample = submission.read_sample(sample_file(tmp_path, "id,answer\nt1,A\nt2,?\n"))
    out = tmp_path / "submission.csv"
    assert submission.write_csv(out, {"t1": "a", "t2": "d"}, sample) == b"id,answer\nt1,A\nt2,D\n"
    assert submission.check_file(out, sample) == []
    out.write_text("id,answer\nt1,a\nt2,D\n")
    assert submission.check_file(out, sample) == ["1 answer other than the letters A to D: t1='a'"]


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
        submission.write_csv(out, answers, submission.read_sample(sample_file(tmp_path)))
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
    assert any(said in problem for problem in submission.check_file(out, sample))


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
    found = describe_artifact(path, tmp_path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.path == "predictions/a.jsonl"
    assert found.size == path.stat().st_size
