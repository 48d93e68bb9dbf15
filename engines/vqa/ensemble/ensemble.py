"""The ensemble of a suite's folds: votes and stacking against a single fold, and the submission.

Imports no torch: it reads the answers of the folds. The fold that it is compared with and the
weights of the folds depend on held-out rows only, never on the rows that are voted on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from datasets_mm.recipes.record_classes import LETTERS
from engines import messages
from engines.emitter import Emitter, EngineError
from engines.protocol import RunSpec
from engines.torchkit.data.subset_source import SubsetSource
from engines.vqa.ensemble import fold_runs, stacking, temperature
from engines.vqa.ensemble.fold_runs import VALIDATION, FoldRun
from engines.vqa.evaluation import metrics, predictions, votes
from engines.vqa.evaluation.calibration import Indices, Numbers
from engines.vqa.evaluation.predictions import Answer
from engines.vqa.evaluation.run_outputs import write_outputs, write_submission
from engines.vqa.params import Params

OUT_OF_FOLD: Final = "out-of-fold"
"""Split of all held-out rows, each answered by the fold that was not trained on it."""
METHODS: Final[tuple[str, ...]] = ("majority", "probability", "fold-weighted", "stacked")


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows of all folds together."""

    answers: list[Answer]
    fold: Indices
    """Fold that answered each row, as an index of `RunSpec.needs`."""
    accuracies: Numbers
    """Accuracy of each fold on its own rows."""
    temperatures: tuple[float, ...]
    """Temperature of each fold, fitted on its own rows; 1.0 without temperature scaling."""

    def scaled(self) -> Numbers:
        """Probabilities [n, 4] of the held-out rows, at their folds' temperatures."""
        shares = predictions.probabilities(self.answers)
        for fold, degree in enumerate(self.temperatures):
            rows = self.fold == fold
            shares[rows] = temperature.scale(shares[rows], degree)
        return shares

    @property
    def best(self) -> int:
        """The fold with the highest accuracy on its own held-out rows; of ties the first."""
        return int(self.accuracies.argmax())


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
    """Read the folds, combine and compare their answers, and write the submission.

    Raises:
        EngineError: there are no folds, their files are not what they announced, or do not fit.
    """
    params = Params.model_validate(spec.params)
    if len(spec.needs) < 2:
        raise EngineError(
            "an ensemble needs at least two runs; a plan with folds = 3 and task train adds one"
        )
    emit.phase("load", "answers of the folds")
    folds = [fold_runs.read_fold_run(run_dir.parent, name) for name in spec.needs]
    held_out = gather_held_out(folds, temperature_scaling=params.temperature_scaling)
    splits = [name for name in folds[0].splits if name != VALIDATION]
    send_plan(emit, folds, held_out, len(splits))
    emit.phase("eval", OUT_OF_FOLD)
    stacker = fit_stacker(emit, held_out)
    if stacker is None and params.ensemble == "stacked":
        raise EngineError("ensemble = stacked: nothing could be fitted; see the notices")
    for metric in held_out_metrics(held_out):
        emit.send(metric)
    if params.temperature_scaling:
        report_temperature(emit, held_out)
    write_outputs(emit, run_dir, OUT_OF_FOLD, held_out.answers)
    for name in splits:
        emit.phase("eval", name)
        answers = combine_answers(folds, name, held_out, stacker, params.ensemble)
        for metric in compare_methods(answers, folds, name, held_out):
            emit.send(metric)
        write_outputs(emit, run_dir, name, answers)
        if name == params.infer_on:
            emit.phase("save", "submission")
            source = SubsetSource(Path(spec.cache_root), params.data_root, params.image_root or "")
            path = run_dir / params.submission_file
            write_submission(
                emit, path, answers, params.sample_submission, source.build(name, emit)
            )


def gather_held_out(folds: Sequence[FoldRun], *, temperature_scaling: bool = False) -> HeldOut:
    """The held-out rows of all folds.

    Raises:
        EngineError: two folds held out the same row: they are no folds of one whole.
    """
    answers: list[Answer] = []
    fold: list[int] = []
    owners: dict[str, str] = {}
    accuracies = []
    for index, fold_run in enumerate(folds):
        fold_answers = fold_run.answers(VALIDATION)
        for answer in fold_answers:
            if answer.id in owners:
                raise EngineError(
                    f"'{answer.id}' is held out by {owners[answer.id]} and by "
                    f"{fold_run.folder.name}: they are not folds of one whole; run them with "
                    "one seed and one subset"
                )
            owners[answer.id] = fold_run.folder.name
        answers += fold_answers
        fold += [index] * len(fold_answers)
        accuracies.append(np.mean([a.right for a in fold_answers]) if fold_answers else 0.0)
    owner = np.asarray(fold, np.int64)
    temperatures = [1.0] * len(folds)
    if temperature_scaling:
        shares, truth = predictions.probabilities(answers), predictions.truths(answers)
        temperatures = temperature.fit_folds(shares, truth, owner, len(folds))
    return HeldOut(answers, owner, np.asarray(accuracies, np.float64), tuple(temperatures))


