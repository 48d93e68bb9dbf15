"""Between two epochs: the validation loss, how varied captions are, and whether to stop.

Apart from the loop, which asks once an epoch and knows nothing of captions.
"""

from __future__ import annotations

from typing import Final

import torch

from engines.captioning.context import Context
from engines.captioning.data.dataset import Data
from engines.captioning.evaluation.evaluate import Evaluator
from engines.captioning.models.captioner import Captioner
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.training import early_stopping

ALWAYS: Final = ("loss", "diversity")
"""Metrics of every validation; others are computed where they are monitored."""
LOSS_SAMPLE: Final = 512
"""Media whose loss is looked at, at most: a loss is an eighth of the price of a caption."""


class Watch(early_stopping.EpochEndValidation):
    """Validates losses and captions."""

    def __init__(
        self, context: Context, data: Data, evaluator: Evaluator, model: Captioner
    ) -> None:
        super().__init__(context, model, context.params.evaluate_every_epochs)
        self._params = context.params
        self._data = data
        self._evaluator = evaluator

    def check(self) -> None:
        """Compute the monitored metric once before training, of two true captions.

        Raises:
            EngineError: it cannot be computed here.
        """
        monitor = self.monitor
        if not (monitor.active and self.enabled) or monitor.metric in ALWAYS:
            return
        state = checkpoints.random_state()
        sample = (self._data.validation or self._data.train).spread(2)
        captions = [references[0] for references in sample.captions.references]
        self._evaluator.value(monitor.metric, sample, captions)
        checkpoints.set_random_state(state)

    def validate(self, epoch: int) -> bool:
        """See `looks.Watch`."""
        source = self._data.validation or self._data.train
        sample = source.spread(self._params.evaluate_sample)
        captions, unique = self._evaluator.look(sample, f"epoch {epoch}")
        loss = self._evaluator.losses(source.spread(LOSS_SAMPLE), shuffled=False).mean
        metrics = {"loss": loss, "diversity": unique}
        monitor = self.monitor
        if monitor.active and monitor.metric not in ALWAYS:
            metrics[monitor.metric] = self._evaluator.value(monitor.metric, sample, captions)
        split = "validation" if self._data.validation else "train_sample"
        self.latest = {
            name if name == "diversity" else f"{split}_{name}": torch.tensor(value)
            for name, value in metrics.items()
        }
        return self._early_stopping.record(epoch, **metrics)

    def restore(self) -> None:
        """Put the best weights back into the model, where they were kept."""
        self._early_stopping.restore_best()
