"""From rows to batches: questions encoded, options in the order shown, pictures gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from engines.torchkit.data.data_loader import rank_share
from engines.torchkit.data.epoch_sampling import splitmix64
from engines.torchkit.data.prefetch import pin_memory
from engines.vqa.data.image_inputs import View, Vision
from engines.vqa.data.option_order import IDENTITY, Permutation, permuted
from engines.vqa.data.questions import Questions
from engines.vqa.models import model
from engines.vqa.models.chat_template import LETTERS, Said
from engines.vqa.models.model import VqaBatch

Rows = npt.NDArray[np.int64]

ORDERS: Final[tuple[Permutation, ...]] = tuple(
    (a, b, c, 6 - a - b - c)
    for a in range(4)
    for b in range(4)
    for c in range(4)
    if len({a, b, c}) == 3
)
"""All 24 orders of four options."""


class Gatherer:
    """Makes training batches; called by the loader, from several threads at once.

    With `shuffle` the options of a question stand in another order in every epoch: a function of
    (seed, epoch, row) alone, so that a resumed run sees what it would have seen.
    """

    def __init__(
        self,
        vision: Vision,
        questions: Questions,
        seed: int,
        *,
        shuffle: bool,
    ) -> None:
        self._vision = vision
        self._questions = questions
        self._seed = seed
        self._shuffle = shuffle
        self.pin = False
        self.rank_and_size = (0, 1)
        """This rank among all: it takes its share of every micro-batch."""

    def __call__(self, rows: Rows, epoch: int, scale: float = 1.0) -> VqaBatch:
        """These questions with their answers."""
        first, last = rank_share(len(rows), *self.rank_and_size)
        own = rows[first:last] if last > first else rows[:1]
        orders = [IDENTITY] * len(own)
        if self._shuffle:
            orders = [
                ORDERS[int(chance % 24)] for chance in splitmix64(own, self._seed, epoch, salt=2)
            ]
        asked, places = self._worded(own, epoch)
        batch = gathered(self._vision, asked, places, (orders, scale, True))
        batch = replace(batch, total=len(rows))
        return pin_memory(batch) if self.pin else batch

    def _worded(self, rows: Rows, epoch: int) -> tuple[Questions, Rows]:
        """Questions and which of them, each in one of its wordings, by (seed, epoch, row)."""
        if self._questions.wordings is None:
            return self._questions, rows
        some = self._questions.take(rows)
        draws = splitmix64(rows, self._seed, epoch, salt=3)
        known = zip(some.wordings or (), draws, strict=True)
        texts = [words[int(draw % len(words))] for words, draw in known]
        return replace(some, texts=texts), np.arange(len(texts))

    def to_device(self, batch: VqaBatch, device: torch.device) -> VqaBatch:
        """The batch where it is computed."""
        return model.to_device(batch, device, self._vision.sight.values)


def gathered(
    vision: Vision,
    questions: Questions,
    rows: Sequence[int] | Rows,
    how: tuple[Sequence[Permutation], float, bool],
    *,
    blank: bool = False,
    ahead: bool = True,
) -> VqaBatch:
    """A batch of some questions; `how`: order of each one's options, scale, with the answers.

    At letter i stands option `order[i]`. `blank`: pictures of nothing but the mean colour; `ahead`:
    see `Vision.batch`.
    """
    orders, scale, taught = how
    said, shown = [], []
    for row, order in zip(rows, orders, strict=True):
        answer = LETTERS[order.index(int(questions.answers[row]))] if taught else None
        options = permuted(questions.options[row], order)
        said.append(Said(questions.texts[row], options, answer))
        shown.append(View(questions.root, questions.paths[row], scale, blank))
    return vision.batch(said, shown, ahead=ahead)
