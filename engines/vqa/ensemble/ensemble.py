"""The ensemble of a suite's folds: votes and stacking against a single fold, and the submission.

Knows no torch: it reads what its folds answered. Which single fold it is compared with, and what
each fold's voice counts, is decided on held-out rows alone, never on the rows that are voted on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from engines import protocol
from engines.emitter import Emitter, EngineError
from engines.protocol import RunSpec
from engines.torchkit.data.subsets import SubsetSource
from engines.vqa.data.questions import LETTERS
from engines.vqa.ensemble import fold_runs, stacking
from engines.vqa.ensemble.fold_runs import VALIDATION, Sibling
from engines.vqa.evaluation import metrics, predictions, votes
from engines.vqa.evaluation.calibration import Numbers, Places
from engines.vqa.evaluation.predictions import Answer
from engines.vqa.evaluation.run_outputs import deliver, leave
from engines.vqa.params import Params

OUT_OF_FOLD: Final = "out-of-fold"
"""Split of all held-out rows, each answered by the fold that was not trained on it."""
METHODS: Final[tuple[str, ...]] = ("majority", "probability", "fold-weighted", "stacked")


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows of all folds together."""

    answers: list[Answer]
    fold: Places
    """Which fold answered, by place among the needs."""
    accuracies: Numbers
    """Of each fold on its own rows."""

    @property
    def best(self) -> int:
        """The fold that is best on its own held-out rows; of equal ones the first."""
        return int(self.accuracies.argmax())


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
    """Read the folds, put their answers together, compare, and write the submission.

    Raises:
        EngineError: there are no folds, their files are not what they announced, or do not fit.
    """
    params = Params.model_validate(spec.params)
    if len(spec.needs) < 2:
        raise EngineError(
            "an ensemble needs at least two runs; a plan with folds = 3 and task train adds one"
        )
    emit.phase("load", "answers of the folds")
    folds = [fold_runs.read(run_dir.parent, name) for name in spec.needs]
    held_out = gather_held_out(folds)
    splits = [name for name in folds[0].splits if name != VALIDATION]
    announce(emit, folds, held_out, len(splits))
    emit.phase("eval", OUT_OF_FOLD)
    stacker = stack(emit, held_out)
    if stacker is None and params.ensemble == "stacked":
        raise EngineError("ensemble = stacked: nothing could be fitted; see the notices")
    for metric in of_held_out(held_out):
        emit.send(metric)
    leave(emit, run_dir, OUT_OF_FOLD, held_out.answers)
    for name in splits:
        emit.phase("eval", name)
        answers = combined(folds, name, held_out, stacker, params.ensemble)
        for metric in compared(answers, folds, name, held_out):
            emit.send(metric)
        leave(emit, run_dir, name, answers)
        if name == params.infer_on:
            emit.phase("save", "submission")
            source = SubsetSource(Path(spec.cache_root), params.data_root, params.image_root or "")
            path = run_dir / params.submission_file
            deliver(emit, path, answers, params.sample_submission, source.build(name, emit))


def gather_held_out(folds: Sequence[Sibling]) -> HeldOut:
    """The held-out rows of all folds.

    Raises:
        EngineError: two folds held out the same row: they are no folds of one whole.
    """
    answers: list[Answer] = []
    fold: list[int] = []
    known: dict[str, str] = {}
    accuracies = []
    for place, one in enumerate(folds):
        own = one.answers(VALIDATION)
        for answer in own:
            if answer.id in known:
                raise EngineError(
                    f"'{answer.id}' is held out by {known[answer.id]} and by {one.folder.name}: "
                    "they are not folds of one whole; run them with one seed and one subset"
                )
            known[answer.id] = one.folder.name
        answers += own
        fold += [place] * len(own)
        accuracies.append(np.mean([a.right for a in own]) if own else 0.0)
    return HeldOut(answers, np.asarray(fold, np.int64), np.asarray(accuracies, np.float64))


def stack(emit: Emitter, held_out: HeldOut) -> stacking.Stacker | None:
    """A stacker fitted on all held-out rows; None, and a notice, where there can be none."""
    shares, truth = (
        predictions.probabilities(held_out.answers),
        predictions.truths(held_out.answers),
    )
    try:
        return stacking.Stacker(shares, truth)
    except ModuleNotFoundError:
        emit.notice("not-stacked", "scikit-learn is not installed: install the `stacking` extra")
    except ValueError as error:
        emit.notice("not-stacked", str(error))
    return None


def of_held_out(held_out: HeldOut) -> Iterator[protocol.Metric]:
    """Accuracy of single models on all held-out rows, and what stacking adds to it.

    A vote cannot be measured here: each row has one model that was not trained on it.
    """
    answers = held_out.answers
    right = np.asarray([float(a.right) for a in answers])
    yield metrics.share("accuracy", right, OUT_OF_FOLD, f"predictions/{OUT_OF_FOLD}.jsonl")
    shares, truth = predictions.probabilities(answers), predictions.truths(answers)
    try:
        fitted = stacking.cross_fitted(shares, truth, held_out.fold)
    except (ModuleNotFoundError, ValueError):
        return
    stacked = (fitted.argmax(axis=1) == truth) * 1.0
    yield metrics.share("accuracy[stacked]", stacked, OUT_OF_FOLD)
    yield difference("gain[stacked]", right, stacked, OUT_OF_FOLD, "over the unstacked answers")