def report_temperature(emit: Emitter, held_out: HeldOut) -> None:
    """Send the calibration error with scaling and its decrease; a notice where there is none.

    Each row is scaled by a temperature that was fitted on the other folds' rows.
    """
    shares, truth = (
        predictions.probabilities(held_out.answers), predictions.truths(held_out.answers)
    )  # fmt: skip
    scaled = temperature.scale_cross_fitted(shares, truth, held_out.fold)
    gain = temperature.compare(shares, scaled, truth)
    method = "fitted on the rows of the other folds"
    emit.send(
        messages.Metric(
            name="ECE[temperature]", value=gain.after, split=OUT_OF_FOLD, n=len(truth),
            higher_is_better=False, method=method,
        )
    )  # fmt: skip
    emit.send(
        messages.Metric(
            name="gain[temperature]", value=gain.before - gain.after, split=OUT_OF_FOLD,
            n=len(truth), low=gain.low, high=gain.high,
            method=f"decrease of the ECE; {method}; paired bootstrap over questions",
        )
    )  # fmt: skip
    if gain.low <= 0:
        emit.notice(
            "temperature-unproven",
            f"temperature_scaling: the calibration error of held-out rows went from "
            f"{gain.before:.3f} to {gain.after:.3f}, and {len(truth)} rows cannot tell that from "
            "no change; leave it off, or hold out more rows",
        )


def fit_stacker(emit: Emitter, held_out: HeldOut) -> stacking.Stacker | None:
    """Fit a stacker on all held-out rows; None, with a notice, where it cannot be fitted."""
    shares, truth = held_out.scaled(), predictions.truths(held_out.answers)
    try:
        return stacking.Stacker(shares, truth)
    except ModuleNotFoundError:
        emit.notice("not-stacked", "scikit-learn is not installed: install the `vqa` extra")
    except ValueError as error:
        emit.notice("not-stacked", str(error))
    return None


def held_out_metrics(held_out: HeldOut) -> Iterator[messages.Metric]:
    """Accuracy of single models on all held-out rows, and the gain of stacking.

    Votes cannot be evaluated here: each row has only one model that was not trained on it.
    """
    answers = held_out.answers
    right = np.asarray([float(a.right) for a in answers])
    yield metrics.share_metric("accuracy", right, OUT_OF_FOLD, f"predictions/{OUT_OF_FOLD}.jsonl")
    shares, truth = predictions.probabilities(answers), predictions.truths(answers)
    try:
        fitted = stacking.predict_cross_fitted(shares, truth, held_out.fold)
    except (ModuleNotFoundError, ValueError):
        return
    stacked = (fitted.argmax(axis=1) == truth) * 1.0
    yield metrics.share_metric("accuracy[stacked]", stacked, OUT_OF_FOLD)
    yield gain_metric("gain[stacked]", right, stacked, OUT_OF_FOLD, "over the unstacked answers")


def combine_answers(
    folds: Sequence[FoldRun],
    split: str,
    held_out: HeldOut,
    stacker: stacking.Stacker | None,
    chosen: str,
) -> list[Answer]:
    """Combine the answers of all folds to a split by every method; `chosen` gives the letter.

    Raises:
        EngineError: the folds answered different questions.
    """
    first, stacked = stack_folds(folds, split)
    pairs = zip(stacked, held_out.temperatures, strict=True)
    probabilities = np.stack([temperature.scale(*pair) for pair in pairs])
    mean = votes.weighted_mean(probabilities)
    by_method = {
        "probability": mean,
        "fold-weighted": votes.weighted_mean(
            probabilities, votes.fold_weights(held_out.accuracies)
        ),
    }
    if stacker is not None:
        by_method["stacked"] = stacker.predict(mean)
    letters: dict[str, Indices] = {"majority": votes.majority_vote(probabilities)}
    letters |= {name: shares.argmax(axis=1) for name, shares in by_method.items()}
    letters |= {
        f"fold {index + 1}": rows.argmax(axis=1) for index, rows in enumerate(probabilities)
    }
    counted = votes.count_votes(probabilities.argmax(axis=2))
    return [
        answer.model_copy(
            update={
                "letter": LETTERS[letters[chosen][row]],
                "probabilities": tuple(by_method.get(chosen, mean)[row].tolist()),
                "plain": None, "blank": None, "shuffled": None, "generated": None,
                "parsed": "",
                "votes": tuple(counted[row].tolist()),
                "methods": {name: LETTERS[places[row]] for name, places in letters.items()},
            }
        )
        for row, answer in enumerate(first)
    ]  # fmt: skip


