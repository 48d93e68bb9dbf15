"""The ensemble of folds: what it reads, what it trusts, what it says, what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engines import messages, protocol
from engines.emitter import Emitter, EngineError, describe_artifact
from engines.protocol import Entry, RunSpec
from engines.vqa.data import questions
from engines.vqa.ensemble import ensemble, fold_runs, temperature
from engines.vqa.evaluation import calibration, predictions, run_outputs
from engines.vqa.evaluation.predictions import Answer
from engines.vqa.params import Params

LETTERS = "abcd"
TEST = "quiz_test"


def answers(
    names: list[str], shares: np.ndarray, truth: np.ndarray, *, known: bool = True
) -> list[Answer]:
    return [
        Answer(
            id=name,
            letter=LETTERS[int(row.argmax())],
            probabilities=tuple(row.tolist()),
            truth=LETTERS[right] if known else "",
            kind="shape" if number % 2 else "colour",
        )
        for number, (name, row, right) in enumerate(zip(names, shares, truth, strict=True))
    ]


class Suite:
    """Three folds of a model that is right by `skill`, and a place for their ensemble."""

    def __init__(self, root: Path, *, known: bool = True, rows: int = 120) -> None:
        self.runs = root / "20261121-000000-quiz-0000" / "runs"
        random = np.random.default_rng(5)
        self.names = [f"0{n}-vqa-quiz-nano-f{n}" for n in (1, 2, 3)]
        truth = random.integers(0, 4, rows)
        self.truth = truth
        self.shares = []
        for fold, name in enumerate(self.names):
            held = random.integers(0, 4, 40)
            self.write(name, fold_runs.VALIDATION, answers(
                [f"v{fold}-{n}" for n in range(40)], self.guess(held, 1.0 + fold, random), held
            ))  # fmt: skip
            shares = self.guess(truth, 1.5, random)
            self.shares.append(shares)
            tested = [f"t{n}" for n in range(rows)]
            self.write(name, TEST, answers(tested, shares, truth, known=known))
            self.journal(name, fold_runs.VALIDATION, TEST)
        self.folder = self.runs / "04-vqa-quiz-nano-ensemble"
        self.folder.mkdir()

    @staticmethod
    def guess(truth: np.ndarray, skill: float, random: np.random.Generator) -> np.ndarray:
        logits = random.normal(size=(len(truth), 4))
        logits[np.arange(len(truth)), truth] += skill
        return calibration.softmax(logits)

    def write(self, name: str, split: str, found: list[Answer]) -> None:
        folder = self.runs / name / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        predictions.write_durable(folder / f"{split}.jsonl", b"".join(a.line() for a in found))

    def journal(self, name: str, *splits: str) -> None:
        folder = self.runs / name
        spec = RunSpec(
            suite=self.runs.parent.name, run_id=name, engine="vqa", subset="quiz", model="nano",
            cache_root="/nowhere",
        )  # fmt: skip
        (folder / "spec.json").write_text(spec.model_dump_json())
        files = [folder / "predictions" / f"{split}.jsonl" for split in splits]
        said: list[messages.Message] = [
            messages.Attempt(number=1, pid=1),
            messages.Artifact(path="predictions/of_before.jsonl", sha256="0", size=0),
            messages.Attempt(number=2, pid=2),
            messages.Plan(
                steps=9, samples=80, effective_batch=4, micro_batch=1, parameters=1000,
                subset_fingerprint="f1", model_revision="r1",
            ),
            messages.Artifact(path="checkpoints/last/model.safetensors", sha256="0", size=0),
            *(describe_artifact(file, folder) for file in files),
            messages.Done(),
        ]  # fmt: skip
        lines = [
            protocol.encode(Entry(seq=n, wall=0.0, src="engine", msg=one))
            for n, one in enumerate(said)
        ]
        (folder / "events.jsonl").write_bytes(b"".join(lines))

    def run(self, **settings: object) -> dict[tuple[str, str], messages.Metric]:
        emit = Emitter()
        spec = RunSpec(
            suite=self.runs.parent.name, run_id=self.folder.name, engine="vqa", task="ensemble",
            subset="quiz", model="nano", needs=tuple(self.names), cache_root="/nowhere",
            params=Params(**{"folds": 3, **settings}).model_dump(mode="json"),
        )  # fmt: skip
        self.emit = emit
        ensemble.run(spec, emit, self.folder)
        return {(m.name, m.split): m for m in emit.sent if isinstance(m, messages.Metric)}

    def said(self, kind: type) -> list:
        return [m for m in self.emit.sent if isinstance(m, kind)]


@pytest.fixture
def house(tmp_path: Path) -> Suite:
    return Suite(tmp_path)


@pytest.fixture
def quiz(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test subset, with a sample submission in an order of its own."""
    subset = SimpleNamespace(name=TEST)
    monkeypatch.setattr(ensemble.SubsetSource, "build", lambda *_: subset)
    wanted = questions.SubmissionTemplate(
        ("ID", "Answer"), tuple(f"t{n}" for n in reversed(range(120)))
    )
    monkeypatch.setattr(
        questions, "read_sample_submission", lambda given: wanted if given is subset else None
    )


