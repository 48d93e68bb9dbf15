"""What the answers to a split are worth: accuracy, the same without pictures, calibration, a check.

All numbers are made of the answers' file alone, so whoever has the file can make them again. The
model's letters are judged by the four logits at the first position of the answer; what it writes
is a cross-check on a sample, because there a model can also fail at the form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from engines import protocol
from engines.vqa.data.questions import LETTERS
from engines.vqa.evaluation import calibration, predictions
from engines.vqa.evaluation.calibration import Numbers, Places
from engines.vqa.evaluation.predictions import Answer
from results.statistics import mcnemar, paired_difference, wilson_interval

RESAMPLES: Final = 2000


class Gain(NamedTuple):
    """How much more often one way of answering is right than another, on the same questions."""

    value: float
    low: float | None
    high: float | None
    method: str

    @property
    def sure(self) -> bool:
        """Zero lies below the interval."""
        return self.low is not None and self.low > 0


def gain(first: Numbers, second: Numbers) -> Gain:
    """`second` above `first`, both [n] of 0 and 1 (or shares): paired bootstrap, exact McNemar."""
    found = paired_difference(first, second, RESAMPLES)
    method = found.method.replace("queries", "questions")
    if set(np.unique(first)) | set(np.unique(second)) <= {0.0, 1.0}:
        method += f"; McNemar exact p = {mcnemar(first, second):.2g}"
    return Gain(found.delta, found.low, found.high, method)


def metrics(answers: Sequence[Answer], split: str, file: str) -> Iterator[protocol.Metric]:
    """Every metric of a split; only `coverage` where no answer is known."""
    known = [answer for answer in answers if answer.truth]
    if known:
        yield from _judged(known, split, file)
    yield protocol.Metric(
        name="coverage", value=1.0, split=split, n=len(answers),
        method="every id of the subset has exactly one answer",
    )  # fmt: skip


def _judged(known: Sequence[Answer], split: str, file: str) -> Iterator[protocol.Metric]:
    """The metrics of answers whose truth is known; accuracy first."""
    right = _scores(known, "accuracy")
    yield share("accuracy", right, split, file)
    for name, gained in (("no TTA", "TTA gain"), ("blank image", "picture gain")):
        other = _scores(known, f"accuracy[{name}]")
        if len(other) < len(known):
            continue
        yield share(f"accuracy[{name}]", other, split, file)
        # A blank picture is looked at once, so it is compared with one look at the true one.
        fair = _scores(known, "accuracy[no TTA]") if name == "blank image" else right
        found = gain(other, fair if len(fair) else right)
        yield protocol.Metric(
            name=gained, value=found.value, split=split, n=len(known), low=found.low,
            high=found.high, method=found.method,
        )  # fmt: skip
    yield calibrated(known, split)
    yield from written(known, split)


def share(name: str, right: Numbers, split: str, file: str | None = None) -> protocol.Metric:
    """A share of right answers with its Wilson interval."""
    found = wilson_interval(float(right.sum()), len(right))
    return protocol.Metric(
        name=name, value=float(right.mean()), split=split, n=len(right), low=found.low,
        high=found.high, method=found.method, scores_file=file,
    )  # fmt: skip


def calibrated(known: Sequence[Answer], split: str) -> protocol.Metric:
    """Expected calibration error, beside what a calibrated model would show."""
    confidence, correct = calibration.of_answers(
        predictions.probabilities(known), predictions.truths(known)
    )
    ideal = calibration.error_of_calibrated(confidence)
    return protocol.Metric(
        name="ECE", value=calibration.expected_error(confidence, correct), split=split,
        n=len(known), higher_is_better=False, method=f"{calibration.BINS} equal bins; a perfectly "
        f"calibrated model of these confidences would show {ideal:.3f} on {len(known)} questions",
    )  # fmt: skip


def written(known: Sequence[Answer], split: str) -> Iterator[protocol.Metric]:
    """The cross-check: what was written, parsed strictly; no letter counts as wrong."""
    asked = [answer for answer in known if answer.generated is not None]
    if not asked:
        return
    right = np.asarray([float(answer.parsed == answer.truth) for answer in asked])
    yield share("accuracy[written]", right, split)
    lost = np.asarray([float(not answer.parsed) for answer in asked])
    yield share("unparsable", lost, split).model_copy(update={"higher_is_better": False})
    plain = [predictions.best(answer.plain or answer.probabilities) for answer in asked]
    same = [float(a.parsed == letter) for a, letter in zip(asked, plain, strict=True)]
    yield share("letters agree", np.asarray(same), split)


class Tables(NamedTuple):
    """What a report shows of a split beside its metrics."""

    confusion: Places
    reliability: list[calibration.Bin]
    kinds: dict[str, tuple[int, int]]
    """By type of question: how many, and how many right."""


def tables(answers: Sequence[Answer]) -> Tables | None:
    """Confusion, reliability and accuracy by question type; None where no answer is known."""
    known = [answer for answer in answers if answer.truth]
    if not known:
        return None
    shares, truth = predictions.probabilities(known), predictions.truths(known)
    answered = np.asarray([LETTERS.index(answer.letter) for answer in known], np.int64)
    kinds: dict[str, tuple[int, int]] = {}
    for answer in known:
        n, right = kinds.get(answer.kind, (0, 0))
        kinds[answer.kind] = (n + 1, right + answer.right)
    return Tables(
        calibration.confusion(truth, answered),
        calibration.reliability(*calibration.of_answers(shares, truth)),
        dict(sorted(kinds.items())),
    )


def _scores(known: Sequence[Answer], name: str) -> Numbers:
    """[n] of one metric; empty where an answer has it not."""
    found = [answer.scores().get(name) for answer in known]
    return np.asarray([] if None in found else found, np.float64)
