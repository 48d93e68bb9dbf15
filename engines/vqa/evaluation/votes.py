"""Many answers to one question made into one: majority, mean probability, folds by their worth.

Pure arrays: k voters (folds, or views of one model), n questions, four options. Every rule is
deterministic, ties included, and none of them looks at the truth of the rows that it votes on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.vqa.evaluation.calibration import Numbers, Places


def counts(letters: Places, options: int = 4) -> Places:
    """Votes [n, options] of the answers `letters` [k, n]."""
    found: Places = np.sum(letters[:, :, None] == np.arange(options), axis=0, dtype=np.int64)
    return found


def majority(probabilities: Numbers) -> Places:
    """The option that most voters answer, [n], from their probabilities [k, n, 4].

    A tie goes to the tied option with the highest mean probability, and one that is still open to
    the first letter.
    """
    votes = counts(probabilities.argmax(axis=2), probabilities.shape[2])
    tied = votes == votes.max(axis=1, keepdims=True)
    found: Places = np.where(tied, probabilities.mean(axis=0), -1.0).argmax(axis=1)
    return found


def weighted(probabilities: Numbers, weights: npt.ArrayLike | None = None) -> Numbers:
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
    """What each fold's voice counts: its accuracy on its own held-out rows, above chance.

    A fold at chance or below has no voice; where all are, all voices are equal.
    """
    above = np.maximum(np.asarray(accuracies, np.float64) - chance, 0.0)
    return above if above.sum() > 0 else np.ones_like(above)