def stack_folds(folds: Sequence[FoldRun], split: str) -> tuple[list[Answer], Numbers]:
    """The first fold's answers to a split, and the probabilities of all folds, [k, n, 4].

    Raises:
        EngineError: the folds answered different questions.
    """
    first = folds[0].answers(split)
    ids = [answer.id for answer in first]
    shares = [predictions.probabilities(first)]
    for fold_run in folds[1:]:
        by_id = {answer.id: answer for answer in fold_run.answers(split)}
        if by_id.keys() != set(ids):
            raise EngineError(
                f"'{split}': {fold_run.folder.name} answered {len(by_id)} other questions than "
                f"{folds[0].folder.name} ({len(ids)}); run them again with one data set"
            )
        shares.append(predictions.probabilities([by_id[name] for name in ids]))
    return first, np.stack(shares)


def compare_methods(
    answers: Sequence[Answer], folds: Sequence[FoldRun], split: str, held_out: HeldOut
) -> Iterator[messages.Metric]:
    """Accuracy of every fold and method, and the gain of each method over the best fold."""
    file = f"predictions/{split}.jsonl"
    scores = [answer.scores() for answer in answers if answer.truth]
    if not scores:
        return

    def method_scores(name: str) -> Numbers:
        return np.asarray([score[name] for score in scores], np.float64)

    yield metrics.share_metric("accuracy", method_scores("accuracy"), split, file)
    every = [f"fold {index + 1}" for index in range(len(folds))]
    methods = [name for name in METHODS if f"accuracy[{name}]" in scores[0]]
    for name in (*every, *methods):
        yield metrics.share_metric(
            f"accuracy[{name}]", method_scores(f"accuracy[{name}]"), split, file
        )
    single = every[held_out.best]
    for name in methods:
        against = f"over {single}, the best on its own held-out rows"
        yield gain_metric(
            f"gain[{name}]",
            method_scores(f"accuracy[{single}]"),
            method_scores(f"accuracy[{name}]"),
            split,
            against,
        )
    average = np.mean([method_scores(f"accuracy[{name}]") for name in every], axis=0)
    yield gain_metric("gain over the mean fold", average, method_scores("accuracy"), split, "")


def gain_metric(
    name: str, first: Numbers, second: Numbers, split: str, against: str
) -> messages.Metric:
    """Difference in accuracy of `second` and `first`, with its paired interval."""
    gain = metrics.paired_gain(first, second)
    method = f"{against}; {gain.method}" if against else gain.method
    return messages.Metric(
        name=name, value=gain.value, split=split, n=len(first), low=gain.low, high=gain.high,
        method=method,
    )  # fmt: skip


def describe_temperatures(held_out: HeldOut) -> dict[str, str]:
    """Fact of the record about the folds' temperatures; empty without temperature scaling."""
    if set(held_out.temperatures) == {1.0}:
        return {}
    return {"temperatures of the folds": ", ".join(f"{t:.2f}" for t in held_out.temperatures)}


def send_plan(emit: Emitter, folds: Sequence[FoldRun], held_out: HeldOut, splits: int) -> None:
    """Send the Plan message of the ensemble, which has no steps."""
    plan = folds[0].plan
    shown = ", ".join(f"{value:.3f}" for value in held_out.accuracies)
    weights = votes.fold_weights(held_out.accuracies)
    voices = ", ".join(f"{value:.2f}" for value in weights / weights.sum())
    emit.send(
        messages.Plan(
            steps=0, samples=len(held_out.answers), epochs=0, effective_batch=len(folds),
            micro_batch=len(folds), parameters=plan.parameters if plan else None,
            subset_fingerprint=plan.subset_fingerprint if plan else "",
            model_revision=plan.model_revision if plan else "",
            facts={
                "ensemble": f"{len(folds)} folds, {splits} splits",
                "held-out accuracies": shown,
                "weights of the folds": voices,
                **describe_temperatures(held_out),
            },
        )
    )  # fmt: skip