def accuracy(shares: np.ndarray, truth: np.ndarray) -> float:
    return float((shares.argmax(1) == truth).mean())


def test_methods_and_single_folds_are_what_numpy_says(house: Suite) -> None:
    found = house.run()
    for place, shares in enumerate(house.shares):
        assert found[f"accuracy[fold {place + 1}]", TEST].value == accuracy(shares, house.truth)
    mean = accuracy(np.mean(house.shares, axis=0), house.truth)
    assert found["accuracy[probability]", TEST].value == found["accuracy", TEST].value == mean
    held = [
        fold_runs.read_fold_run(house.runs, n).answers(fold_runs.VALIDATION) for n in house.names
    ]
    worth = np.array([np.mean([a.right for a in own]) for own in held]) - 0.25
    weighted = np.tensordot(worth / worth.sum(), np.stack(house.shares), 1)
    assert found["accuracy[fold-weighted]", TEST].value == accuracy(weighted, house.truth)
    assert found["accuracy[majority]", TEST].n == 120
    assert found["accuracy", ensemble.OUT_OF_FOLD].n == 120
    everyone = [a.right for own in held for a in own]
    assert found["accuracy", ensemble.OUT_OF_FOLD].value == np.mean(everyone)


def test_the_single_fold_is_chosen_on_held_out_rows_never_on_the_test(house: Suite) -> None:
    found = house.run()
    gained = found["gain[probability]", TEST]
    assert "over fold 3, the best on its own held-out rows" in gained.method
    assert "paired bootstrap over 120 questions" in gained.method
    assert "McNemar" in gained.method
    single = accuracy(house.shares[2], house.truth)
    mean = accuracy(np.mean(house.shares, axis=0), house.truth)
    assert gained.value == pytest.approx(mean - single)
    assert gained.low < gained.value < gained.high
    average = np.mean([accuracy(s, house.truth) for s in house.shares])
    assert found["gain over the mean fold", TEST].value == pytest.approx(mean - average)


@pytest.mark.parametrize("method", ensemble.METHODS)
def test_the_chosen_method_answers(house: Suite, method: str) -> None:
    found = house.run(ensemble=method)
    assert found["accuracy", TEST].value == found[f"accuracy[{method}]", TEST].value
    given, dropped = predictions.read_answers(house.folder / "predictions" / f"{TEST}.jsonl")
    assert not dropped
    assert all(a.letter == a.methods[method] for a in given)
    assert all(sum(a.votes) == 3 for a in given)


def test_files_are_announced_with_tables_for_the_report(house: Suite) -> None:
    house.run()
    paths = [a.path for a in house.said(messages.Artifact)]
    assert paths == [f"predictions/{ensemble.OUT_OF_FOLD}.jsonl", f"predictions/{TEST}.jsonl"]
    tables = json.loads((house.folder / "predictions" / f"{TEST}.tables.json").read_text())
    assert np.sum(tables["confusion"]) == 120
    assert set(tables["kinds"]) == {"colour", "shape"}
    plan = house.said(messages.Plan)[0]
    assert (plan.subset_fingerprint, plan.model_revision) == ("f1", "r1")


def test_the_submission_has_the_form_of_the_sample(quiz: None, house: Suite) -> None:
    house.run(infer_on=TEST, submission_file="submission_ensemble.csv")
    lines = (house.folder / "submission_ensemble.csv").read_text().splitlines()
    mean = np.mean(house.shares, axis=0).argmax(1)
    assert lines[0] == "ID,Answer"
    assert lines[1:] == [f"t{n},{LETTERS[mean[n]]}" for n in reversed(range(120))]
    last = house.said(messages.Artifact)[-1]
    assert (last.role, last.path) == ("submission", "submission_ensemble.csv")


