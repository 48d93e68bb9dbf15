"""Between two epochs: loss and accuracy on the held-out questions, and whether to stop.

Apart from the loop, which asks once an epoch and knows nothing of questions. What is looked at are
the weights that would answer: their average, where there is one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from engines.torchkit.training import early_stopping
from engines.torchkit.training.weight_averaging import WeightAverage
from engines.vqa.answering import letter_logits
from engines.vqa.context import Context
from engines.vqa.data.dataset import Data
from engines.vqa.evaluation.calibration import softmax
from engines.vqa.prepare import Prepared


class Watch(early_stopping.EpochEndValidation):
    """Looks at the held-out questions."""

    def __init__(self, context: Context, data: Data, ready: Prepared) -> None:
        super().__init__(context, ready.model, context.params.look_every_epochs)
        self._context = context
        self._questions = data.validation
        self._ready = ready
        self.averages: dict[str, WeightAverage] = {}
        """Of the weights, the one that answers last."""

    def settle(self) -> None:
        """Put the weights that answer into the model: the best ones, else their average."""
        if not self._early_stopping.restore_best() and (average := self._answering()) is not None:
            average.copy_to_model()
        for average in self.averages.values():  # a run that is read again finds equal ones
            average.reset_to_weights()

    def validate(self, epoch: int) -> bool:
        """See `looks.Watch`."""
        average = self._answering()
        applied: AbstractContextManager[None] = average.applied() if average else nullcontext()
        with applied:
            loss, accuracy = self._losses()
            self.latest = {
                "validation_loss": torch.tensor(loss),
                "validation_accuracy": torch.tensor(accuracy),
            }
            return self._early_stopping.record(epoch, loss=loss, accuracy=accuracy)

    def _losses(self) -> tuple[float, float]:
        """Nats of the right letter among the four, and the share of hits."""
        with self._context.precision.autocast():
            logits = letter_logits(self._ready, self._questions)
        answers = self._questions.answers
        right = softmax(logits)[np.arange(len(answers)), answers]
        hits = logits.argmax(1) == answers
        return float(-np.log(np.maximum(right, 1e-12)).mean()), float(hits.mean())

    def _answering(self) -> WeightAverage | None:
        begun = [average for average in self.averages.values() if average.started]
        return begun[-1] if begun else None
