"""Looking at one question in several ways: other image scales, other orders of the options.

Flips are left out on purpose: they change what "left" means. A permuted order changes nothing but
which letter an option goes by, so its logits are put back into the record's own order, exactly.
The four rotations put every option once behind every letter, so a liking for a letter cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engines.vqa.data.option_order import IDENTITY, ROTATIONS, Permutation
from engines.vqa.evaluation import votes
from engines.vqa.evaluation.calibration import Numbers, Places, softmax

Logits = npt.NDArray[np.float32]


class View(NamedTuple):
    """One way to look: scale of the image's sides, and which option stands at each letter."""

    scale: float = 1.0
    permutation: Permutation = IDENTITY


class Scorer(Protocol):
    """Scores some questions in one view."""

    def __call__(self, view: View) -> Logits:
        """Logits [n, 4], in the record's own order of options."""


def views(scales: Sequence[float], *, options: bool) -> list[View]:
    """The plain view first, then all others: every scale with every rotation."""
    sizes = list(dict.fromkeys([1.0, *scales]))
    orders = ROTATIONS if options else (IDENTITY,)
    return [View(scale, order) for scale in sizes for order in orders]


def unpermuted(logits: Logits, permutation: Permutation) -> Logits:
    """Logits [n, 4] by letter, as scored, back in the record's own order.

    Letter i showed option `permutation[i]`, so that option's logit is the i-th.
    """
    found = np.empty_like(logits)
    found[:, list(permutation)] = logits
    return found


class Seen(NamedTuple):
    """What all views say of n questions."""

    plain: Numbers
    """Probabilities [n, 4] of the plain view."""
    mean: Numbers
    """Mean of the probabilities over all views, [n, 4]."""
    votes: Places
    """Views [n, 4] that answered each option."""


def look(scorer: Scorer, through: Sequence[View]) -> Seen:
    """Score all views and put them together; the first of them is the plain one."""
    stacked = np.stack([softmax(scorer(view)) for view in through])
    return Seen(stacked[0], stacked.mean(axis=0), votes.counts(stacked.argmax(axis=2)))