def combined(
    folds: Sequence[Sibling],
    split: str,
    held_out: HeldOut,
    stacker: stacking.Stacker | None,
    chosen: str,
) -> list[Answer]:
    """The answers of all folds to a split, as one: by every method, and by the chosen one.

    Raises:
        EngineError: the folds answered different questions.
    """
    first, whole = side_by_side(folds, split)
    mean = votes.weighted(whole)
    found = {
        "probability": mean,
        "fold-weighted": votes.weighted(whole, votes.fold_weights(held_out.accuracies)),
    }
    if stacker is not None:
        found["stacked"] = stacker.predict(mean)
    letters: dict[str, Places] = {"majority": votes.majority(whole)}
    letters |= {name: shares.argmax(axis=1) for name, shares in found.items()}
    letters |= {f"fold {place + 1}": one.argmax(axis=1) for place, one in enumerate(whole)}
    counted = votes.counts(whole.argmax(axis=2))
    return [
        answer.model_copy(
            update={
                "letter": LETTERS[letters[chosen][row]],
                "probabilities": tuple(found.get(chosen, mean)[row].tolist()),
                "plain": None, "blank": None, "generated": None, "parsed": "",
                "votes": tuple(counted[row].tolist()),
                "methods": {name: LETTERS[places[row]] for name, places in letters.items()},
            }
        )
        for row, answer in enumerate(first)
    ]  # fmt: skip


def side_by_side(folds: Sequence[Sibling], split: str) -> tuple[list[Answer], Numbers]:
    """The first fold's answers to a split, and the probabilities of all folds, [k, n, 4].

    Raises:
        EngineError: the folds answered different questions.
    """
    first = folds[0].answers(split)
    ids = [answer.id for answer in first]
    shares = [predictions.probabilities(first)]
    for one in folds[1:]:
        by_id = {answer.id: answer for answer in one.answers(split)}
        if by_id.keys() != set(ids):
            raise EngineError(
                f"'{split}': {one.folder.name} answered {len(by_id)} other questions than "
                f"{folds[0].folder.name} ({len(ids)}); run them again with one data set"
            )
        shares.append(predictions.probabilities([by_id[name] for name in ids]))
    return first, np.stack(shares)


def compared(
    answers: Sequence[Answer], folds: Sequence[Sibling], split: str, held_out: HeldOut
) -> Iterator[protocol.Metric]:
    """Every fold and every method by its accuracy, and each method against a single fold."""
    file = f"predictions/{split}.jsonl"
    scores = [answer.scores() for answer in answers if answer.truth]
    if not scores:
        return

    def of(name: str) -> Numbers:
        return np.asarray([score[name] for score in scores], np.float64)

    yield metrics.share("accuracy", of("accuracy"), split, file)
    every = [f"fold {place + 1}" for place in range(len(folds))]
    methods = [name for name in METHODS if f"accuracy[{name}]" in scores[0]]
    for name in (*every, *methods):
        yield metrics.share(f"accuracy[{name}]", of(f"accuracy[{name}]"), split, file)
    single = every[held_out.best]
    for name in methods:
        against = f"over {single}, the best on its own held-out rows"
        yield difference(
            f"gain[{name}]", of(f"accuracy[{single}]"), of(f"accuracy[{name}]"), split, against
        )
    average = np.mean([of(f"accuracy[{name}]") for name in every], axis=0)
    yield difference("gain over the mean fold", average, of("accuracy"), split, "")


def difference(
    name: str, first: Numbers, second: Numbers, split: str, against: str
) -> protocol.Metric:
    """How much more often `second` is right, with its paired interval."""
    found = metrics.gain(first, second)
    method = f"{against}; {found.method}" if against else found.method
    return protocol.Metric(
        name=name, value=found.value, split=split, n=len(first), low=found.low, high=found.high,
        method=method,
    )  # fmt: skip


def announce(emit: Emitter, folds: Sequence[Sibling], held_out: HeldOut, splits: int) -> None:
    """What is put together; no step is trained."""
    plan = folds[0].plan
    shown = ", ".join(f"{value:.3f}" for value in held_out.accuracies)
    weights = votes.fold_weights(held_out.accuracies)
    voices = ", ".join(f"{value:.2f}" for value in weights / weights.sum())
    emit.send(
        protocol.Plan(
            steps=0, samples=len(held_out.answers), epochs=0, effective_batch=len(folds),
            micro_batch=len(folds), parameters=plan.parameters if plan else None,
            subset_fingerprint=plan.subset_fingerprint if plan else "",
            model_revision=plan.model_revision if plan else "",
            facts={
                "ensemble": f"{len(folds)} folds, {splits} splits",
                "held-out accuracies": shown,
                "weights of the folds": voices,
            },
        )
    )  # fmt: skip
