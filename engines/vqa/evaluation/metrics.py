"""Metrics of a split: accuracy with and without pictures, calibration, generated answers.

All are computed from the file of answers alone. Answers are the letters with the highest of the
four logits at the first position; generated answers are a cross-check on a sample, because there a
model can also fail at the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from datasets_mm.recipes.record_classes import LETTERS
from engines import messages
from engines.vqa.evaluation import calibration, predictions
from engines.vqa.evaluation.calibration import Indices, Numbers
from engines.vqa.evaluation.predictions import Answer
from results.statistics import mcnemar, paired_difference, wilson_interval

RESAMPLES: Final = 2000
GAINS: Final = (
    ("no TTA", "TTA gain"), ("blank image", "picture gain"),
    ("shuffled images", "own picture gain"),
)  # fmt: skip
"""Variant of the accuracy -> metric of what is gained over it."""


class Gain(NamedTuple):
    """Difference in accuracy of two ways of answering, on the same questions."""

    value: float
    low: float | None
    high: float | None
    method: str

    @property
    def sure(self) -> bool:
        """Whether the interval lies above 0."""
        return self.low is not None and self.low > 0


def paired_gain(first: Numbers, second: Numbers) -> Gain:
    """`second` minus `first`, both [n] of 0 and 1 (or shares): paired bootstrap, exact McNemar."""
    difference = paired_difference(first, second, RESAMPLES, of="questions")
    method = difference.method.replace("queries", "questions")
    if set(np.unique(first)) | set(np.unique(second)) <= {0.0, 1.0}:
        method += f"; McNemar exact p = {mcnemar(first, second):.2g}"
    return Gain(difference.delta, difference.low, difference.high, method)


def compute_metrics(answers: Sequence[Answer], split: str, file: str) -> Iterator[messages.Metric]:
    """All metrics of a split; only `coverage` where no answer is known."""
    labelled = [answer for answer in answers if answer.truth]
    if labelled:
        yield from _labelled_metrics(labelled, split, file)
    yield messages.Metric(
        name="coverage", value=1.0, split=split, n=len(answers),
        method="every id of the subset has exactly one answer",
    )  # fmt: skip


def _labelled_metrics(
    labelled: Sequence[Answer], split: str, file: str
) -> Iterator[messages.Metric]:
    """Metrics of answers whose truth is known; accuracy first."""
    right = _scores(labelled, "accuracy")
    yield share_metric("accuracy", right, split, file)
    for name, gain_name in GAINS:
        other = _scores(labelled, f"accuracy[{name}]")
        if len(other) < len(labelled):
            continue
        yield share_metric(f"accuracy[{name}]", other, split, file)
        # Other pictures have one view, so they are compared with the plain view.
        plain = right if name == "no TTA" else _scores(labelled, "accuracy[no TTA]")
        difference = paired_gain(other, plain if len(plain) else right)
        yield messages.Metric(
            name=gain_name, value=difference.value, split=split, n=len(labelled),
            low=difference.low, high=difference.high, method=difference.method,
        )  # fmt: skip
    yield calibration_metric(labelled, split)
    yield from written_metrics(labelled, split)


def share_metric(name: str, right: Numbers, split: str, file: str | None = None) -> messages.Metric:
    """A share of right answers with its Wilson interval."""
    interval = wilson_interval(float(right.sum()), len(right))
    return messages.Metric(
        name=name, value=float(right.mean()), split=split, n=len(right), low=interval.low,
        high=interval.high, method=interval.method, scores_file=file,
    )  # fmt: skip


def calibration_metric(labelled: Sequence[Answer], split: str) -> messages.Metric:
    """Expected calibration error; its method states that of a calibrated model."""
    confidence, correct = calibration.confidence_and_correctness(
        predictions.probabilities(labelled), predictions.truths(labelled)
    )
    ideal = calibration.expected_error_if_calibrated(confidence)
    return messages.Metric(
        name="ECE", value=calibration.expected_error(confidence, correct), split=split,
        n=len(labelled), higher_is_better=False, method=f"{calibration.BINS} equal bins; a "
        f"perfectly calibrated model of these confidences would show {ideal:.3f} on "
        f"{len(labelled)} questions",
    )  # fmt: skip


def written_metrics(labelled: Sequence[Answer], split: str) -> Iterator[messages.Metric]:
    """Metrics of generated answers, parsed strictly; no letter counts as wrong."""
    generated = [answer for answer in labelled if answer.generated is not None]
    if not generated:
        return
    right = np.asarray([float(answer.parsed == answer.truth) for answer in generated])
    yield share_metric("accuracy[written]", right, split)
    lost = np.asarray([float(not answer.parsed) for answer in generated])
    yield share_metric("unparsable", lost, split).model_copy(update={"higher_is_better": False})
    plain = [predictions.best_letter(answer.plain or answer.probabilities) for answer in generated]
    same = [float(a.parsed == letter) for a, letter in zip(generated, plain, strict=True)]
    yield share_metric("letters agree", np.asarray(same), split)


class SplitTables(NamedTuple):
    """Tables of a split for reports."""

    confusion: Indices
    reliability: list[calibration.Bin]
    kinds: dict[str, tuple[int, int]]
    """(questions, right answers) by type of question."""


def tables(answers: Sequence[Answer]) -> SplitTables | None:
    """Confusion, reliability and accuracy by question type; None where no answer is known."""
    labelled = [answer for answer in answers if answer.truth]
    if not labelled:
        return None
    shares, truth = predictions.probabilities(labelled), predictions.truths(labelled)
    answered = np.asarray([LETTERS.index(answer.letter) for answer in labelled], np.int64)
    # Of the letter that was given: a majority's need not have the highest mean probability.
    confidence, correct = shares[np.arange(len(answered)), answered], (answered == truth) * 1.0
    kinds: dict[str, tuple[int, int]] = {}
    for answer in labelled:
        n, right = kinds.get(answer.kind, (0, 0))
        kinds[answer.kind] = (n + 1, right + answer.right)
    return SplitTables(
        calibration.confusion(truth, answered),
        calibration.reliability(confidence, correct),
        dict(sorted(kinds.items())),
    )


def _scores(labelled: Sequence[Answer], name: str) -> Numbers:
    """Scores [n] of one metric; empty where an answer lacks it."""
    scores = [answer.scores().get(name) for answer in labelled]
    return np.asarray([] if None in scores else scores, np.float64)
