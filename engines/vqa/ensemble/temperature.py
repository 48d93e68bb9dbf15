"""Temperature scaling (Guo et al. 2017, "On Calibration", section 4.2): softmax(logits / T).

Logits are the logarithms of stored probabilities, which gives equal results, since softmax does not
change by a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from engines.vqa.evaluation import calibration
from engines.vqa.evaluation.calibration import Indices, Numbers, softmax

FLOOR: Final = 1e-12
"""Lower bound of probabilities before their logarithm."""
LOW, HIGH = 0.1, 10.0
"""Limits of a temperature; where every answer is right the best one would be 0."""
GOLDEN: Final = (5**0.5 - 1) / 2
STEPS: Final = 60
RESAMPLES: Final = 1000


class CalibrationGain(NamedTuple):
    """Expected calibration error of the same answers before and after scaling."""

    before: float
    after: float
    low: float
    """Of the decrease, `before` minus `after`: paired bootstrap over questions, 95 %."""
    high: float


def scale(probabilities: Numbers, temperature: float) -> Numbers:
    """Probabilities [n, 4] at another temperature; which one is highest does not change."""
    if temperature == 1.0:
        return probabilities
    return softmax(np.log(np.maximum(probabilities, FLOOR)) / temperature)


def fit(probabilities: Numbers, truth: Indices) -> float:
    """The temperature with the least cross entropy on labelled rows [n, 4]; 1.0 without rows.

    By golden-section search over log T: the cross entropy is convex in 1 / T.
    """
    labelled = truth >= 0
    if not labelled.any():
        return 1.0
    rows = np.log(np.maximum(probabilities[labelled], FLOOR))
    options = truth[labelled]

    def cross_entropy(log_temperature: float) -> float:
        shares = softmax(rows / np.exp(log_temperature))
        right = shares[np.arange(len(options)), options]
        return float(-np.log(np.maximum(right, FLOOR)).mean())

    low, high = float(np.log(LOW)), float(np.log(HIGH))
    for _ in range(STEPS):
        first, second = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if cross_entropy(first) <= cross_entropy(second):
            high = second
        else:
            low = first
    return float(np.exp((low + high) / 2))


def fit_folds(probabilities: Numbers, truth: Indices, fold: Indices, folds: int) -> list[float]:
    """The temperature of each fold, fitted on the rows that it held out."""
    return [fit(probabilities[fold == k], truth[fold == k]) for k in range(folds)]


def scale_cross_fitted(probabilities: Numbers, truth: Indices, fold: Indices) -> Numbers:
    """Probabilities [n, 4], each fold's rows at the temperature of all other folds' rows.

    So no row is scaled by a temperature that has seen its answer.
    """
    scaled = np.empty_like(probabilities)
    for name in np.unique(fold):
        held_out = fold == name
        temperature = fit(probabilities[~held_out], truth[~held_out])
        scaled[held_out] = scale(probabilities[held_out], temperature)
    return scaled


def compare(before: Numbers, after: Numbers, truth: Indices) -> CalibrationGain:
    """Expected calibration errors of two versions of the same labelled answers [n, 4]."""
    pairs = [calibration.confidence_and_correctness(shares, truth) for shares in (before, after)]
    generator = np.random.default_rng(0)
    decreases = []
    for _ in range(RESAMPLES):
        rows = generator.integers(0, len(truth), len(truth))
        decreases.append(_decrease([(sure[rows], right[rows]) for sure, right in pairs]))
    low, high = np.quantile(decreases, (0.025, 0.975))
    errors = [calibration.expected_error(*pair) for pair in pairs]
    return CalibrationGain(errors[0], errors[1], float(low), float(high))


def _decrease(pairs: Sequence[tuple[Numbers, Numbers]]) -> float:
    before, after = (calibration.expected_error(*pair) for pair in pairs)
    return before - after
