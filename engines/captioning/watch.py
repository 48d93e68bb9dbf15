"""Between two epochs: the validation loss, how varied captions are, and whether to stop.

Apart from the loop, which asks once an epoch and knows nothing of captions.
"""

from __future__ import annotations

from typing import Final

import torch

from engines.captioning.context import Context
from engines.captioning.data import Data
from engines.captioning.evaluate import Evaluator
from engines.captioning.model import Captioner
from engines.torchkit import looks

LOSS_SAMPLE: Final = 512
"""Media whose loss is looked at, at most: a loss is an eighth of the price of a caption."""


class Watch(looks.Watch):
    """Looks at losses and captions."""

    def __init__(
        self, context: Context, data: Data, evaluator: Evaluator, model: Captioner
    ) -> None:
        super().__init__(context, model, context.params.evaluate_every_epochs)
        self._params = context.params
        self._data = data
        self._evaluator = evaluator

    def look(self, epoch: int) -> bool:
        """See `looks.Watch`."""
        params = self._params
        source = self._data.validation or self._data.train
        found = self._evaluator.look(source.spread(params.evaluate_sample), f"epoch {epoch}")
        loss = self._evaluator.losses(source.spread(LOSS_SAMPLE), shuffled=False).mean
        name = "validation_loss" if self._data.validation else "train_sample_loss"
        self.latest = {name: torch.tensor(loss), "diversity": torch.tensor(found.unique)}
        seen = self._looks.add(epoch, loss, diversity=found.unique)
        return params.early_stopping and self._looks.judge(seen, params.patience, params.min_delta)

    def restore(self) -> None:
        """Put the best weights back into the model, where they were kept."""
        self._looks.restore()
