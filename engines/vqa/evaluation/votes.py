"""Combines the answers of k voters (folds or views): majority, mean probability, weighted mean.

Arrays of k voters, n questions and four options. All rules are deterministic, ties included, and
none uses the truth of the rows that it votes on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.vqa.evaluation.calibration import Indices, Numbers


def count_votes(letters: Indices, options: int = 4) -> Indices:
    """Votes per option [n, options] of the answers `letters` [k, n]."""
    votes: Indices = np.sum(letters[:, :, None] == np.arange(options), axis=0, dtype=np.int64)
    return votes


def majority_vote(probabilities: Numbers) -> Indices:
    """The option [n] with most votes, from probabilities [k, n, 4].

    Ties go to the tied option with the highest mean probability, then to the first letter.
    """
    votes = count_votes(probabilities.argmax(axis=2), probabilities.shape[2])
    tied = votes == votes.max(axis=1, keepdims=True)
    choice: Indices = np.where(tied, probabilities.mean(axis=0), -1.0).argmax(axis=1)
    return choice


def weighted_mean(probabilities: Numbers, weights: npt.ArrayLike | None = None) -> Numbers:
    """Mean probability [n, 4] over the voters; `weights` [k] need not sum to 1.

    Raises:
        ValueError: a weight is negative, or all of them are 0.
    """
    k = len(probabilities)
    shares = np.ones(k) if weights is None else np.asarray(weights, np.float64)
    if len(shares) != k or shares.min() < 0 or not shares.sum() > 0:
        raise ValueError(f"{k} voters need as many weights, none negative and not all 0")
    return np.asarray(np.tensordot(shares / shares.sum(), probabilities, axes=1))


def fold_weights(accuracies: npt.ArrayLike, chance: float = 0.25) -> Numbers:
    """Weights [k] of folds: accuracy on their own held-out rows above chance.

    A fold at or below chance has weight 0; if all are, all weights are 1.
    """
    above = np.maximum(np.asarray(accuracies, np.float64) - chance, 0.0)
    return above if above.sum() > 0 else np.ones_like(above)
