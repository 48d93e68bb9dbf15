"""Whether a model that says 80 % is right in 80 of 100, and what it takes for what.

Apart from the evaluation because reports recompute these from files, and tests from hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

BINS: Final = 15
SIMULATIONS: Final = 200


class Bin(NamedTuple):
    """One row of a reliability table: answers whose confidence lies in (low, high]."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean of the bin; NaN where it is empty, and so is the accuracy."""
    accuracy: float


def reliability(confidence: Numbers, correct: Numbers, bins: int = BINS) -> list[Bin]:
    """Equal-width bins over (0, 1], as in Guo et al. 2017 ("On Calibration", section 2).

    Args:
        confidence: [n], probability of the answer that was given, 0 to 1.
        correct: [n], 1 where it was right, else 0.
    """
    places = _places(confidence, bins)
    table = []
    for place in range(bins):
        inside = places == place
        n = int(inside.sum())
        table.append(
            Bin(
                place / bins,
                (place + 1) / bins,
                n,
                float(confidence[inside].mean()) if n else float("nan"),
                float(correct[inside].mean()) if n else float("nan"),
            )
        )
    return table


def expected_error(confidence: Numbers, correct: Numbers, bins: int = BINS) -> float:
    """Expected calibration error: Σ n_bin/n |accuracy − confidence| (Naeini et al. 2015)."""
    places = _places(confidence, bins)
    gaps = np.bincount(places, weights=np.asarray(correct - confidence), minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def error_of_calibrated(confidence: Numbers, bins: int = BINS) -> float:
    """The error that a perfectly calibrated model of these confidences would show on average.

    It is not 0: in a bin of ten answers, eight of ten right is luck as often as not. Without it the
    error of a small split means little.
    """
    generator = np.random.default_rng(0)
    drawn = generator.random((SIMULATIONS, len(confidence))) < confidence
    found = [expected_error(confidence, row, bins) for row in drawn.astype(np.float64)]
    return float(np.mean(found))


def confusion(truth: Places, answered: Places, size: int = 4) -> Places:
    """Counts [truth, answered]; rows whose answer is not known (-1) are left out."""
    known = truth >= 0
    pairs = truth[known] * size + answered[known]
    return np.bincount(pairs, minlength=size * size).reshape(size, size).astype(np.int64)


def softmax(logits: npt.NDArray[np.float32] | Numbers) -> Numbers:
    """Probabilities over the last axis, in double precision."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def of_answers(probabilities: Numbers, truth: Places) -> tuple[Numbers, Numbers]:
    """Confidence and correctness [n] of the most probable answers."""
    answered = probabilities.argmax(axis=1)
    return probabilities.max(axis=1), (answered == truth) * 1.0


def _places(confidence: Numbers | Sequence[float], bins: int) -> Places:
    """Number of each value's bin: (0, 1/bins] is the first."""
    found = np.ceil(np.asarray(confidence, np.float64) * bins).astype(np.int64) - 1
    return np.asarray(np.clip(found, 0, bins - 1))
