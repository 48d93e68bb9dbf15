"""Validation at the end of an epoch: loss and accuracy on held-out questions.

Validated are the weights that would answer: their average, where there is one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from engines.torchkit.training import early_stopping
from engines.torchkit.training.weight_averaging import WeightAverage
from engines.vqa.answering import compute_letter_logits
from engines.vqa.context import Context
from engines.vqa.data.dataset import VqaData
from engines.vqa.evaluation.calibration import softmax
from engines.vqa.prepare import PreparedAnswerer


class QuestionValidation(early_stopping.EpochEndValidation):
    """Validates a model on the held-out questions."""

    def __init__(self, context: Context, data: VqaData, ready: PreparedAnswerer) -> None:
        super().__init__(context, ready.model, context.params.validate_every_epochs)
        self._context = context
        self._questions = data.validation
        self._ready = ready
        self.averages: dict[str, WeightAverage] = {}
        """Averages of the weights by name; the last one that has started answers."""

    def restore(self) -> None:
        """Copy the weights that answer into the model: the best ones, else their average."""
        if (
            not self._early_stopping.restore_best()
            and (average := self._answering_average()) is not None
        ):
            average.copy_to_model()
        for average in self.averages.values():  # saved averages equal the weights then
            average.reset_to_weights()

    def validate(self, epoch: int) -> bool:
        """Validate after epoch number `epoch` (from 1); whether training should end."""
        average = self._answering_average()
        applied: AbstractContextManager[None] = average.applied() if average else nullcontext()
        with applied:
            loss, accuracy = self._compute_metrics()
            self.latest = {
                "validation_loss": torch.tensor(loss),
                "validation_accuracy": torch.tensor(accuracy),
            }
            return self._early_stopping.record(epoch, loss=loss, accuracy=accuracy)

    def _compute_metrics(self) -> tuple[float, float]:
        """Mean nats of the right letter among the four, and accuracy."""
        with self._context.precision.autocast():
            logits = compute_letter_logits(self._ready, self._questions)
        answers = self._questions.answers
        right = softmax(logits)[np.arange(len(answers)), answers]
        hits = logits.argmax(1) == answers
        return float(-np.log(np.maximum(right, 1e-12)).mean()), float(hits.mean())

    def _answering_average(self) -> WeightAverage | None:
        begun = [average for average in self.averages.values() if average.started]
        return begun[-1] if begun else None
