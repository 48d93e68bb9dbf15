"""Calibration of answers (reliability table, expected calibration error) and confusion counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

BINS: Final = 15
SIMULATIONS: Final = 200


class Bin(NamedTuple):
    """One row of a reliability table: answers whose confidence lies in (low, high]."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean of the bin; NaN, as is `accuracy`, where it is empty."""
    accuracy: float


def reliability(confidence: Numbers, correct: Numbers, bins: int = BINS) -> list[Bin]:
    """Equal-width bins over (0, 1], as in Guo et al. 2017 ("On Calibration", section 2).

    Args:
        confidence: [n], probability of the answer that was given, 0 to 1.
        correct: [n], 1 where it was right, else 0.
    """
    bin_numbers = _bin_numbers(confidence, bins)
    table = []
    for number in range(bins):
        inside = bin_numbers == number
        n = int(inside.sum())
        table.append(
            Bin(
                number / bins,
                (number + 1) / bins,
                n,
                float(confidence[inside].mean()) if n else float("nan"),
                float(correct[inside].mean()) if n else float("nan"),
            )
        )
    return table


def expected_error(confidence: Numbers, correct: Numbers, bins: int = BINS) -> float:
    """Expected calibration error: Σ n_bin/n |accuracy − confidence| (Naeini et al. 2015)."""
    bin_numbers = _bin_numbers(confidence, bins)
    gaps = np.bincount(bin_numbers, weights=np.asarray(correct - confidence), minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def expected_error_if_calibrated(confidence: Numbers, bins: int = BINS) -> float:
    """Mean expected calibration error of a perfectly calibrated model with these confidences.

    It is above 0 because of sampling noise in the bins; the error of a small split is compared
    with it.
    """
    generator = np.random.default_rng(0)
    drawn = generator.random((SIMULATIONS, len(confidence))) < confidence
    errors = [expected_error(confidence, row, bins) for row in drawn.astype(np.float64)]
    return float(np.mean(errors))


def confusion(truth: Indices, answered: Indices, size: int = 4) -> Indices:
    """Counts [truth, answered], [size, size]; rows with unknown truth (-1) are left out."""
    labelled = truth >= 0
    pairs = truth[labelled] * size + answered[labelled]
    return np.bincount(pairs, minlength=size * size).reshape(size, size).astype(np.int64)


def softmax(logits: npt.NDArray[np.float32] | Numbers) -> Numbers:
    """Probabilities over the last axis, in double precision."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def confidence_and_correctness(probabilities: Numbers, truth: Indices) -> tuple[Numbers, Numbers]:
    """Confidence and correctness [n] of the most probable answers."""
    answered = probabilities.argmax(axis=1)
    return probabilities.max(axis=1), (answered == truth) * 1.0


def _bin_numbers(confidence: Numbers | Sequence[float], bins: int) -> Indices:
    """Number of each value's bin: (0, 1/bins] is the first."""
    numbers = np.ceil(np.asarray(confidence, np.float64) * bins).astype(np.int64) - 1
    return np.asarray(np.clip(numbers, 0, bins - 1))
