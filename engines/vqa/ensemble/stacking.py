"""Stacking (Wolpert 1992): a logistic regression that learns from out-of-fold probabilities.

It only ever sees probabilities of rows that the model behind them was not trained on; its own
accuracy is again measured on rows that it was not fitted on. Apart from the votes because it needs
scikit-learn, which is an extra.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from engines.vqa.evaluation.calibration import Numbers, Places

FLOOR: Final = 1e-6
"""Probabilities below this are raised to it before their logarithm is taken."""
FEWEST: Final = 20
"""Out-of-fold rows without which nothing is fitted."""


class Stacker:
    """Maps probabilities [n, 4] to better ones: from their logarithms, by letters."""

    def __init__(self, probabilities: Numbers, truth: Places) -> None:
        """Fit on out-of-fold probabilities [n, 4] and their true options [n].

        Raises:
            ModuleNotFoundError: scikit-learn is not installed.
            ValueError: too few rows, or all have the same answer.
        """
        from sklearn.linear_model import LogisticRegression

        if len(truth) < FEWEST or len(set(truth.tolist())) < 2:
            raise ValueError(
                f"stacking needs at least {FEWEST} held-out rows with different answers, "
                f"and there are {len(truth)}"
            )
        self._model: Any = LogisticRegression(C=1.0, max_iter=1000)
        self._model.fit(_features(probabilities), truth)

    def predict(self, probabilities: Numbers) -> Numbers:
        """Probabilities [n, 4] anew; an option that was never right while fitting gets 0."""
        found = np.zeros((len(probabilities), 4))
        found[:, self._model.classes_] = self._model.predict_proba(_features(probabilities))
        return found


def cross_fitted(probabilities: Numbers, truth: Places, fold: Places) -> Numbers:
    """Probabilities [n, 4] of each fold's rows by a stacker that was fitted on the other folds.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
        ValueError: too few rows, or all have the same answer.
    """
    found = np.empty_like(probabilities)
    for name in np.unique(fold):
        own = fold == name
        found[own] = Stacker(probabilities[~own], truth[~own]).predict(probabilities[own])
    return found


def _features(probabilities: Numbers) -> Numbers:
    return np.asarray(np.log(np.maximum(probabilities, FLOOR)))
