"""Collates batches of questions: encoded prompts with permuted options, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from datasets_mm.recipes.record_classes import LETTERS
from engines.torchkit.data.collator import Collator
from engines.torchkit.data.epoch_sampling import splitmix64
from engines.vqa.data.image_inputs import ImageInputs, PictureView
from engines.vqa.data.option_order import IDENTITY, Permutation, permute_options
from engines.vqa.data.questions import Questions
from engines.vqa.models import model
from engines.vqa.models.chat_template import ChoicePrompt
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


class QuestionCollator(Collator[VqaBatch]):
    """Collator of questions with their answers.

    With `shuffle` the options of a question are permuted in every epoch, by (seed, epoch, row)
    alone, so that a resumed run has equal batches.
    """

    def __init__(
        self,
        vision: ImageInputs,
        questions: Questions,
        seed: int,
        *,
        shuffle: bool,
    ) -> None:
        self._vision = vision
        self._questions = questions
        self._seed = seed
        self._shuffle = shuffle

    def collate(self, rows: Rows, epoch: int, share: slice) -> VqaBatch:
        """The questions of the share, each with its options in an order drawn by epoch."""
        local_rows = rows[share]
        orders = [IDENTITY] * len(local_rows)
        if self._shuffle:
            orders = [
                ORDERS[int(chance % 24)]
                for chance in splitmix64(local_rows, self._seed, epoch, salt=2)
            ]
        questions, indices = self._draw_wordings(local_rows, epoch)
        batch = collate_questions(self._vision, questions, indices, (orders, 1.0, True))
        return replace(batch, total=len(rows))

    def _draw_wordings(self, rows: Rows, epoch: int) -> tuple[Questions, Rows]:
        """Questions and row indices, each question in the wording drawn by (seed, epoch, row)."""
        if self._questions.wordings is None:
            return self._questions, rows
        questions = self._questions.select(rows)
        draws = splitmix64(rows, self._seed, epoch, salt=3)
        candidates = zip(questions.wordings or (), draws, strict=True)
        texts = [words[int(draw % len(words))] for words, draw in candidates]
        return replace(questions, texts=texts), np.arange(len(texts))

    def to_device(self, batch: VqaBatch, device: torch.device) -> VqaBatch:
        """The batch on the device, pixels normalized."""
        return model.to_device(batch, device, self._vision.processor.normalize_pixels)


def collate_questions(
    vision: ImageInputs,
    questions: Questions,
    rows: Sequence[int] | Rows,
    presentation: tuple[Sequence[Permutation], float, bool],
    *,
    blank: bool = False,
    ahead: bool = True,
) -> VqaBatch:
    """A batch of the questions `rows`.

    Args:
        presentation: order of the options of each question (letter i shows option `order[i]`),
            scale of the pictures, whether the answers are included.
        blank: pictures of the mean colour only.
        ahead: see `ImageInputs.batch`.
    """
    orders, scale, with_answers = presentation
    prompts, views = [], []
    for row, order in zip(rows, orders, strict=True):
        answer = LETTERS[order.index(int(questions.answers[row]))] if with_answers else None
        options = permute_options(questions.options[row], order)
        prompts.append(ChoicePrompt(questions.texts[row], options, answer, questions.kinds[row]))
        views.append(PictureView(questions.root, questions.paths[row], scale, blank))
    return vision.batch(prompts, views, ahead=ahead)
