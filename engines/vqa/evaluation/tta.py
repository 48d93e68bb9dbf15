"""Test-time augmentation (TTA): several views of a question, by image scale and order of options.

Flips are no views: they change what "left" means. Logits of permuted options are put back into the
order of the record. The four rotations show every option once at every letter, so a bias towards a
letter cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engines.vqa.data.option_order import IDENTITY, ROTATIONS, Permutation
from engines.vqa.evaluation import votes
from engines.vqa.evaluation.calibration import Indices, Numbers, softmax

Logits = npt.NDArray[np.float32]


class View(NamedTuple):
    """A view: scale of the sides of the picture, and the option that each letter shows."""

    scale: float = 1.0
    permutation: Permutation = IDENTITY


class ViewScorer(Protocol):
    """Scores some questions in one view."""

    def __call__(self, view: View) -> Logits:
        """Logits [n, 4], in the order of options of the record."""


def views(scales: Sequence[float], *, options: bool) -> list[View]:
    """The plain view first, then all others: every scale with every rotation."""
    sizes = list(dict.fromkeys([1.0, *scales]))
    orders = ROTATIONS if options else (IDENTITY,)
    return [View(scale, order) for scale in sizes for order in orders]


def restore_order(logits: Logits, permutation: Permutation) -> Logits:
    """Logits [n, 4] by letter, put back into the order of options of the record.

    Letter i showed option `permutation[i]`, so that option's logit is the i-th.
    """
    restored = np.empty_like(logits)
    restored[:, list(permutation)] = logits
    return restored


class ViewScores(NamedTuple):
    """Scores of n questions over all views."""

    plain: Numbers
    """Probabilities [n, 4] of the plain view."""
    mean: Numbers
    """Mean of the probabilities over all views, [n, 4]."""
    votes: Indices
    """Number of views that answered each option, [n, 4]."""


def score_views(scorer: ViewScorer, views: Sequence[View]) -> ViewScores:
    """Score all views and combine them; the first one is the plain view."""
    stacked = np.stack([softmax(scorer(view)) for view in views])
    return ViewScores(stacked[0], stacked.mean(axis=0), votes.count_votes(stacked.argmax(axis=2)))
