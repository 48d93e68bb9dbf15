"""Stacking (Wolpert 1992): a logistic regression that learns from out-of-fold probabilities.

It is fitted on rows that the model behind them was not trained on; its own accuracy is measured on
rows that it was not fitted on. Needs scikit-learn (extra `vqa`).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from engines.vqa.evaluation.calibration import Indices, Numbers

FLOOR: Final = 1e-6
"""Lower bound of probabilities before their logarithm."""
MIN_ROWS: Final = 20
"""Fewest out-of-fold rows for fitting."""


class Stacker:
    """Logistic regression from log probabilities [n, 4] to probabilities [n, 4]."""

    def __init__(self, probabilities: Numbers, truth: Indices) -> None:
        """Fit on out-of-fold probabilities [n, 4] and their true options [n].

        Raises:
            ModuleNotFoundError: scikit-learn is not installed.
            ValueError: too few rows, or all have the same answer.
        """
        from sklearn.linear_model import LogisticRegression

        if len(truth) < MIN_ROWS or len(set(truth.tolist())) < 2:
            raise ValueError(
                f"stacking needs at least {MIN_ROWS} held-out rows with different answers, "
                f"and there are {len(truth)}"
            )
        self._model: Any = LogisticRegression(C=1.0, max_iter=1000)
        self._model.fit(_features(probabilities), truth)

    def predict(self, probabilities: Numbers) -> Numbers:
        """Stacked probabilities [n, 4]; an option that was never right while fitting has 0."""
        predicted = np.zeros((len(probabilities), 4))
        predicted[:, self._model.classes_] = self._model.predict_proba(_features(probabilities))
        return predicted


def predict_cross_fitted(probabilities: Numbers, truth: Indices, fold: Indices) -> Numbers:
    """Probabilities [n, 4] of each fold's rows by a stacker that was fitted on the other folds.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
        ValueError: too few rows, or all have the same answer.
    """
    predicted = np.empty_like(probabilities)
    for name in np.unique(fold):
        held_out = fold == name
        predicted[held_out] = Stacker(probabilities[~held_out], truth[~held_out]).predict(
            probabilities[held_out]
        )
    return predicted


def _features(probabilities: Numbers) -> Numbers:
    return np.asarray(np.log(np.maximum(probabilities, FLOOR)))
