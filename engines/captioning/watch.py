"""Between two epochs: the validation loss, how varied captions are, and whether to stop.

Apart from the loop, which asks once an epoch and knows nothing of captions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from engines.captioning.context import Context
from engines.captioning.data import Data
from engines.captioning.evaluate import Evaluator
from engines.captioning.model import Captioner
from engines.torchkit import checkpoints
from engines.torchkit.looks import Looks

LOSS_SAMPLE: Final = 512
"""Media whose loss is looked at, at most: a loss is an eighth of the price of a caption."""


class Watch:
    """Looks at the model at the ends of epochs."""

    def __init__(
        self, context: Context, data: Data, evaluator: Evaluator, model: Captioner, root: Path
    ) -> None:
        self._context = context
        self._data = data
        self._evaluator = evaluator
        self._looks = Looks(root, model, context.emit)
        self.latest: dict[str, Tensor] = {}
        """What was seen last, for the curves."""

    @property
    def wanted(self) -> bool:
        """Whether there is anything to look at between epochs."""
        return self._context.params.evaluate_every_epochs > 0

    def after_epoch(self, epoch: int) -> bool:
        """After epoch number `epoch` (from 1): look, and say whether training should end.

        Among several ranks the leader looks, and the others hear what came of it.
        """
        if epoch % self._context.params.evaluate_every_epochs:
            return False
        team = self._context.team
        return team.follow(team.leads and self._look(epoch))

    def _look(self, epoch: int) -> bool:
        params, emit = self._context.params, self._context.emit
        emit.phase("eval", f"after epoch {epoch}")
        state = checkpoints.random_state()
        source = self._data.validation or self._data.train
        try:
            found = self._evaluator.look(source.spread(params.evaluate_sample), f"epoch {epoch}")
            loss = self._evaluator.losses(source.spread(LOSS_SAMPLE), shuffled=False).mean
        finally:
            checkpoints.set_random_state(state)
        name = "validation_loss" if self._data.validation else "train_sample_loss"
        self.latest = {name: torch.tensor(loss), "diversity": torch.tensor(found.unique)}
        seen = self._looks.add(epoch, loss, diversity=found.unique)
        ends = params.early_stopping and self._looks.judge(seen, params.patience, params.min_delta)
        emit.phase("train")
        return ends

    def restore(self) -> None:
        """Put the best weights back into the model, where they were kept."""
        self._looks.restore()