def test_one_fold_of_several_does_not_take_the_ensembles_name() -> None:
    asked = Params(folds=3, submission_file="mine.csv")
    assert run_outputs.file_name("train", asked) == "submission.csv"
    assert run_outputs.file_name("infer", asked) == "mine.csv"
    assert run_outputs.file_name("train", Params(submission_file="mine.csv")) == "mine.csv"
    for name in ("../mine.csv", "mine", ".csv", "a/b.csv", ""):
        with pytest.raises(ValueError, match="submission_file"):
            Params(submission_file=name)


def test_a_sample_of_other_ids_leaves_no_submission(
    quiz: None, house: Suite, tmp_path: Path
) -> None:
    sample = tmp_path / "sample_submission.csv"
    sample.write_text("id,answer\nt0,a\nx1,a\n")
    with pytest.raises(EngineError, match=r"1 id of the sample without an answer: x1; 119 answers"):
        house.run(infer_on=TEST, sample_submission=str(sample))
    assert not (house.folder / "submission.csv").exists()


def test_without_truth_there_is_no_comparison_but_a_submission(quiz: None, tmp_path: Path) -> None:
    house = Suite(tmp_path, known=False)
    found = house.run(infer_on=TEST)
    assert {split for _, split in found} == {ensemble.OUT_OF_FOLD}
    assert (house.folder / "submission.csv").is_file()


def test_a_file_that_was_changed_is_refused(house: Suite) -> None:
    path = house.runs / house.names[1] / "predictions" / f"{TEST}.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"letter": "a"', b'"letter": "b"', 1))
    with pytest.raises(EngineError, match="is not the file that its run announced; run 02-vqa"):
        house.run()


def test_folds_of_other_wholes_are_refused(house: Suite) -> None:
    one, two = house.names[:2]
    own = fold_runs.read_fold_run(house.runs, one).answers(fold_runs.VALIDATION)
    house.write(two, fold_runs.VALIDATION, own)
    house.journal(two, fold_runs.VALIDATION, TEST)
    with pytest.raises(EngineError, match=f"'v0-0' is held out by {one} and by {two}"):
        house.run()


def test_folds_that_answered_other_questions_are_refused(house: Suite) -> None:
    own = fold_runs.read_fold_run(house.runs, house.names[2]).answers(TEST)
    house.write(house.names[2], TEST, own[:-1])
    house.journal(house.names[2], fold_runs.VALIDATION, TEST)
    with pytest.raises(EngineError, match="answered 119 other questions than"):
        house.run()
    house.journal(house.names[2], fold_runs.VALIDATION)
    with pytest.raises(EngineError, match=f"03-vqa-quiz-nano-f3: has no answers to '{TEST}'"):
        house.run()


def test_without_folds_it_says_how_to_get_some(house: Suite) -> None:
    house.names = house.names[:1]
    with pytest.raises(EngineError, match="at least two runs"):
        house.run()
    house.names = ["01-gone", "02-gone"]
    with pytest.raises(EngineError, match="01-gone: is no run of this suite"):
        house.run()


def test_without_scikit_learn_it_votes_and_says_so(
    house: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.linear_model", None)
    found = house.run()
    assert ("accuracy[stacked]", TEST) not in found
    assert ("accuracy[majority]", TEST) in found
    assert "install the `vqa` extra" in house.said(messages.Notice)[0].text
    with pytest.raises(EngineError, match="nothing could be fitted"):
        house.run(ensemble="stacked")


def test_temperatures_of_the_folds_are_fitted_on_their_held_out_rows(house):
    """Each fold's probabilities are scaled before they are averaged; letters can change."""
    metrics = house.run(temperature_scaling=True)
    held = [predictions.read_answers(house.runs / n / "predictions/validation.jsonl")[0]
            for n in house.names]  # fmt: skip
    degrees = [
        temperature.fit(predictions.probabilities(rows), predictions.truths(rows)) for rows in held
    ]
    scaled = [temperature.scale(*pair) for pair in zip(house.shares, degrees, strict=True)]
    found, _ = predictions.read_answers(house.folder / f"predictions/{TEST}.jsonl")
    np.testing.assert_allclose(predictions.probabilities(found), np.mean(scaled, 0), atol=1e-6)
    (plan,) = house.said(messages.Plan)
    shown = ", ".join(f"{degree:.2f}" for degree in degrees)
    assert plan.facts["temperatures of the folds"] == shown
    gain = metrics["gain[temperature]", ensemble.OUT_OF_FOLD]
    notices = [one.code for one in house.said(messages.Notice)]
    assert gain.low <= gain.value <= gain.high
    assert ("temperature-unproven" in notices) == (gain.low <= 0)
    assert ("gain[temperature]", ensemble.OUT_OF_FOLD) not in house.run()
